"""Catalogue, subscriptions and invoices as tables of the operational store."""

import numpy as np

from payments.simulation.arrays import Ints
from payments.simulation.columns import CURRENCIES, Column, Table, constant, keys, labels, moments, numbers, taken
from payments.simulation.invoices import (
    BILLING_REASONS,
    CREDIT_REASONS,
    DESCRIPTIONS,
    INVOICE_STATUSES,
    PAST_DUE,
    SUBSCRIPTION_STATUSES,
)
from payments.simulation.names import Names
from payments.simulation.plan import DAY, SECOND
from payments.simulation.subscriptions import COUPON_DURATIONS, ONCE, REPEATING, REPEATING_MONTHS, TIERS, TRIAL

_DUE_AFTER = 30 * DAY


def billing_tables(names: Names) -> list[Table]:
    """Return the tables of all that is sold by subscription or billed by invoice."""
    return [
        _invoices(names),
        _lines(names),
        _credit_notes(names),
        _products(names),
        _prices(names),
        _coupons(names),
        _subscriptions(names),
        _items(names),
        _discounts(names),
    ]


def _listed(names: Names, merchant: Ints) -> Column:
    """When a merchant listed something: in its first week."""
    return moments(names.business.population.merchants.created[merchant] + DAY)


def _products(names: Names) -> Table:
    catalogue = names.business.billing.subscribed.catalogue
    merchant, count = catalogue.product_merchant, len(catalogue.product_merchant)
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, merchant),
        "product_id": keys(names.spaces["prod"], np.arange(count)),
        "product_name": labels(TIERS, catalogue.product_tier),
        "created_at": _listed(names, merchant),
        "updated_at": _listed(names, merchant),
    }
    return Table("core.products", count, columns)


def _prices(names: Names) -> Table:
    catalogue = names.business.billing.subscribed.catalogue
    count = len(catalogue.price_amount)
    merchant = catalogue.product_merchant[catalogue.price_product]
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, merchant),
        "price_id": keys(names.spaces["price"], np.arange(count)),
        "product_id": keys(names.spaces["prod"], catalogue.price_product),
        "currency": labels(CURRENCIES, catalogue.price_money),
        "unit_amount_minor": numbers(catalogue.price_amount),
        "billing_interval": constant("month", count),
        "interval_count": constant("1", count),
        "created_at": _listed(names, merchant),
        "updated_at": _listed(names, merchant),
    }
    return Table("core.prices", count, columns)


def _coupons(names: Names) -> Table:
    catalogue = names.business.billing.subscribed.catalogue
    merchant, count = catalogue.coupon_merchant, len(catalogue.coupon_merchant)
    has_amount = catalogue.coupon_amount >= 0
    money = np.where(has_amount, names.business.population.merchants.money[merchant], -1)
    is_repeating = catalogue.coupon_duration == REPEATING
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, merchant),
        "coupon_id": keys(names.spaces["co"], np.arange(count)),
        "percent_off_basis_points": numbers(catalogue.coupon_basis_points, has_amount),
        "amount_off_minor": numbers(catalogue.coupon_amount, ~has_amount),
        "currency": labels(CURRENCIES, money),
        "duration": labels(COUPON_DURATIONS, catalogue.coupon_duration),
        "duration_in_months": numbers(np.full(count, REPEATING_MONTHS), ~is_repeating),
        "created_at": _listed(names, merchant),
        "updated_at": _listed(names, merchant),
    }
    return Table("core.coupons", count, columns)


def _of_customers(names: Names, customer: Ints) -> dict[str, Column]:
    merchant = names.business.population.customers.merchant[customer]
    return {
        "merchant_id": taken(names.merchant_ids, merchant),
        "customer_id": taken(names.customer_ids, customer),
    }


def _subscriptions(names: Names) -> Table:
    billing = names.business.billing
    subscriptions, endings = billing.subscribed.subscriptions, billing.endings
    count = len(subscriptions.customer)
    is_leaving = subscriptions.is_ending & (endings.canceled < 0) & (endings.status < PAST_DUE)
    columns: dict[str, Column] = _of_customers(names, subscriptions.customer) | {
        "subscription_id": keys(names.spaces["sub"], np.arange(count)),
        "payment_method_id": taken(names.method_ids, subscriptions.method),
        "currency": labels(CURRENCIES, billing.subscribed.catalogue.price_money[subscriptions.price]),
        "status": labels(SUBSCRIPTION_STATUSES, endings.status),
        "trial_end_at": moments(np.where(subscriptions.has_trial, subscriptions.created + TRIAL, -1)),
        "is_canceling_at_period_end": numbers(is_leaving),
        "canceled_at": moments(endings.canceled),
        "ended_at": moments(endings.canceled),
        "version": numbers(endings.version),
        "created_at": moments(subscriptions.created),
        "updated_at": moments(endings.updated),
    }
    return Table("core.subscriptions", count, columns)


def _items(names: Names) -> Table:
    billing = names.business.billing
    subscriptions, endings = billing.subscribed.subscriptions, billing.endings
    count = len(subscriptions.customer)
    merchant = names.business.population.customers.merchant[subscriptions.customer]
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, merchant),
        "subscription_item_id": keys(names.spaces["si"], np.arange(count)),
        "subscription_id": keys(names.spaces["sub"], np.arange(count)),
        "price_id": keys(names.spaces["price"], subscriptions.price),
        "quantity": numbers(subscriptions.quantity),
        "current_period_start_at": moments(endings.period_starts),
        "current_period_end_at": moments(endings.period_ends),
        "version": numbers(1 + subscriptions.cycles),
        "created_at": moments(subscriptions.created),
        "updated_at": moments(np.maximum(subscriptions.created, endings.period_starts)),
    }
    return Table("core.subscription_items", count, columns)


def _discounts(names: Names) -> Table:
    subscribed = names.business.billing.subscribed
    subscriptions = subscribed.subscriptions
    rows = np.flatnonzero(subscriptions.coupon >= 0)
    coupon, created = subscriptions.coupon[rows], subscriptions.created[rows]
    duration = subscribed.catalogue.coupon_duration[coupon]
    after = subscriptions.begins(rows, np.full(len(rows), REPEATING_MONTHS))
    ends = np.where(duration == ONCE, created + SECOND, np.where(duration == REPEATING, after, -1))
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, subscribed.catalogue.coupon_merchant[coupon]),
        "discount_id": keys(names.spaces["di"], np.arange(len(rows))),
        "coupon_id": keys(names.spaces["co"], coupon),
        "subscription_id": keys(names.spaces["sub"], rows),
        "starts_at": moments(created),
        "ends_at": moments(ends),
        "created_at": moments(created),
    }
    return Table("core.discounts", len(rows), columns)


def _invoices(names: Names) -> Table:
    invoices, count = names.business.billing.invoices, len(names.business.billing.invoices.created)
    changes = (invoices.finalized >= 0).astype(np.int64) + invoices.attempts + (invoices.ended >= 0)
    latest = [invoices.created, invoices.tried, invoices.paid_at, invoices.ended]
    columns: dict[str, Column] = _of_customers(names, invoices.customer) | {
        "invoice_id": keys(names.spaces["in"], np.arange(count)),
        "subscription_id": keys(names.spaces["sub"], invoices.subscription),
        "payment_intent_id": keys(names.spaces["pi"], invoices.intent),
        "currency": labels(CURRENCIES, invoices.money),
        "status": labels(INVOICE_STATUSES, invoices.status),
        "billing_reason": labels(BILLING_REASONS, invoices.reason),
        "subtotal_minor": numbers(invoices.subtotal),
        "discount_minor": numbers(invoices.discount),
        "total_minor": numbers(invoices.subtotal - invoices.discount),
        "amount_paid_minor": numbers(invoices.paid),
        "amount_credited_minor": numbers(invoices.credited),
        "due_at": moments(invoices.created + _DUE_AFTER),
        "finalized_at": moments(invoices.finalized),
        "paid_at": moments(invoices.paid_at),
        "version": numbers(1 + changes + (invoices.credited > 0)),
        "created_at": moments(invoices.created),
        "updated_at": moments(np.maximum.reduce(latest)),
    }
    return Table("core.invoices", count, columns)


def _lines(names: Names) -> Table:
    billing = names.business.billing
    invoices, lines, count = billing.invoices, billing.lines, len(billing.lines.invoice)
    merchant = names.business.population.customers.merchant[invoices.customer]
    subscriptions = billing.subscribed.subscriptions
    price = np.append(subscriptions.price, -1)[lines.subscription]
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, merchant[lines.invoice]),
        "invoice_line_id": keys(names.spaces["il"], np.arange(count)),
        "invoice_id": keys(names.spaces["in"], lines.invoice),
        "price_id": keys(names.spaces["price"], price),
        "subscription_item_id": keys(names.spaces["si"], lines.subscription),
        "description": labels(DESCRIPTIONS, lines.description),
        "quantity": numbers(lines.quantity),
        "amount_minor": numbers(lines.amount),
        "currency": labels(CURRENCIES, invoices.money[lines.invoice]),
        "period_start_at": moments(lines.starts),
        "period_end_at": moments(lines.ends),
        "created_at": moments(invoices.created[lines.invoice]),
    }
    return Table("core.invoice_lines", count, columns)


def _credit_notes(names: Names) -> Table:
    billing = names.business.billing
    notes, invoices, count = billing.credit_notes, billing.invoices, len(billing.credit_notes.amount)
    merchant = names.business.population.customers.merchant[invoices.customer]
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, merchant[notes.invoice]),
        "credit_note_id": keys(names.spaces["cn"], np.arange(count)),
        "invoice_id": keys(names.spaces["in"], notes.invoice),
        "refund_id": keys(names.spaces["re"], notes.refund),
        "amount_minor": numbers(notes.amount),
        "currency": labels(CURRENCIES, invoices.money[notes.invoice]),
        "reason": labels(CREDIT_REASONS, notes.reason),
        "created_at": moments(notes.created),
    }
    return Table("core.credit_notes", count, columns)

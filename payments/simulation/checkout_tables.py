"""Payment pages, stored payment methods, reviews and warnings as tables of the operational store."""

import numpy as np

from payments.simulation.arrays import Ints
from payments.simulation.checkout import (
    CLOSED_REASONS,
    EXPIRES_AFTER,
    FRAUD_TYPES,
    OPENED_REASONS,
    SESSION_MODES,
    SESSION_STATUSES,
    SETUP_STATUSES,
)
from payments.simulation.columns import CURRENCIES, Column, Table, keys, labels, moments, numbers, taken
from payments.simulation.names import Names


def checkout_tables(names: Names) -> list[Table]:
    """Return these tables."""
    return [_sessions(names), _setup_intents(names), _reviews(names), _warnings(names)]


def _of_customers(names: Names, customer: Ints) -> dict[str, Column]:
    return {
        "merchant_id": taken(names.merchant_ids, names.business.population.customers.merchant[customer]),
        "customer_id": taken(names.customer_ids, customer),
    }


def _sessions(names: Names) -> Table:
    sessions, count = names.business.sessions, len(names.business.sessions.created)
    columns: dict[str, Column] = _of_customers(names, sessions.customer) | {
        "checkout_session_id": keys(names.spaces["cs"], np.arange(count)),
        "payment_intent_id": keys(names.spaces["pi"], sessions.intent),
        "mode": labels(SESSION_MODES, sessions.mode),
        "status": labels(SESSION_STATUSES, sessions.status),
        "amount_total_minor": numbers(sessions.amount),
        "currency": labels(CURRENCIES, sessions.money),
        "expires_at": moments(sessions.created + EXPIRES_AFTER),
        "version": numbers(1 + (sessions.status > 0)),
        "created_at": moments(sessions.created),
        "updated_at": moments(sessions.updated),
    }
    return Table("core.checkout_sessions", count, columns)


def _setup_intents(names: Names) -> Table:
    setups, count = names.business.setups, len(names.business.setups.created)
    columns: dict[str, Column] = _of_customers(names, setups.customer) | {
        "setup_intent_id": keys(names.spaces["seti"], np.arange(count)),
        "payment_method_id": taken(names.method_ids, setups.method),
        "status": labels(SETUP_STATUSES, setups.status),
        "version": numbers(np.full(count, 2)),
        "created_at": moments(setups.created),
        "updated_at": moments(setups.updated),
    }
    return Table("core.setup_intents", count, columns)


def _reviews(names: Names) -> Table:
    reviews, count = names.business.reviews, len(names.business.reviews.created)
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, names.business.sales.merchant[reviews.charge]),
        "review_id": keys(names.spaces["prv"], np.arange(count)),
        "charge_id": keys(names.spaces["ch"], reviews.charge),
        "opened_reason": labels(OPENED_REASONS, reviews.opened),
        "closed_reason": labels(CLOSED_REASONS, reviews.reason),
        "closed_at": moments(reviews.closed),
        "version": numbers(1 + (reviews.closed >= 0)),
        "created_at": moments(reviews.created),
        "updated_at": moments(np.maximum(reviews.created, reviews.closed)),
    }
    return Table("core.reviews", count, columns)


def _warnings(names: Names) -> Table:
    warnings, count = names.business.warnings, len(names.business.warnings.created)
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, names.business.sales.merchant[warnings.charge]),
        "early_fraud_warning_id": keys(names.spaces["issfr"], np.arange(count)),
        "charge_id": keys(names.spaces["ch"], warnings.charge),
        "fraud_type": labels(FRAUD_TYPES, warnings.type),
        "is_actionable": numbers(warnings.is_actionable),
        "created_at": moments(warnings.created),
    }
    return Table("core.early_fraud_warnings", count, columns)

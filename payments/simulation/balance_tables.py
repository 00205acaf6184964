"""What moves the balances of merchants, as tables of the operational store."""

import numpy as np
import pyarrow as pa

from payments.simulation.aftermath import settlement_moment
from payments.simulation.columns import (
    CURRENCIES,
    Column,
    Table,
    constant,
    dates,
    given,
    keys,
    labels,
    moments,
    numbers,
    taken,
)
from payments.simulation.movements import FEES, TYPES
from payments.simulation.names import Names
from payments.simulation.plan import DAY
from payments.simulation.treasury import OPERATORS, PAYOUT_FAILURES, PAYOUT_STATUSES, TOPUP_STATUSES


def balance_tables(names: Names) -> list[Table]:
    """Return the tables of balance transactions and of the objects behind them, other than payments."""
    return [
        _balance_transactions(names),
        _fee_parts(names),
        _settlements(names),
        _payout_links(names),
        _payouts(names),
        _application_fees(names),
        _transfers(names),
        _topups(names),
        _conversions(names),
        _adjustments(names),
    ]


def _balance_transactions(names: Names) -> Table:
    balance, count = names.business.balance, len(names.business.balance.type)
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, balance.merchant),
        "balance_transaction_id": keys(names.spaces["txn"], np.arange(count)),
        "type": labels(TYPES, balance.type),
        "source_id": names.sources(balance.space, balance.source),
        "amount_minor": numbers(balance.amount),
        "fee_minor": numbers(balance.fee),
        "net_minor": numbers(balance.amount - balance.fee),
        "currency": labels(CURRENCIES, balance.money),
        "available_at": moments(balance.available),
        "created_at": moments(balance.created),
    }
    return Table("core.balance_transactions", count, columns, names.by_merchant(balance.merchant))


def _fee_parts(names: Names) -> Table:
    balance = names.business.balance
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, balance.merchant[balance.part_of]),
        "balance_transaction_id": keys(names.spaces["txn"], balance.part_of),
        "type": labels(FEES, balance.part_type),
        "amount_minor": numbers(balance.part_amount),
        "currency": labels(CURRENCIES, balance.money[balance.part_of]),
    }
    order = names.by_merchant(balance.merchant[balance.part_of])
    return Table("core.balance_transaction_fees", len(balance.part_of), columns, order)


def _settlements(names: Names) -> Table:
    settled = names.business.settled
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, settled.merchant),
        "currency": labels(CURRENCIES, settled.money),
        "day": dates(settled.day * DAY),
        "amount_minor": numbers(settled.amount),
        "net_minor": numbers(settled.net),
        "settled_at": moments(settlement_moment(settled.day * DAY)),
    }
    return Table("core.settlements", len(settled.day), columns)


def _application_fees(names: Names) -> Table:
    sales, platform = names.business.sales, names.business.platform
    rows = np.flatnonzero(sales.application_fee)
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, sales.merchant[rows]),
        "application_fee_id": keys(names.spaces["fee"], np.arange(len(rows))),
        "charge_id": keys(names.spaces["ch"], rows),
        "application_merchant_id": taken(names.merchant_ids, platform[sales.merchant[rows]]),
        "amount_minor": numbers(sales.application_fee[rows]),
        "currency": labels(CURRENCIES, sales.money[rows]),
        "created_at": moments(sales.captured[rows]),
    }
    return Table("core.application_fees", len(rows), columns)


def _payouts(names: Names) -> Table:
    payouts, count = names.business.treasury.payouts, len(names.business.treasury.payouts.amount)
    steps = (payouts.in_transit >= 0).astype(np.int64) + (payouts.paid >= 0) + (payouts.failed >= 0)
    latest = np.maximum.reduce([payouts.created, payouts.in_transit, payouts.paid, payouts.failed])
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, payouts.merchant),
        "payout_id": keys(names.spaces["po"], np.arange(count)),
        "amount_minor": numbers(payouts.amount),
        "currency": labels(CURRENCIES, payouts.money),
        "status": labels(PAYOUT_STATUSES, payouts.status),
        "is_automatic": numbers(payouts.is_automatic),
        "failure_code": labels(PAYOUT_FAILURES, payouts.failure),
        "arrival_date": dates(payouts.created + 2 * DAY),
        "version": numbers(1 + steps),
        "created_at": moments(payouts.created),
        "updated_at": moments(latest),
    }
    return Table("core.payouts", count, columns)


def _payout_links(names: Names) -> Table:
    rows = np.flatnonzero(names.business.paid_out_by >= 0)
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, names.business.balance.merchant[rows]),
        "balance_transaction_id": keys(names.spaces["txn"], rows),
        "payout_id": keys(names.spaces["po"], names.business.paid_out_by[rows]),
    }
    order = names.by_merchant(names.business.balance.merchant[rows])
    return Table("core.payout_balance_transactions", len(rows), columns, order)


def _transfers(names: Names) -> Table:
    transfers, count = names.business.treasury.transfers, len(names.business.treasury.transfers.amount)
    was_reversed = transfers.reversed >= 0
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, transfers.merchant),
        "transfer_id": keys(names.spaces["tr"], np.arange(count)),
        "destination_merchant_id": taken(names.merchant_ids, transfers.destination),
        "amount_minor": numbers(transfers.amount),
        "amount_reversed_minor": numbers(np.where(was_reversed, transfers.amount, 0)),
        "currency": labels(CURRENCIES, transfers.money),
        "version": numbers(1 + was_reversed),
        "created_at": moments(transfers.created),
        "updated_at": moments(np.maximum(transfers.created, transfers.reversed)),
    }
    return Table("core.transfers", count, columns)


def _topups(names: Names) -> Table:
    topups, count = names.business.treasury.topups, len(names.business.treasury.topups.amount)
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, topups.merchant),
        "topup_id": keys(names.spaces["tu"], np.arange(count)),
        "amount_minor": numbers(topups.amount),
        "currency": labels(CURRENCIES, topups.money),
        "status": labels(TOPUP_STATUSES, topups.status),
        "version": numbers(1 + (topups.reversed >= 0)),
        "created_at": moments(topups.created),
        "updated_at": moments(np.maximum(topups.created, topups.reversed)),
    }
    return Table("core.topups", count, columns)


def _conversions(names: Names) -> Table:
    conversions, count = names.business.treasury.conversions, len(names.business.treasury.conversions.fee)
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, conversions.merchant),
        "currency_conversion_id": keys(names.spaces["fx"], np.arange(count)),
        "from_currency": labels(CURRENCIES, conversions.from_money),
        "from_amount_minor": numbers(conversions.from_amount),
        "to_currency": labels(CURRENCIES, conversions.to_money),
        "to_amount_minor": numbers(conversions.to_amount),
        "fee_minor": numbers(conversions.fee),
        "rate": given(pa.array([format(rate, "f") for rate in conversions.rate], pa.string())),
        "created_at": moments(conversions.created),
    }
    return Table("core.currency_conversions", count, columns)


def _adjustments(names: Names) -> Table:
    made, count = names.business.treasury.adjustments, len(names.business.treasury.adjustments.amount)
    proposer, decider = OPERATORS
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, made.merchant),
        "adjustment_id": keys(names.spaces["adj"], np.arange(count)),
        "amount_minor": numbers(made.amount),
        "currency": labels(CURRENCIES, made.money),
        "reason": given(pa.array(list(made.reason), pa.string())),
        "status": constant("approved", count),
        "proposed_by": constant(proposer, count),
        "decided_by": constant(decider, count),
        "decided_at": moments(made.decided),
        "version": constant("2", count),
        "created_at": moments(made.created),
        "updated_at": moments(made.decided),
    }
    return Table("core.adjustments", count, columns)

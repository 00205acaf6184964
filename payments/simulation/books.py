"""What payments, refunds and disputes do to the books: their movements of balance and their postings."""

from dataclasses import dataclass

import numpy as np

from payments.simulation.aftermath import LOST, WON, Disputes, Refunds, Sales, settlement_moment
from payments.simulation.arrays import Flags, Ints
from payments.simulation.movements import Movements
from payments.simulation.plan import DAY, Plan
from payments.simulation.postings import Leg, Postings


@dataclass(frozen=True)
class Settled:
    """One row a settlement: the charges of one merchant, currency and day (days since 1970)."""

    merchant: Ints
    money: Ints
    day: Ints
    amount: Ints
    net: Ints


def settle(plan: Plan, sales: Sales) -> Settled:
    """Group paid charges into the settlements that fall within the history, ordered by day, merchant and currency."""
    ripe = sales.is_paid & (settlement_moment(sales.captured) < plan.end_moment)
    key = np.stack([sales.captured[ripe] // DAY, sales.merchant[ripe], sales.money[ripe]], axis=1)
    groups, place = np.unique(key, axis=0, return_inverse=True) if len(key) else (key, np.zeros(0, np.int64))
    totals, nets = np.zeros(len(groups), np.int64), np.zeros(len(groups), np.int64)
    np.add.at(totals, place, sales.captured_amount[ripe])
    np.add.at(nets, place, (sales.captured_amount - sales.fee - sales.application_fee)[ripe])
    return Settled(groups[:, 1], groups[:, 2], groups[:, 0], totals, nets)


def payment_movements(sales: Sales, application: Ints, refunds: Refunds, disputes: Disputes) -> list[Movements]:
    """Return what charges, refunds and disputes change balances by; `application` takes the fee of each charge."""
    paid, shared = np.flatnonzero(sales.is_paid), np.flatnonzero(sales.application_fee)
    failed, won = np.flatnonzero(refunds.failed >= 0), np.flatnonzero(disputes.status == WON)
    taken = np.flatnonzero(disputes.taken >= 0)

    def after(kind: str, objects: Refunds | Disputes, rows: Ints, moment: Ints) -> Movements:
        charge, sign = objects.charge[rows], -1 if kind in ("refund", "dispute") else 1
        return Movements(
            type=kind,
            space="re" if isinstance(objects, Refunds) else "dp",
            merchant=sales.merchant[charge],
            money=sales.money[charge],
            source=rows,
            amount=sign * objects.amount[rows],
            created=moment[rows],
            available=moment[rows],
            fees={"dispute_fee": disputes.fee[rows]} if kind == "dispute" else {},
        )

    return [
        Movements(
            type="charge",
            space="ch",
            merchant=sales.merchant[paid],
            money=sales.money[paid],
            source=paid,
            amount=sales.captured_amount[paid],
            created=sales.captured[paid],
            available=settlement_moment(sales.captured[paid]),
            fees={"processing_fee": sales.fee[paid], "application_fee": sales.application_fee[paid]},
        ),
        Movements(
            type="application_fee",
            space="ch",
            merchant=application[shared],
            money=sales.money[shared],
            source=shared,
            amount=sales.application_fee[shared],
            created=sales.captured[shared],
            available=sales.captured[shared],
        ),
        after("refund", refunds, np.arange(len(refunds.charge)), refunds.created),
        after("refund_failure", refunds, failed, refunds.failed),
        after("dispute", disputes, taken, disputes.taken),
        after("dispute_reversal", disputes, won, disputes.closed),
    ]


def payment_postings(
    sales: Sales, application: Ints, settled: Settled, refunds: Refunds, disputes: Disputes
) -> list[Postings]:
    """Return the postings of charges, settlements, refunds and disputes."""
    return [
        *_charge_postings(sales, application),
        _settlement_postings(settled),
        *_refund_postings(sales, refunds),
        *_dispute_postings(sales, disputes),
    ]


def _charge_postings(sales: Sales, application: Ints) -> list[Postings]:
    paid, shared = np.flatnonzero(sales.is_paid), np.flatnonzero(sales.application_fee)
    money, amount, fee = sales.money[paid], sales.captured_amount[paid], sales.fee[paid]
    shared_money, share, moment = sales.money[shared], sales.application_fee[shared], sales.captured[shared]
    return [
        Postings(
            "charge",
            "ch",
            sales.merchant[paid],
            paid,
            sales.captured[paid],
            (
                Leg("card_receivable", True, money, amount),
                Leg("merchant_pending", False, money, amount - fee),
                Leg("fee_revenue", False, money, fee),
            ),
        ),
        Postings(
            "application_fee",
            "ch",
            sales.merchant[shared],
            shared,
            moment,
            (
                Leg("merchant_pending", True, shared_money, share),
                Leg("transfer_clearing", False, shared_money, share),
            ),
        ),
        Postings(
            "application_fee_in",
            "ch",
            application[shared],
            shared,
            moment,
            (
                Leg("transfer_clearing", True, shared_money, share),
                Leg("merchant_available", False, shared_money, share),
            ),
        ),
    ]


def _settlement_postings(settled: Settled) -> Postings:
    return Postings(
        "settlement",
        "day",
        settled.merchant,
        np.arange(len(settled.day)),
        settlement_moment(settled.day * DAY),
        (
            Leg("bank", True, settled.money, settled.amount),
            Leg("merchant_available", False, settled.money, settled.net),
            Leg("card_receivable", False, settled.money, settled.amount),
            Leg("merchant_pending", True, settled.money, settled.net),
        ),
    )


def _refund_postings(sales: Sales, refunds: Refunds) -> list[Postings]:
    def posting(kind: str, is_chosen: Flags, moment: Ints, debit: str, credit: str) -> Postings:
        rows = np.flatnonzero(is_chosen)
        money, amount = sales.money[refunds.charge[rows]], refunds.amount[rows]
        legs = (Leg(debit, True, money, amount), Leg(credit, False, money, amount))
        return Postings(kind, "re", sales.merchant[refunds.charge[rows]], rows, moment[rows], legs)

    was_settled, failed = refunds.settled >= 0, refunds.failed >= 0
    return [
        posting("refund", refunds.created >= 0, refunds.created, "merchant_available", "refund_clearing"),
        posting("refund_settled", was_settled, refunds.settled, "refund_clearing", "bank"),
        posting("refund_failed", failed & ~was_settled, refunds.failed, "refund_clearing", "merchant_available"),
        posting("refund_failed", failed & was_settled, refunds.failed, "bank", "merchant_available"),
    ]


def _dispute_postings(sales: Sales, disputes: Disputes) -> list[Postings]:
    taken = np.flatnonzero(disputes.taken >= 0)
    money = sales.money[disputes.charge]

    def decided(status: int, kind: str, credit: str) -> Postings:
        rows = np.flatnonzero(disputes.status == status)
        return Postings(
            kind,
            "dp",
            sales.merchant[disputes.charge[rows]],
            rows,
            disputes.closed[rows],
            (
                Leg("dispute_clearing", True, money[rows], disputes.amount[rows]),
                Leg(credit, False, money[rows], disputes.amount[rows]),
            ),
        )

    return [
        Postings(
            "dispute",
            "dp",
            sales.merchant[disputes.charge[taken]],
            taken,
            disputes.taken[taken],
            (
                Leg("merchant_available", True, money[taken], (disputes.amount + disputes.fee)[taken]),
                Leg("dispute_clearing", False, money[taken], disputes.amount[taken]),
                Leg("fee_revenue", False, money[taken], disputes.fee[taken]),
            ),
        ),
        decided(WON, "dispute_won", "merchant_available"),
        decided(LOST, "dispute_lost", "bank"),
    ]

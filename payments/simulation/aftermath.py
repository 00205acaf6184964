"""What follows a payment days or weeks later: refunds, disputes and how disputes end.

Whatever would happen after the history ends has not happened yet and is not there. A dispute with reason `fraudulent`
is the only trace of fraud; some frauds are never disputed, and some good payments are (friendly fraud).
"""

from dataclasses import dataclass

import numpy as np

from payments.simulation.arrays import Flags, Floats, Ints, pick
from payments.simulation.plan import DAY, SECOND, Plan
from payments.simulation.purchases import ORDINARY, Charges
from payments.simulation.streams import Streams
from payments.simulation.world import CATEGORIES, MONIES

REFUND_STATUSES = ("succeeded", "failed", "pending")
REFUND_REASONS = ("requested_by_customer", "duplicate", "fraudulent")
DISPUTE_STATUSES = ("needs_response", "under_review", "won", "lost")
DISPUTE_REASONS = (
    "fraudulent",
    "product_not_received",
    "product_unacceptable",
    "duplicate",
    "subscription_canceled",
    "general",
)
REFUNDED = REFUND_STATUSES.index("succeeded")
FRAUDULENT = DISPUTE_REASONS.index("fraudulent")
WON, LOST = DISPUTE_STATUSES.index("won"), DISPUTE_STATUSES.index("lost")

_LABELLED_SHARE = 0.85
_FRIENDLY_FRAUD_RATE = 0.0004


@dataclass(frozen=True)
class Sales:
    """One row a charge: whose it is, in which currency, amount and fee (0 unless paid) in minor units, and when."""

    merchant: Ints
    category: Ints
    money: Ints
    amount: Ints
    fee: Ints
    created: Ints
    is_paid: Flags


@dataclass(frozen=True)
class Refunds:
    """One row a refund, in order of time; `charge` is a position, `created` in microseconds, amounts in minor units."""

    charge: Ints
    amount: Ints
    status: Ints
    reason: Ints
    created: Ints


@dataclass(frozen=True)
class Disputes:
    """One row a dispute, in order of time; `closed` is -1 while it is open."""

    charge: Ints
    amount: Ints
    fee: Ints
    status: Ints
    reason: Ints
    created: Ints
    updated: Ints
    closed: Ints


@dataclass(frozen=True)
class _Complaints:
    """One row a charge that somebody disputes: when, why, and for how much."""

    charge: Ints
    created: Ints
    reason: Ints
    amount: Ints


def _days(values: Floats) -> Ints:
    lengths: Ints = (values * DAY).astype(np.int64)
    return lengths


def _complaints(streams: Streams, charges: Charges, sales: Sales) -> _Complaints:
    """Return the disputes over whole charges that would happen if there were no refunds and no end."""
    generator = streams.stream("disputes")
    count = len(charges.status)
    is_paid, is_fraud = sales.is_paid, charges.kind != ORDINARY
    rates = np.array([entry.dispute_rate for entry in CATEGORIES])[sales.category]
    chance = generator.random(count)
    labelled = is_paid & is_fraud & (chance < _LABELLED_SHARE)
    friendly = is_paid & ~is_fraud & (chance < _FRIENDLY_FRAUD_RATE)
    unhappy = is_paid & ~is_fraud & (chance > 1 - rates)
    charge = np.flatnonzero(labelled | friendly | unhappy)
    other = 1 + pick(generator, np.array([0.42, 0.24, 0.08, 0.16, 0.10]), len(charge))
    reason = np.where(unhappy[charge], other, FRAUDULENT)
    slow = np.clip(np.exp(generator.normal(np.log(24), 0.6, len(charge))), 3, 110)
    delay = np.where(unhappy[charge], slow, generator.uniform(5, 45, len(charge)))
    return _Complaints(charge, charges.created[charge] + _days(delay), reason, sales.amount[charge])


def _refunds_wanted(streams: Streams, plan: Plan, sales: Sales) -> Refunds:
    """Return the refunds that merchants would make if the history had no end; a part has a second one."""
    generator = streams.stream("refunds")
    rates = np.array([entry.refund_rate for entry in CATEGORIES])[sales.category]
    charge = np.flatnonzero(sales.is_paid & (generator.random(len(rates)) < rates))
    count = len(charge)
    reason = pick(generator, np.array([0.90, 0.08, 0.02]), count)
    full = sales.amount[charge]
    is_partial = (generator.random(count) < 0.38) & (reason == 0) & (full > 1)
    part = np.clip((generator.uniform(0.1, 0.8, count) * full).astype(np.int64), 1, np.maximum(full - 1, 1))
    first = np.where(is_partial, part, full)
    created = sales.created[charge] + _days(np.clip(np.exp(generator.normal(np.log(6), 1.0, count)), 0.01, 60))

    again = is_partial & (generator.random(count) < 0.15)
    rest = full - first
    second = np.where(generator.random(count) < 0.5, rest, (rest + 1) // 2)
    second_created = created + _days(generator.uniform(0.5, 14, count))
    refunds = Refunds(
        charge=np.concatenate([charge, charge[again]]),
        amount=np.concatenate([first, second[again]]),
        status=np.zeros(count + int(again.sum()), np.int64),
        reason=np.concatenate([reason, np.zeros(int(again.sum()), np.int64)]),
        created=np.concatenate([created, second_created[again]]),
    )
    chance = generator.random(len(refunds.charge))
    is_waiting = (refunds.created > plan.end_moment - DAY // 2) & (chance > 0.7)
    status = np.where(chance < 0.008, 1, np.where(is_waiting, 2, REFUNDED))
    return Refunds(refunds.charge, refunds.amount, status, refunds.reason, refunds.created)


def _chosen(refunds: Refunds, index: Ints | Flags) -> Refunds:
    return Refunds(
        refunds.charge[index],
        refunds.amount[index],
        refunds.status[index],
        refunds.reason[index],
        refunds.created[index],
    )


def aftermath(streams: Streams, plan: Plan, charges: Charges, sales: Sales) -> tuple[Refunds, Disputes]:
    """Draw the refunds and disputes of these charges.

    A charge is refunded at most in full, disputed at most once, for what was not refunded before, and not refunded
    after it was disputed.
    """
    end = plan.end_moment
    complaints = _complaints(streams, charges, sales)
    refunds = _refunds_wanted(streams, plan, sales)
    complained = np.full(len(sales.amount), np.iinfo(np.int64).max)
    complained[complaints.charge] = complaints.created
    refunds = _chosen(refunds, (refunds.created < end) & (refunds.created < complained[refunds.charge]))
    refunds = _chosen(refunds, np.lexsort((refunds.charge, refunds.created)))

    refunded = np.zeros(len(sales.amount), np.int64)
    is_live = refunds.status != REFUND_STATUSES.index("failed")
    np.add.at(refunded, refunds.charge[is_live], refunds.amount[is_live])
    left = complaints.amount - refunded[complaints.charge]
    happens = np.flatnonzero((complaints.created < end) & (left > 0))
    order = happens[np.lexsort((complaints.charge[happens], complaints.created[happens]))]
    opened = _Complaints(complaints.charge[order], complaints.created[order], complaints.reason[order], left[order])
    is_fraud = charges.kind[opened.charge] != ORDINARY
    return refunds, _disputes(streams, plan, opened, is_fraud, sales.money[opened.charge])


def _disputes(streams: Streams, plan: Plan, opened: _Complaints, is_fraud: Flags, money: Ints) -> Disputes:
    """Draw how far each dispute has come when the history ends, and how it was decided."""
    generator = streams.stream("decisions")
    count, end = len(opened.charge), plan.end_moment
    decided = opened.created + _days(generator.uniform(14, 75, count))
    is_closed = decided < end
    win_rate = np.where(is_fraud, 0.12, np.where(opened.reason == FRAUDULENT, 0.55, 0.38))
    ending = np.where(generator.random(count) < win_rate, WON, LOST)
    answered = opened.created + _days(generator.uniform(1, 7, count))
    status = np.where(is_closed, ending, np.where(answered < end, 1, 0))
    updated = np.where(is_closed, decided, np.where(answered < end, answered, opened.created))
    return Disputes(
        charge=opened.charge,
        amount=opened.amount,
        fee=np.array([entry.dispute_fee for entry in MONIES])[money],
        status=status,
        reason=opened.reason,
        created=opened.created,
        updated=updated,
        closed=np.where(is_closed, decided, -1),
    )


def anomaly_scores(streams: Streams, charges: Charges) -> Ints:
    """Return the score that the rules gave at the moment of payment, in ten-thousandths: it separates fraud weakly."""
    generator = streams.stream("scores")
    count = len(charges.kind)
    ordinary, fraud = generator.beta(1.5, 7.0, count), generator.beta(2.1, 5.5, count)
    scores: Ints = np.rint(np.where(charges.kind == ORDINARY, ordinary, fraud) * 10_000).astype(np.int64)
    return scores


def fees_of(amount: Ints, basis_points: Ints, fixed: Ints) -> Ints:
    """Return the fee of each charge: the share rounded half-even, plus the fixed part, at most the amount."""
    product = amount * basis_points
    share, rest = product // 10_000, product % 10_000
    rounded = share + ((rest > 5_000) | ((rest == 5_000) & (share % 2 == 1)))
    fees: Ints = np.minimum(rounded + fixed, amount)
    return fees


def settlement_moment(created: Ints) -> Ints:
    """Return when a charge of this moment is settled: at four in the morning (UTC) two days after its day."""
    return created // DAY * DAY + 2 * DAY + 4 * 3600 * SECOND

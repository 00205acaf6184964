"""What follows a payment days or weeks later: refunds, disputes and how disputes end.

Whatever would happen after the history ends has not happened yet and is not there. A dispute with reason `fraudulent`
is the only trace of fraud; some frauds are never disputed, and some good payments are (friendly fraud).
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from payments.simulation.arrays import Flags, Floats, Ints, pick
from payments.simulation.plan import DAY, HOUR, SECOND, Plan
from payments.simulation.purchases import ORDINARY, Charges
from payments.simulation.streams import Streams
from payments.simulation.world import CATEGORIES, MONIES

REFUND_STATUSES = ("succeeded", "failed", "pending")
REFUND_REASONS = ("requested_by_customer", "duplicate", "fraudulent")
DISPUTE_STATUSES = (
    "needs_response",
    "under_review",
    "won",
    "lost",
    "warning_needs_response",
    "warning_under_review",
    "warning_closed",
)
DISPUTE_REASONS = (
    "fraudulent",
    "product_not_received",
    "product_unacceptable",
    "duplicate",
    "subscription_canceled",
    "general",
)
REFUNDED, REFUND_FAILED, REFUND_PENDING = (REFUND_STATUSES.index(status) for status in REFUND_STATUSES)
FRAUDULENT = DISPUTE_REASONS.index("fraudulent")
NEEDS_RESPONSE, UNDER_REVIEW, WON, LOST, WARNED, WARNING_REVIEWED, WARNING_CLOSED = range(len(DISPUTE_STATUSES))

_LABELLED_SHARE = 0.85
_FRIENDLY_FRAUD_RATE = 0.0004
_FAILING_REFUNDS = 0.008
_INQUIRY_SHARE, _ESCALATED_SHARE = 0.15, 0.35


@dataclass(frozen=True)
class Sales:
    """One row a charge: whose it is, in which currency, what for, and what became of it.

    Amounts are in minor units; what was captured and its fees are 0, and the moment of capture -1, unless it is paid.
    """

    merchant: Ints
    category: Ints
    money: Ints
    amount: Ints
    captured_amount: Ints
    fee: Ints
    application_fee: Ints
    created: Ints
    captured: Ints
    is_paid: Flags


@dataclass(frozen=True)
class Refunds:
    """One row a refund, in order of time; `charge` is a position, moments in microseconds, amounts in minor units.

    `settled` is when the customer's bank took it and `failed` when it came back, -1 where that did not happen: a refund
    can fail at once or after it seemed to be settled.
    """

    charge: Ints
    amount: Ints
    status: Ints
    reason: Ints
    created: Ints
    settled: Ints
    failed: Ints


@dataclass(frozen=True)
class Disputes:
    """One row a dispute, in order of time; `closed` is -1 while it is open.

    `taken` is when amount and fee were taken from the merchant: at once, or, where the bank inquired first, when the
    inquiry became a dispute; -1 while it is, or when it ended as, an inquiry. `steps` counts its changes of status.
    """

    charge: Ints
    amount: Ints
    fee: Ints
    status: Ints
    reason: Ints
    created: Ints
    taken: Ints
    updated: Ints
    closed: Ints
    steps: Ints


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
    # Nobody disputes what is not captured yet.
    created = np.maximum(charges.created[charge] + _days(delay), sales.captured[charge] + HOUR)
    return _Complaints(charge, created, reason, sales.captured_amount[charge])


def _refunds_wanted(streams: Streams, sales: Sales) -> Refunds:
    """Return the refunds that merchants would make if the history had no end; a part has a second one."""
    generator = streams.stream("refunds")
    rates = np.array([entry.refund_rate for entry in CATEGORIES])[sales.category]
    charge = np.flatnonzero(sales.is_paid & (generator.random(len(rates)) < rates))
    count = len(charge)
    reason = pick(generator, np.array([0.90, 0.08, 0.02]), count)
    full = sales.captured_amount[charge]
    is_partial = (generator.random(count) < 0.38) & (reason == 0) & (full > 1)
    part = np.clip((generator.uniform(0.1, 0.8, count) * full).astype(np.int64), 1, np.maximum(full - 1, 1))
    first = np.where(is_partial, part, full)
    created = sales.captured[charge] + _days(np.clip(np.exp(generator.normal(np.log(6), 1.0, count)), 0.01, 60))

    again = is_partial & (generator.random(count) < 0.15)
    rest = full - first
    second = np.where(generator.random(count) < 0.5, rest, (rest + 1) // 2)
    second_created = created + _days(generator.uniform(0.5, 14, count))
    total = count + int(again.sum())
    created = np.concatenate([created, second_created[again]])
    chance = generator.random(total)
    settled = created + _days(np.exp(generator.normal(np.log(0.25), 1.0, total)).clip(0.002, 4))
    failed = settled + _days(generator.uniform(1, 6, total))
    fails, fails_at_once = chance < _FAILING_REFUNDS, chance < 0.7 * _FAILING_REFUNDS
    return Refunds(
        charge=np.concatenate([charge, charge[again]]),
        amount=np.concatenate([first, second[again]]),
        status=np.zeros(total, np.int64),
        reason=np.concatenate([reason, np.zeros(total - count, np.int64)]),
        created=created,
        settled=np.where(fails_at_once, -1, settled),
        failed=np.where(fails, np.where(fails_at_once, settled, failed), -1),
    )


def _as_of_the_end(refunds: Refunds, end: int, complained: Ints) -> Refunds:
    """Take back what happens after the end of the history; no refund fails once its charge is disputed."""
    fails = (refunds.failed >= 0) & (refunds.failed < end) & (refunds.failed < complained[refunds.charge])
    # One that would have failed at once, but for the dispute, is settled at that moment.
    settled = np.where((refunds.settled < 0) & ~fails, refunds.failed, refunds.settled)
    is_settled = (settled >= 0) & (settled < end)
    return replace(
        refunds,
        status=np.where(fails, REFUND_FAILED, np.where(is_settled, REFUNDED, REFUND_PENDING)),
        settled=np.where(is_settled, settled, -1),
        failed=np.where(fails, refunds.failed, -1),
    )


def _chosen(refunds: Refunds, index: Ints | Flags) -> Refunds:
    return Refunds(**{field.name: getattr(refunds, field.name)[index] for field in fields(refunds)})


def aftermath(streams: Streams, plan: Plan, charges: Charges, sales: Sales) -> tuple[Refunds, Disputes]:
    """Draw the refunds and disputes of these charges.

    A charge is refunded at most in full, disputed at most once, for what was not refunded before, and not refunded
    after it was disputed.
    """
    end = plan.end_moment
    complaints = _complaints(streams, charges, sales)
    refunds = _refunds_wanted(streams, sales)
    complained = np.full(len(sales.amount), np.iinfo(np.int64).max)
    complained[complaints.charge] = complaints.created
    refunds = _chosen(refunds, (refunds.created < end) & (refunds.created < complained[refunds.charge]))
    refunds = _as_of_the_end(refunds, end, complained)
    refunds = _chosen(refunds, np.lexsort((refunds.charge, refunds.created)))

    refunded = np.zeros(len(sales.amount), np.int64)
    is_live = refunds.status != REFUND_FAILED
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
    is_inquiry = (opened.reason != FRAUDULENT) & (generator.random(count) < _INQUIRY_SHARE)
    resolved = opened.created + _days(generator.uniform(4, 20, count))
    escalates = is_inquiry & (generator.random(count) < _ESCALATED_SHARE)
    taken = np.where(escalates, resolved, opened.created)
    is_taken = ~is_inquiry | (escalates & (resolved < end))
    decided = taken + _days(generator.uniform(14, 75, count))
    win_rate = np.where(is_fraud, 0.12, np.where(opened.reason == FRAUDULENT, 0.55, 0.38))
    ending = np.where(generator.random(count) < win_rate, WON, LOST)
    answered = taken + _days(generator.uniform(1, 7, count))
    warning_answered = opened.created + _days(generator.uniform(0.5, 3.5, count))

    # Each path is a list of what happens when; what lies after the end has not happened.
    status = np.where(is_inquiry, WARNED, NEEDS_RESPONSE)
    updated, steps = opened.created.copy(), np.zeros(count, np.int64)
    for reached, moment, happens in (
        (np.full(count, WARNING_REVIEWED), warning_answered, is_inquiry),
        (np.full(count, WARNING_CLOSED), resolved, is_inquiry & ~escalates),
        (np.full(count, NEEDS_RESPONSE), taken, is_inquiry & is_taken),
        (np.full(count, UNDER_REVIEW), answered, is_taken),
        (ending, decided, is_taken),
    ):
        happened = happens & (moment < end)
        status, updated = np.where(happened, reached, status), np.where(happened, moment, updated)
        steps += happened
    is_closed = np.isin(status, [WON, LOST, WARNING_CLOSED])
    return Disputes(
        charge=opened.charge,
        amount=opened.amount,
        fee=np.array([entry.dispute_fee for entry in MONIES])[money],
        status=status,
        reason=opened.reason,
        created=opened.created,
        taken=np.where(is_taken, taken, -1),
        updated=updated,
        closed=np.where(is_closed, updated, -1),
        steps=steps,
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
    """Return when a charge captured at this moment is settled: at four (UTC) two days after its day."""
    return created // DAY * DAY + 2 * DAY + 4 * 3600 * SECOND

"""What follows a payment days or weeks later: refunds, disputes and how disputes end.

Whatever would happen after the history ends has not happened yet and is not there. A dispute with reason `fraudulent` is the
only trace of fraud; some frauds are never disputed, and some good payments are (friendly fraud).
"""

from dataclasses import dataclass

import numpy as np

from payments.simulation.arrays import Flags, Floats, Ints, pick
from payments.simulation.population import DAY, SECOND
from payments.simulation.purchases import ORDINARY, SUCCEEDED, Charges
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


def _days(values: Floats) -> Ints:
    return (values * DAY).astype(np.int64)


def _disputes_wanted(streams: Streams, charges: Charges, category: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the charges that somebody disputes, when, and why (before refunds and the end of the history are heard)."""
    generator = streams.stream("disputes")
    count = len(charges.status)
    is_paid, is_fraud = charges.status == SUCCEEDED, charges.kind != ORDINARY
    rates = np.array([entry.dispute_rate for entry in CATEGORIES])[category]
    chance = generator.random(count)
    labelled = is_paid & is_fraud & (chance < _LABELLED_SHARE)
    friendly = is_paid & ~is_fraud & (chance < _FRIENDLY_FRAUD_RATE)
    unhappy = is_paid & ~is_fraud & (chance > 1 - rates)
    charge = np.flatnonzero(labelled | friendly | unhappy)
    other = 1 + pick(generator, np.array([0.42, 0.24, 0.08, 0.16, 0.10]), len(charge))
    reason = np.where(unhappy[charge], other, FRAUDULENT)
    slow = np.clip(np.exp(generator.normal(np.log(24), 0.6, len(charge))), 3, 110)
    delay = np.where(unhappy[charge], slow, generator.uniform(5, 45, len(charge)))
    return charge, charges.created[charge] + _days(delay), reason


def _refunds_wanted(streams: Streams, charges: Charges, amount: Ints, category: Ints, end: int) -> Refunds:
    """Return the refunds that merchants make, the first and second of a charge (before the end of the history is heard)."""
    generator = streams.stream("refunds")
    rates = np.array([entry.refund_rate for entry in CATEGORIES])[category]
    charge = np.flatnonzero((charges.status == SUCCEEDED) & (generator.random(len(category)) < rates))
    count = len(charge)
    reason = pick(generator, np.array([0.90, 0.08, 0.02]), count)
    full = amount[charge]
    is_partial = (generator.random(count) < 0.38) & (reason == 0) & (full > 1)
    part = np.clip((generator.uniform(0.1, 0.8, count) * full).astype(np.int64), 1, np.maximum(full - 1, 1))
    first = np.where(is_partial, part, full)
    created = charges.created[charge] + _days(np.clip(np.exp(generator.normal(np.log(6), 1.0, count)), 0.01, 60))

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
    is_waiting = (refunds.created > end - DAY // 2) & (chance > 0.7)
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


def aftermath(
    streams: Streams, charges: Charges, amount: Ints, money: Ints, category: Ints, end: int
) -> tuple[Refunds, Disputes]:
    """Draw refunds and disputes of these charges (amount, currency and shop category of each) up to the moment `end`.

    A charge is refunded at most in full, disputed at most once, for what was not refunded before, and not refunded after
    it was disputed.
    """
    disputed, disputed_at, reason = _disputes_wanted(streams, charges, category)
    refunds = _refunds_wanted(streams, charges, amount, category, end)
    never = np.iinfo(np.int64).max
    dispute_time = np.full(len(amount), never)
    dispute_time[disputed] = disputed_at
    refunds = _chosen(refunds, (refunds.created < end) & (refunds.created < dispute_time[refunds.charge]))
    refunds = _chosen(refunds, np.lexsort((refunds.charge, refunds.created)))

    refunded = np.zeros(len(amount), np.int64)
    counts = refunds.status != 1
    np.add.at(refunded, refunds.charge[counts], refunds.amount[counts])
    left = (amount - refunded)[disputed]
    happens = (disputed_at < end) & (left > 0)
    order = np.flatnonzero(happens)[np.lexsort((disputed[happens], disputed_at[happens]))]
    return refunds, _closed(
        streams, charges, disputed[order], disputed_at[order], reason[order], left[order], money, end
    )


def _closed(
    streams: Streams, charges: Charges, charge: Ints, created: Ints, reason: Ints, amount: Ints, money: Ints, end: int
) -> Disputes:
    generator = streams.stream("decisions")
    count = len(charge)
    decided = created + _days(generator.uniform(14, 75, count))
    is_closed = decided < end
    is_fraud = charges.kind[charge] != ORDINARY
    win_rate = np.where(is_fraud, 0.12, np.where(reason == FRAUDULENT, 0.55, 0.38))
    ending = np.where(generator.random(count) < win_rate, WON, LOST)
    answered = created + _days(generator.uniform(1, 7, count))
    status = np.where(is_closed, ending, np.where(answered < end, 1, 0))
    updated = np.where(is_closed, decided, np.where(answered < end, answered, created))
    fees = np.array([entry.dispute_fee for entry in MONIES])[money[charge]]
    return Disputes(charge, amount, fees, status, reason, created, updated, np.where(is_closed, decided, -1))


def anomaly_scores(streams: Streams, charges: Charges) -> Ints:
    """Return the score that the rules gave at the moment of payment, in ten-thousandths; it separates fraud only weakly."""
    generator = streams.stream("scores")
    count = len(charges.kind)
    ordinary, fraud = generator.beta(1.5, 7.0, count), generator.beta(2.1, 5.5, count)
    return np.rint(np.where(charges.kind == ORDINARY, ordinary, fraud) * 10_000).astype(np.int64)


def fees_of(amount: Ints, basis_points: Ints, fixed: Ints) -> Ints:
    """Return the fee of each charge: the share rounded half-even, plus the fixed part, at most the amount."""
    product = amount * basis_points
    share, rest = product // 10_000, product % 10_000
    rounded = share + ((rest > 5_000) | ((rest == 5_000) & (share % 2 == 1)))
    return np.minimum(rounded + fixed, amount)


def settlement_moment(created: Ints) -> Ints:
    """Return when a charge of this moment is settled: at four in the morning (UTC) two days after its day."""
    return created // DAY * DAY + 2 * DAY + 4 * 3600 * SECOND

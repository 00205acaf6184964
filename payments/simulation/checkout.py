"""What stands around payments: hosted payment pages, stored payment methods, reviews, and warnings of card issuers."""

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

from payments.simulation.aftermath import FRAUDULENT, REFUND_REASONS, Disputes
from payments.simulation.arrays import Flags, Ints, pick
from payments.simulation.invoices import Payments
from payments.simulation.plan import DAY, HOUR, SECOND, Plan
from payments.simulation.purchases import FAILED, ORDINARY, Charges
from payments.simulation.streams import Streams
from payments.simulation.subscriptions import Cycles
from payments.simulation.world import AUTHORIZATION_EXPIRED, AUTHORIZATION_VOIDED, TERMINAL

SESSION_MODES = ("payment", "setup", "subscription")
_PAYMENT, _SETUP, _SUBSCRIPTION = range(len(SESSION_MODES))
SESSION_STATUSES = ("open", "complete", "expired")
_OPEN, _COMPLETE, _EXPIRED = range(len(SESSION_STATUSES))
SETUP_STATUSES = ("succeeded", "requires_payment_method", "requires_action", "canceled")
OPENED_REASONS = ("rule", "manual")
CLOSED_REASONS = ("approved", "refunded", "refunded_as_fraud")
FRAUD_TYPES = ("made_with_stolen_card", "unauthorized_use_of_card", "made_with_lost_card", "misc")
EXPIRES_AFTER = DAY
_SESSION_SHARE, _SETUP_SHARE, _FAILED_SETUPS = 0.10, 0.08, 0.2
_WARNED_SHARE, _EARLY_SHARE = 0.55, 0.10


@dataclass(frozen=True)
class Sessions:
    """One row a visit to the hosted page, in order of time; intent -1 where nothing is paid, then the amount is 0."""

    customer: Ints
    intent: Ints
    mode: Ints
    status: Ints
    amount: Ints
    money: Ints
    created: Ints
    updated: Ints


@dataclass(frozen=True)
class SetupIntents:
    """One row an attempt to store a payment method, in order of time; method -1 where it failed."""

    customer: Ints
    method: Ints
    status: Ints
    created: Ints
    updated: Ints


@dataclass(frozen=True)
class Reviews:
    """One row a manual review of a charge, in order of time; -1 for no closing reason and no moment."""

    charge: Ints
    opened: Ints
    reason: Ints
    created: Ints
    closed: Ints


@dataclass(frozen=True)
class Warnings:
    """One row an early fraud warning about a charge, in order of time."""

    charge: Ints
    type: Ints
    is_actionable: Flags
    created: Ints


Rows = TypeVar("Rows", Sessions, SetupIntents, Reviews, Warnings)


def checkout_sessions(
    streams: Streams, plan: Plan, payments: Payments, cycles: Cycles, setups: SetupIntents
) -> Sessions:
    """Draw the visits that led to a part of the intents, and to a part of the stored payment methods."""
    generator, intents, charges = streams.stream("checkout"), payments.intents, payments.charges
    succeeded = np.full(len(intents.created), -1, np.int64)
    # The last attempt decides; one that was authorized counts, whatever became of it.
    is_success = (charges.status != FAILED) | (payments.sales.captured >= 0) | _was_authorized(charges)
    succeeded[charges.intent[is_success]] = charges.created[is_success]
    at_terminal = np.zeros(len(intents.created), bool)
    at_terminal[charges.intent[charges.device_type == TERMINAL]] = True
    is_cycle, is_first = np.zeros(len(intents.created), bool), np.zeros(len(intents.created), bool)
    is_cycle[cycles.intent] = True
    is_first[cycles.intent[cycles.number == 0]] = True
    rows = np.flatnonzero(~at_terminal & (~is_cycle | is_first) & (generator.random(len(is_cycle)) < _SESSION_SHARE))

    setup = np.flatnonzero((setups.method >= 0) & (generator.random(len(setups.method)) < 0.4))
    customer = np.concatenate([intents.customer[rows], setups.customer[setup]])
    ready = np.concatenate([intents.created[rows], setups.created[setup]])
    seconds = generator.integers(40, 700, len(ready)) * SECOND
    created = np.minimum(np.maximum(ready - seconds, payments.customer_created[customer]), ready)
    finished = np.concatenate([succeeded[rows], setups.updated[setup]])
    is_done = (finished >= 0) & (finished < created + EXPIRES_AFTER)
    status = np.where(is_done, _COMPLETE, np.where(created + EXPIRES_AFTER < plan.end_moment, _EXPIRED, _OPEN))
    nothing = np.zeros(len(setup), np.int64)
    return _in_time(
        Sessions(
            customer=customer,
            intent=np.concatenate([rows, nothing - 1]),
            mode=np.concatenate([np.where(is_first[rows], _SUBSCRIPTION, _PAYMENT), nothing + _SETUP]),
            status=status,
            amount=np.concatenate([intents.amount[rows], nothing]),
            money=np.concatenate([intents.money[rows], payments.population.customers.money[setups.customer[setup]]]),
            created=created,
            updated=np.where(is_done, finished, np.where(status == _EXPIRED, created + EXPIRES_AFTER, created)),
        )
    )


def _was_authorized(charges: Charges) -> Flags:
    return np.isin(charges.failure, [AUTHORIZATION_EXPIRED, AUTHORIZATION_VOIDED])


def setup_intents(streams: Streams, plan: Plan, payments: Payments, method_created: Ints) -> SetupIntents:
    """Draw how a part of the payment methods was stored, and attempts that came to nothing."""
    generator, methods = streams.stream("setup intents"), payments.population.methods
    stored = np.flatnonzero(
        (method_created >= plan.start_moment) & (generator.random(len(method_created)) < _SETUP_SHARE)
    )
    count = len(stored)
    failing = round(count * _FAILED_SETUPS)
    known = np.flatnonzero(payments.customer_created <= plan.start_moment)
    customer = known[generator.integers(0, max(1, len(known)), failing if len(known) else 0)]
    created = plan.start_moment + (generator.random(len(customer)) * (plan.days * DAY - HOUR)).astype(np.int64)
    status = 1 + pick(generator, np.array([0.5, 0.2, 0.3]), len(customer))
    return _in_time(
        SetupIntents(
            customer=np.concatenate([methods.customer[stored], customer]),
            method=np.concatenate([stored, np.full(len(customer), -1)]),
            status=np.concatenate([np.zeros(count, np.int64), status]),
            created=np.concatenate([method_created[stored], created]),
            updated=np.concatenate([method_created[stored] + SECOND, created + HOUR // 2]),
        )
    )


def reviews(streams: Streams, plan: Plan, payments: Payments, score: Ints) -> Reviews:
    """Draw which charges a person looked at, because a rule asked for it, and what came of it."""
    generator, charges, refunds = streams.stream("reviews"), payments.charges, payments.refunds
    count = len(charges.created)
    is_odd = (score > np.quantile(score, 0.995)) & (generator.random(count) < 0.5)
    is_odd |= (charges.kind != ORDINARY) & (generator.random(count) < 0.08)
    charge = np.flatnonzero(is_odd & (charges.status != FAILED))
    by_hand = generator.random(len(charge)) < 0.06
    created = charges.created[charge] + generator.integers(1, 30, len(charge)) * np.where(by_hand, HOUR // 10, SECOND)
    closed = created + (generator.uniform(0.2, 40, len(charge)) * HOUR).astype(np.int64)
    refunded_at = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(refunded_at, refunds.charge, refunds.created)
    as_fraud = np.zeros(count, bool)
    as_fraud[refunds.charge[refunds.reason == REFUND_REASONS.index("fraudulent")]] = True
    is_refund = refunded_at[charge] < closed
    closed = np.where(is_refund, np.maximum(refunded_at[charge], created), closed)
    is_closed = closed < plan.end_moment
    reason = np.where(is_refund, np.where(as_fraud[charge], 2, 1), 0)
    happened = created < plan.end_moment
    return _in_time(
        Reviews(
            charge=charge[happened],
            opened=by_hand.astype(np.int64)[happened],
            reason=np.where(is_closed, reason, -1)[happened],
            created=created[happened],
            closed=np.where(is_closed, closed, -1)[happened],
        )
    )


def early_warnings(streams: Streams, plan: Plan, payments: Payments, disputes: Disputes, refunded: Ints) -> Warnings:
    """Draw what issuers told early about a part of the frauds: days before the dispute, or where none ever comes."""
    generator, sales = streams.stream("early warnings"), payments.sales
    is_fraud = payments.charges.kind != ORDINARY
    labelled = np.flatnonzero(is_fraud[disputes.charge] & (disputes.reason == FRAUDULENT))
    labelled = labelled[generator.random(len(labelled)) < _WARNED_SHARE]
    charge = disputes.charge[labelled]
    way = (disputes.created[labelled] - sales.captured[charge]) * generator.uniform(0.15, 0.85, len(labelled))
    silent = is_fraud & sales.is_paid & (generator.random(len(is_fraud)) < _EARLY_SHARE)
    silent[disputes.charge] = False
    other = np.flatnonzero(silent)
    other_created = sales.captured[other] + (generator.uniform(2, 20, len(other)) * DAY).astype(np.int64)
    other, other_created = other[other_created < plan.end_moment], other_created[other_created < plan.end_moment]
    charge = np.concatenate([charge, other])
    return _in_time(
        Warnings(
            charge=charge,
            type=pick(generator, np.array([0.45, 0.35, 0.1, 0.1]), len(charge)),
            is_actionable=refunded[charge] < sales.captured_amount[charge],
            created=np.concatenate([sales.captured[disputes.charge[labelled]] + way.astype(np.int64), other_created]),
        )
    )


def _in_time(rows: Rows) -> Rows:
    order = np.argsort(rows.created, kind="stable")
    return type(rows)(**{field.name: getattr(rows, field.name)[order] for field in fields(rows)})

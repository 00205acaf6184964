"""Payments that hotels and car rentals authorize first and capture days later: in whole or part, or not at all.

An authorization holds its amount for seven days. What is neither captured nor voided by then expires, and what is open
when the history ends is still held.
"""

from dataclasses import dataclass, replace

import numpy as np

from payments.simulation.arrays import Flags, Ints, pick
from payments.simulation.plan import DAY, SECOND, Plan
from payments.simulation.population import BANK_DEBIT, Population
from payments.simulation.postings import HOLD_STATUSES, Holds
from payments.simulation.purchases import FAILED, PENDING, SUCCEEDED, Charges, Intents
from payments.simulation.streams import Streams
from payments.simulation.world import AUTHORIZATION_EXPIRED, AUTHORIZATION_VOIDED, CATEGORIES

HELD, POSTED, VOIDED, EXPIRED = range(len(HOLD_STATUSES))
HELD_FOR = 7 * DAY
_MANUAL_SHARE = 0.85
_PARTIAL_SHARE = 0.25


@dataclass(frozen=True)
class Authorized:
    """The charges as they ended, which intents are captured by hand, and the authorizations.

    `captured` (-1 unless it was captured) and `captured_amount` run beside the charges.
    """

    charges: Charges
    is_manual: Flags
    captured: Ints
    captured_amount: Ints
    holds: Holds


def authorize(streams: Streams, plan: Plan, population: Population, intents: Intents, charges: Charges) -> Authorized:
    """Let the successful charges of merchants who capture by hand be authorizations, and draw what became of each."""
    generator = streams.stream("authorizations")
    merchant = population.customers.merchant[intents.customer]
    is_debit = population.instruments.kind[population.methods.instrument] == BANK_DEBIT
    is_manual = np.array([entry.captures_later for entry in CATEGORIES])[population.merchants.category[merchant]]
    is_manual &= generator.random(len(is_manual)) < _MANUAL_SHARE
    # A bank account cannot be charged later than it was asked.
    is_manual[charges.intent[is_debit[charges.method]]] = False

    rows = np.flatnonzero(is_manual[charges.intent] & (charges.status == SUCCEEDED))
    count = len(rows)
    created, amount = charges.created[rows], intents.amount[charges.intent[rows]]
    ending = 1 + pick(generator, np.array([0.90, 0.06, 0.04]), count)
    days = np.where(ending == POSTED, generator.uniform(0.3, 6.5, count), generator.uniform(0.1, 5, count))
    swept = created + HELD_FOR + generator.integers(SECOND, 600 * SECOND, count)
    resolved = np.where(ending == EXPIRED, swept, created + (days * DAY).astype(np.int64))
    status = np.where(resolved < plan.end_moment, ending, HELD)
    resolved = np.where(status == HELD, -1, resolved)
    part = np.maximum((amount * generator.uniform(0.5, 1, count)).astype(np.int64), 1)
    posted = np.where(generator.random(count) < _PARTIAL_SHARE, part, amount)
    posted = np.where(status == POSTED, posted, 0)

    charge_status, failure = charges.status.copy(), charges.failure.copy()
    charge_status[rows] = np.array([PENDING, SUCCEEDED, FAILED, FAILED])[status]
    failure[rows] = np.array([-1, -1, AUTHORIZATION_VOIDED, AUTHORIZATION_EXPIRED])[status]
    is_paid = charge_status == SUCCEEDED
    captured = np.where(is_paid, charges.created, -1)
    captured[rows] = np.where(status == POSTED, resolved, -1)
    captured_amount = np.where(is_paid, intents.amount[charges.intent], 0)
    captured_amount[rows] = posted
    return Authorized(
        charges=replace(charges, status=charge_status, failure=failure),
        is_manual=is_manual,
        captured=captured,
        captured_amount=captured_amount,
        holds=Holds(
            merchant=merchant[charges.intent[rows]],
            money=intents.money[charges.intent[rows]],
            charge=rows,
            amount=amount,
            posted=posted,
            status=status,
            created=created,
            resolved=resolved,
        ),
    )

"""Events sent to merchants: most arrive at once, some after a few attempts, a few never, and an endpoint may be down.

An attempt that the history does not reach any more has not been made: such a delivery is still pending.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from payments.simulation.arrays import Flags, Ints, offsets
from payments.simulation.business import Business
from payments.simulation.collection import Collection, Document, collection, held, milliseconds
from payments.simulation.ids import IdSpace
from payments.simulation.names import Names
from payments.simulation.plan import DAY, SECOND, Plan
from payments.simulation.streams import Streams

EVENT_TYPES = ("charge.succeeded", "charge.refunded", "charge.dispute.created", "payout.paid", "invoice.paid")
_SHARES = (0.04, 0.20, 1.0, 0.15, 0.10)
MOST_ATTEMPTS = 20
# The pause doubles from half a minute to four hours; the last attempt comes two days after the first.
_PAUSES = np.minimum(30 * 2 ** np.arange(MOST_ATTEMPTS - 1), 4 * 3600) * SECOND
_SCHEDULE: Ints = offsets(_PAUSES)
_RETRIED, _GIVEN_UP = 0.05, 0.004
_FAILURES = (500, 503, None, 429)
_NEVER = MOST_ATTEMPTS + 1
# Events of the outbox have ids of the same kind as clicks: they are counted from another number on.
_FIRST_EVENT = 1 << 30


@dataclass(frozen=True)
class _Deliveries:
    """One row an event to deliver, in order of time; `succeeds` is the number of the attempt that arrives."""

    merchant: Ints
    event_type: Ints
    created: Ints
    succeeds: Ints


class Deliveries:
    """The webhook deliveries of a history."""

    def __init__(self, names: Names) -> None:
        plan = names.business.plan
        self._end = plan.end_moment
        self._deliveries = _draw_deliveries(names.streams, names.business)
        self._ids, self._event_ids = IdSpace(plan.seed, "whd"), IdSpace(plan.seed, "evt")
        self._merchant_ids: list[Any] = names.merchant_ids.to_pylist()
        merchants = np.arange(len(self._merchant_ids))
        self._endpoint_ids = IdSpace(plan.seed, "we").strings(merchants)

    def collections(self) -> list[Collection]:
        """Return the deliveries."""
        return [collection("webhook_deliveries", self._ids, len(self._deliveries.created), self._documents)]

    def _documents(self, rows: slice, ids: Sequence[str]) -> list[Document | None]:
        always = held()
        created, succeeds = self._deliveries.created[rows], self._deliveries.succeeds[rows]
        place = np.arange(rows.start, rows.stop)
        possible = np.searchsorted(_SCHEDULE, self._end - created, side="left")  # attempts that begin before the end
        made = np.minimum(possible, np.minimum(succeeds, MOST_ATTEMPTS))
        waits = created + _SCHEDULE[np.minimum(made, MOST_ATTEMPTS - 1)]
        documents: list[Document | None] = []
        for delivery_id, event_id, merchant, kind, count, wanted, moment, since, following, luck in zip(
            ids,
            self._event_ids.strings(_FIRST_EVENT + place),
            self._deliveries.merchant[rows].tolist(),
            self._deliveries.event_type[rows].tolist(),
            made.tolist(),
            succeeds.tolist(),
            milliseconds(created),
            created.tolist(),
            milliseconds(waits),
            (self._ids.draws(place) % np.uint64(1 << 40)).astype(np.int64).tolist(),
            strict=True,
        ):
            is_delivered = wanted <= count
            state = "delivered" if is_delivered else "failed" if count == MOST_ATTEMPTS else "pending"
            documents.append(
                {
                    "_id": delivery_id,
                    "merchant_id": self._merchant_ids[merchant],
                    "event_id": event_id,
                    "event_type": EVENT_TYPES[kind],
                    "endpoint": self._endpoint_ids[merchant],
                    "state": state,
                    "attempts": _attempts(since, count, is_delivered, luck),
                    "attempt_count": count,
                    "created_at": moment,
                    "next_attempt_at": following if state == "pending" else None,
                    **always,
                }
            )
        return documents


def _attempts(created: int, count: int, is_delivered: bool, luck: int) -> list[Document]:
    """Return the attempts made; a status code of null stands for no answer within the limit."""
    failing = _FAILURES[luck % len(_FAILURES)]
    attempts = []
    for number, moment in enumerate(milliseconds(created + _SCHEDULE[:count]), start=1):
        has_arrived = is_delivered and number == count
        code = 200 if has_arrived else failing
        latency = 30_000 if code is None else 40 + (luck >> number) % 900
        attempts.append({"attempted_at": moment, "status_code": code, "latency_ms": latency})
    return attempts


def _draw_deliveries(streams: Streams, business: Business) -> _Deliveries:
    """Draw which events are told to merchants, and which attempt reaches them."""
    generator = streams.stream("deliveries")
    plan, sales, payouts, invoices = business.plan, business.sales, business.treasury.payouts, business.billing.invoices
    of_invoice = business.population.customers.merchant[invoices.customer]
    merchants, moments, kinds = [], [], []
    for kind, (merchant, moment) in enumerate(
        (
            (sales.merchant, np.where(sales.is_paid, sales.captured, -1)),
            (sales.merchant[business.refunds.charge], business.refunds.created),
            (sales.merchant[business.disputes.charge], business.disputes.created),
            (payouts.merchant, payouts.paid),
            (of_invoice, np.where(invoices.intent >= 0, invoices.paid_at, -1)),
        )
    ):
        chosen = np.flatnonzero((moment >= 0) & (generator.random(len(moment)) < _SHARES[kind]))
        merchants.append(merchant[chosen])
        moments.append(moment[chosen] + generator.integers(0, 3 * SECOND, len(chosen)))
        kinds.append(np.full(len(chosen), kind))
    merchant, created, kind_of = np.concatenate(merchants), np.concatenate(moments), np.concatenate(kinds)
    known = np.flatnonzero((created >= plan.start_moment) & (created < plan.end_moment))
    order = known[np.argsort(created[known], kind="stable")]
    merchant, created, kind_of = merchant[order], created[order], kind_of[order]

    count = len(order)
    chance = generator.random(count)
    succeeds = np.where(chance < _RETRIED, 2 + generator.integers(0, 6, count), 1)
    succeeds = np.where(chance < _GIVEN_UP, _NEVER, succeeds)
    for is_down, until in _outages(generator, plan, merchant, created):
        # The first attempt after the outage arrives.
        after = 1 + np.searchsorted(_SCHEDULE, until - created[is_down], side="left")
        succeeds[is_down] = np.maximum(succeeds[is_down], np.minimum(after, _NEVER))
    return _Deliveries(merchant, kind_of, created, succeeds)


def _outages(generator: np.random.Generator, plan: Plan, merchant: Ints, created: Ints) -> list[tuple[Flags, int]]:
    """Draw one or two endpoints that are down for a day: which deliveries began then, and when it ended."""
    found = []
    for _ in range(1 + (plan.transactions >= 10_000)):
        if not len(created):
            break
        # A busy endpoint, so that the outage is felt: that of an event that happened then.
        hit = generator.integers(0, len(created))
        begins = created[hit] - generator.integers(0, DAY // 2)
        found.append(((merchant == merchant[hit]) & (created >= begins) & (created < begins + DAY), int(begins + DAY)))
    return found

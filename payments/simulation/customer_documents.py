"""What other systems keep ready of each customer: profiles, features over time, and what to offer.

A profile says what the rows of the operational store say at the end of the history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from payments.simulation.arrays import Flags, Ints, expand, offsets
from payments.simulation.business import Business
from payments.simulation.collection import Collection, Document, held, milliseconds, written
from payments.simulation.columns import CURRENCIES, rank_in_time
from payments.simulation.feedback import CUSTOMER_VERSION
from payments.simulation.ids import IdSpace
from payments.simulation.names import Names
from payments.simulation.plan import DAY, HOUR, SECOND
from payments.simulation.purchases import CHARGE_STATUSES, FAILED, SUCCEEDED
from payments.simulation.streams import Streams
from payments.simulation.tables import COUNTRY_CODES
from payments.simulation.visits import PRODUCTS

_RECENT = 10
_FEATURE_SET, _FEATURE_SET_VERSION = "customer_activity", 1
_WEEK = 7 * DAY
# Weekly rows are known two hours after their moment; payments of the last hours may come in too late for them.
_KNOWN_AFTER, _LATE, _CORRECTED_AFTER = 2 * HOUR, 18 * HOUR, 2 * DAY
_SLOTS = ("checkout", "home", "mail")  # in the order of the ids
_REASONS = ("bought_together", "viewed", "popular")
_RECOMMENDER = "basket-3"


@dataclass(frozen=True)
class _Activity:
    """The charges in the order of the customers' ids and of time, and running totals over them (one entry more)."""

    order: Ints
    starts: Ints
    customers: Ints
    axis: Ints
    span: int
    first: int
    paid: Ints
    spent: Ints
    declined: Ints

    def until(self, rank: Ints, moment: Ints) -> Ints:
        """Return how many entries lie before a moment, or at it, in those of all customers up to this one."""
        found = np.searchsorted(self.axis, rank * self.span + np.clip(moment - self.first, -1, self.span - 2), "right")
        return np.clip(found, self.starts[rank], self.starts[rank + 1])


@dataclass(frozen=True)
class _FeatureRows:
    """One row a customer (by rank of its id), moment and moment of knowledge; `cutoff` is where it stops knowing."""

    rank: Ints
    as_of: Ints
    available: Ints
    cutoff: Ints


class CustomerDocuments:
    """Profiles, features and recommendations of the customers of a history."""

    def __init__(self, names: Names, viewed: Ints) -> None:
        self._names, self._business, self._viewed = names, names.business, viewed
        self._activity = _activity(names.business)
        paid = np.diff(self._activity.paid[self._activity.starts])
        self._payers = np.flatnonzero(paid > 0)  # by rank
        self._features = _draw_features(names.streams, names.business, self._activity, self._payers)
        self._offered, self._slot = _draw_offers(names.streams, names.business, self._payers)
        self._draws = IdSpace(names.business.plan.seed, "offer")
        self._merchant_ids: list[Any] = names.merchant_ids.to_pylist()
        self._customer_ids: list[Any] = names.customer_ids.to_pylist()

    def collections(self) -> list[Collection]:
        """Return profiles, features and recommendations."""
        return [
            Collection("customer_profiles", len(self._payers), self._profile_ids, self._profiles),
            Collection("ml_features", len(self._features.rank), self._feature_ids, self._feature_documents),
            Collection("recommendations", len(self._offered), self._offer_ids, self._offers),
        ]

    def _customer_id(self, rank: int) -> str:
        customer_id: str = self._customer_ids[self._activity.customers[rank]]
        return customer_id

    def _merchant_id(self, rank: int) -> str:
        customer = self._activity.customers[rank]
        merchant_id: str = self._merchant_ids[self._business.population.customers.merchant[customer]]
        return merchant_id

    def _profile_ids(self, start: int, stop: int) -> list[str]:
        return [self._customer_id(rank) for rank in self._payers[start:stop].tolist()]

    def _profiles(self, rows: slice, ids: Sequence[str]) -> list[Document | None]:
        always = written()
        business, activity, end = self._business, self._activity, self._business.plan.end_moment
        population = business.population
        ranks = self._payers[rows]
        lengths = activity.starts[ranks + 1] - activity.starts[ranks]
        owner, place = expand(lengths)
        charge = activity.order[activity.starts[ranks][owner] + place]
        bounds = offsets(lengths).tolist()
        facts = list(
            zip(
                self._names.spaces["ch"].strings(charge),
                business.sales.amount[charge].tolist(),
                business.sales.captured_amount[charge].tolist(),
                [CURRENCIES[money] for money in business.sales.money[charge].tolist()],
                [CHARGE_STATUSES[status] for status in business.charges.status[charge].tolist()],
                milliseconds(business.charges.created[charge]),
                business.charges.created[charge].tolist(),
                milliseconds(business.charge_updated[charge]),
                strict=True,
            )
        )
        documents: list[Document | None] = []
        for row, (customer_id, rank) in enumerate(zip(ids, ranks.tolist(), strict=True)):
            own = facts[bounds[row] : bounds[row + 1]]
            paid = [fact for fact in own if fact[4] == CHARGE_STATUSES[SUCCEEDED]]
            spent: dict[str, list[int]] = {}
            for fact in paid:
                spent.setdefault(fact[3], []).append(fact[2])
            subject = population.customers.subject[activity.customers[rank]]
            documents.append(
                {
                    "_id": customer_id,
                    "merchant_id": self._merchant_id(rank),
                    "version": CUSTOMER_VERSION,
                    "country": COUNTRY_CODES[population.subjects.country[subject]],
                    "segment": _segment(len(paid), end - paid[0][6], end - paid[-1][6]),
                    "payment_count": len(paid),
                    "first_paid_at": paid[0][5],
                    "last_paid_at": paid[-1][5],
                    "spent": [
                        {"currency": currency, "amount_minor": sum(amounts), "payment_count": len(amounts)}
                        for currency, amounts in sorted(spent.items())
                    ],
                    "recent_charges": [
                        {
                            "charge_id": charge_id,
                            "amount_minor": amount,
                            "currency": currency,
                            "status": status,
                            "created_at": created,
                        }
                        for charge_id, amount, _, currency, status, created, _, _ in reversed(own[-_RECENT:])
                    ],
                    "updated_at": max(fact[7] for fact in own),
                    **always,
                }
            )
        return documents

    def _feature_ids(self, start: int, stop: int) -> list[str]:
        rows = slice(start, stop)
        seconds = (self._features.available[rows] // SECOND).tolist()
        return [
            f"customer:{self._customer_id(rank)}:{_FEATURE_SET}:{_FEATURE_SET_VERSION}:{second}"
            for rank, second in zip(self._features.rank[rows].tolist(), seconds, strict=True)
        ]

    def _feature_documents(self, rows: slice, ids: Sequence[str]) -> list[Document | None]:
        always = held()
        activity, features = self._activity, self._features
        rank, as_of, cutoff = features.rank[rows], features.as_of[rows], features.cutoff[rows]
        until = activity.until(rank, cutoff)
        week, month = activity.until(rank, as_of - _WEEK), activity.until(rank, as_of - 30 * DAY)
        values = zip(
            (activity.paid[until] - activity.paid[week]).tolist(),
            (activity.paid[until] - activity.paid[month]).tolist(),
            (activity.spent[until] - activity.spent[month]).tolist(),
            (activity.declined[until] - activity.declined[month]).tolist(),
            strict=True,
        )
        return [
            {
                "_id": row_id,
                "merchant_id": self._merchant_id(one),
                "entity_type": "customer",
                "entity_id": self._customer_id(one),
                "feature_set": _FEATURE_SET,
                "feature_set_version": _FEATURE_SET_VERSION,
                "as_of": moment,
                "available_at": available,
                "feature_values": {
                    "payments_7d": in_week,
                    "payments_30d": in_month,
                    "spent_minor_30d": spent,
                    "declines_30d": declines,
                },
                **always,
            }
            for row_id, one, moment, available, (in_week, in_month, spent, declines) in zip(
                ids, rank.tolist(), milliseconds(as_of), milliseconds(features.available[rows]), values, strict=True
            )
        ]

    def _offer_ids(self, start: int, stop: int) -> list[str]:
        slots = self._slot[start:stop].tolist()
        ranks = self._offered[start:stop].tolist()
        return [f"{self._customer_id(rank)}:{_SLOTS[slot]}" for rank, slot in zip(ranks, slots, strict=True)]

    def _offers(self, rows: slice, ids: Sequence[str]) -> list[Document | None]:
        always = held()
        numbers = self._draws.draws(np.arange(rows.start, rows.stop)).tolist()
        documents: list[Document | None] = []
        for offer_id, rank, slot, number in zip(
            ids, self._offered[rows].tolist(), self._slot[rows].tolist(), numbers, strict=True
        ):
            computed = self._business.plan.end_moment - number % (3 * DAY // SECOND) * SECOND - HOUR
            documents.append(
                {
                    "_id": offer_id,
                    "merchant_id": self._merchant_id(rank),
                    "customer_id": self._customer_id(rank),
                    "customer_version": CUSTOMER_VERSION,
                    "version": 1 + number % 30,
                    "slot": _SLOTS[slot],
                    "items": _items(number, int(self._viewed[self._activity.customers[rank]])),
                    "model_version": _RECOMMENDER,
                    "computed_at": milliseconds(np.array([computed]))[0],
                    **always,
                }
            )
        return documents


def _items(number: int, viewed: int) -> list[Document]:
    """Return products in order of their score: first the one that the customer looked at (-1 for none)."""
    seen = [viewed] if viewed >= 0 else []
    others = [number >> 5 * place for place in range(3 + number % 4)]
    products = dict.fromkeys(seen + [other % PRODUCTS for other in others])
    top = 60 + number % 39
    return [
        {
            "product": f"prod-{product:04d}",
            "score": (top - 7 * place) / 100,
            "reason": _REASONS[1] if product == viewed else _REASONS[0 if place % 2 else 2],
        }
        for place, product in enumerate(products)
    ]


def _segment(payments: int, since_first: int, since_last: int) -> str:
    """Return what kind of customer this is, from the payments that succeeded and the time since first and last."""
    if since_last > 90 * DAY:
        return "lapsed"
    if since_last > 45 * DAY:
        return "at_risk"
    if since_first < 30 * DAY and payments < 3:
        return "new"
    return "loyal" if payments >= 5 else "active"


def _activity(business: Business) -> _Activity:
    charges, rank = business.charges, rank_in_time(business.customer_created)
    of_charge = rank[business.charge_customer]
    order = np.argsort(of_charge, kind="stable")  # charges are in order of time already
    customers = np.empty_like(rank)
    customers[rank] = np.arange(len(rank))
    first, span = int(charges.created.min()), int(charges.created.max() - charges.created.min()) + 3
    is_paid: Flags = charges.status[order] == SUCCEEDED
    return _Activity(
        order=order,
        starts=offsets(np.bincount(of_charge, minlength=len(rank))),
        customers=customers,
        axis=of_charge[order] * span + charges.created[order] - first,
        span=span,
        first=first,
        paid=offsets(is_paid.astype(np.int64)),
        spent=offsets(np.where(is_paid, business.sales.captured_amount[order], 0)),
        declined=offsets((charges.status[order] == FAILED).astype(np.int64)),
    )


def _draw_features(streams: Streams, business: Business, activity: _Activity, payers: Ints) -> _FeatureRows:
    """Draw the customers whose features are kept, a row for each of their weeks, and the rows that were corrected."""
    generator, plan = streams.stream("features"), business.plan
    wanted = min(len(payers), 20 + plan.transactions // 300)
    sample = np.sort(generator.permutation(payers)[:wanted])
    weeks = plan.days * DAY // _WEEK
    rank, as_of = np.repeat(sample, weeks), np.tile(plan.start_moment + _WEEK * np.arange(1, weeks + 1), wanted)
    kept = (business.customer_created[activity.customers[rank]] <= as_of) & (as_of + _KNOWN_AFTER < plan.end_moment)
    rank, as_of = rank[kept], as_of[kept]
    # Only what came in late makes a correction: it says then what the first row should have said.
    has_late = activity.until(rank, as_of) > activity.until(rank, as_of - _LATE)
    is_corrected = has_late & (as_of + _CORRECTED_AFTER < plan.end_moment) & (generator.random(len(rank)) < 0.7)
    rows = _FeatureRows(
        rank=np.concatenate([rank, rank[is_corrected]]),
        as_of=np.concatenate([as_of, as_of[is_corrected]]),
        available=np.concatenate([as_of + _KNOWN_AFTER, as_of[is_corrected] + _CORRECTED_AFTER]),
        cutoff=np.concatenate([np.where(is_corrected, as_of - _LATE, as_of), as_of[is_corrected]]),
    )
    order = np.lexsort((rows.available, rows.rank))
    return _FeatureRows(rows.rank[order], rows.as_of[order], rows.available[order], rows.cutoff[order])


def _draw_offers(streams: Streams, business: Business, payers: Ints) -> tuple[Ints, Ints]:
    """Draw the customers for whom something is recommended, by rank, and in which places of the shop."""
    generator = streams.stream("recommendations")
    wanted = min(len(payers), 15 + business.plan.transactions // 100)
    sample = np.sort(generator.permutation(payers)[:wanted])
    customer, slot = np.repeat(sample, len(_SLOTS)), np.tile(np.arange(len(_SLOTS)), wanted)
    kept = generator.random(len(slot)) < 0.6
    return customer[kept], slot[kept]

"""Visits to the shops: sessions, what visitors click, and the rest of the few sessions too long for one document.

Sessions that began in the second half of the history are written in schema version 2: they hold pointers to their first
events. A session never has both: an event is made from its place, so that pointers and events always agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from payments.simulation.arrays import Ints, expand, offsets, pick
from payments.simulation.business import Business
from payments.simulation.collection import Collection, Document, collection, held, milliseconds, named
from payments.simulation.columns import CURRENCIES
from payments.simulation.ids import IdSpace
from payments.simulation.names import Names
from payments.simulation.plan import DAY, HOUR, SECOND, Plan
from payments.simulation.population import CITY_COUNTRY, INSTRUMENT_TYPES
from payments.simulation.streams import Streams
from payments.simulation.tables import COUNTRY_CODES
from payments.simulation.world import DEVICE_TYPES, TERMINAL

EVENT_TYPES = ("page_view", "product_view", "add_to_cart", "checkout_started", "payment_submitted")
_PAGE_VIEW, _PRODUCT_VIEW = EVENT_TYPES.index("page_view"), EVENT_TYPES.index("product_view")
EVENTS_A_DOCUMENT = 200
PRODUCTS = 2000
_COUNTS_AS_PAGE = np.array([True, True, False, True, False])
_SOURCES = ("google", "newsletter", "instagram", "partner", "tiktok")
_REFERRERS = ("direct", "search", "social", "mail")
_CONVERTED_SHARE, _BROWSING_SHARE = 0.14, 0.16
_MOST_LONG_VISITS = 40


@dataclass(frozen=True)
class _Sessions:
    """One row a session, in order of time; intent -1 where it led to none, customer -1 while unknown."""

    merchant: Ints
    customer: Ints
    device: Ints
    device_type: Ints
    country: Ints
    started: Ints
    ended: Ints
    intent: Ints
    source: Ints
    depth: Ints


class Visits:
    """The sessions of a history, with all their events."""

    def __init__(self, names: Names) -> None:
        self._names = names
        plan = names.business.plan
        self._sessions = _with_long_visits(names.streams, plan, _draw_sessions(names.streams, names.business))
        self._events = offsets(self._sessions.depth)
        self._is_bucketed = self._sessions.started >= plan.middle_moment
        buckets = -(-self._sessions.depth // EVENTS_A_DOCUMENT) - 1
        self._overflowing, place = expand(np.where(self._is_bucketed, np.maximum(buckets, 0), 0))
        self._bucket = place + 1
        self._ids, self._event_ids = IdSpace(plan.seed, "sess"), IdSpace(plan.seed, "evt")
        self._merchant_ids: list[Any] = names.merchant_ids.to_pylist()
        self._customer_ids: list[Any] = names.customer_ids.to_pylist()

    def collections(self) -> list[Collection]:
        """Return sessions, their overflows and click events."""
        return [
            collection("sessions", self._ids, len(self._sessions.started), self._session_documents),
            Collection("session_overflows", len(self._bucket), self._overflow_ids, self._overflow_documents),
            collection("click_events", self._event_ids, int(self._events[-1]), self._event_documents),
        ]

    def viewed(self, customers: int) -> Ints:
        """Return the product that each customer looked at last, -1 where none is known."""
        found = np.full(customers, -1, np.int64)
        known = np.flatnonzero((self._sessions.customer >= 0) & (self._sessions.depth > _PRODUCT_VIEW))
        found[self._sessions.customer[known]] = self._product(known)
        return found

    def _product(self, session: Ints, step: Ints | int = 1) -> Ints:
        """Return the number of the product of an event: ordinary visitors look at one, the long visits at many."""
        drawn = (self._ids.draws(session) % np.uint64(PRODUCTS)).astype(np.int64)
        products: Ints = np.where(self._is_long(session), (drawn + step * 7919) % PRODUCTS, drawn)
        return products

    def _is_long(self, session: Ints) -> Any:
        return self._sessions.depth[session] > len(EVENT_TYPES)

    def _session_of(self, place: Ints) -> tuple[Ints, Ints, Ints]:
        """Return of each event its session, its step within the session, and its kind, counting in EVENT_TYPES."""
        session = np.searchsorted(self._events, place, side="right") - 1
        step = place - self._events[session]
        looking = np.where(step % 8 == 0, _PAGE_VIEW, _PRODUCT_VIEW)
        return session, step, np.where(self._is_long(session), looking, step)

    def _occurred(self, session: Ints, step: Ints) -> Ints:
        started, depth = self._sessions.started[session], self._sessions.depth[session]
        moments: Ints = started + (self._sessions.ended[session] - started) * step // np.maximum(depth - 1, 1)
        return moments

    def _pointers(self, place: Ints) -> list[Document]:
        """Return what a session keeps of each of these events."""
        session, step, kind = self._session_of(place)
        return [
            {"event_id": event_id, "event_type": EVENT_TYPES[code], "occurred_at": moment}
            for event_id, code, moment in zip(
                self._event_ids.strings(place),
                kind.tolist(),
                milliseconds(self._occurred(session, step)),
                strict=True,
            )
        ]

    def _session_documents(self, rows: slice, ids: Sequence[str]) -> list[Document | None]:
        sessions, first = self._sessions, self._events[rows.start]
        owner, _ = expand(sessions.depth[rows])
        _, _, kind = self._session_of(np.arange(first, first + len(owner)))
        pages = np.bincount(owner, weights=_COUNTS_AS_PAGE[kind], minlength=len(ids))
        intents = self._names.spaces["pi"].strings(np.maximum(sessions.intent[rows], 0))
        plain, bucketed = held(1), held(2)
        kept = np.where(self._is_bucketed[rows], np.minimum(sessions.depth[rows], EVENTS_A_DOCUMENT), 0)
        keeper, place = expand(kept)
        pointers, ends = self._pointers(self._events[rows.start + keeper] + place), offsets(kept).tolist()
        return [
            {
                "_id": session_id,
                "merchant_id": self._merchant_ids[merchant],
                "customer_id": self._customer_ids[customer] if customer >= 0 else None,
                "device_id": device,
                "device_type": DEVICE_TYPES[device_type],
                "ip_country": COUNTRY_CODES[country],
                "started_at": started,
                "ended_at": ended,
                "page_count": page_count,
                "has_converted": intent >= 0,
                "payment_intent_id": intent_id if intent >= 0 else None,
                "utm_source": source,
                **(
                    {
                        "event_count": depth,
                        "has_overflow": depth > EVENTS_A_DOCUMENT,
                        "events": pointers[ends[row] : ends[row + 1]],
                        **bucketed,
                    }
                    if is_bucketed
                    else plain
                ),
            }
            for row, (
                session_id, merchant, customer, device, device_type, country, started, ended, page_count, intent,
                intent_id, source, depth, is_bucketed,
            ) in enumerate(zip(
                ids,
                sessions.merchant[rows].tolist(),
                sessions.customer[rows].tolist(),
                self._names.device_ids(sessions.device[rows]).to_pylist(),
                sessions.device_type[rows].tolist(),
                sessions.country[rows].tolist(),
                milliseconds(sessions.started[rows]),
                milliseconds(sessions.ended[rows]),
                pages.astype(np.int64).tolist(),
                sessions.intent[rows].tolist(),
                intents,
                named(_SOURCES, sessions.source[rows]),
                sessions.depth[rows].tolist(),
                self._is_bucketed[rows].tolist(),
                strict=True,
            ))
        ]  # fmt: skip

    def _overflow_ids(self, start: int, stop: int) -> list[str]:
        sessions = self._ids.strings(self._overflowing[start:stop])
        # A session has at most five parts, so that ids are in the order of the buckets too.
        return [f"{one}:{bucket}" for one, bucket in zip(sessions, self._bucket[start:stop].tolist(), strict=True)]

    def _overflow_documents(self, rows: slice, ids: Sequence[str]) -> list[Document | None]:
        documents: list[Document | None] = []
        for overflow_id, session, bucket in zip(
            ids, self._overflowing[rows].tolist(), self._bucket[rows].tolist(), strict=True
        ):
            start = int(self._events[session]) + bucket * EVENTS_A_DOCUMENT
            stop = min(start + EVENTS_A_DOCUMENT, int(self._events[session + 1]))
            documents.append(
                {
                    "_id": overflow_id,
                    "merchant_id": self._merchant_ids[self._sessions.merchant[session]],
                    "session_id": overflow_id.partition(":")[0],
                    "bucket": bucket,
                    "events": self._pointers(np.arange(start, stop)),
                    "expire_at": None,
                    "schema_version": 1,
                }
            )
        return documents

    def _event_documents(self, rows: slice, ids: Sequence[str]) -> list[Document | None]:
        always = held()
        place = np.arange(rows.start, rows.stop)
        session, step, kind = self._session_of(place)
        product = [f"prod-{number:04d}" for number in self._product(session, step).tolist()]
        price = 100 + self._ids.draws(session) // np.uint64(PRODUCTS) % np.uint64(20_000)
        luck = self._event_ids.draws(place) % np.uint64(1000)  # of each event alone, whatever the batch
        documents: list[Document | None] = []
        for row, (event_id, merchant, session_id, code, moment, cents, money, number) in enumerate(
            zip(
                ids,
                self._sessions.merchant[session].tolist(),
                self._ids.strings(session),
                kind.tolist(),
                milliseconds(self._occurred(session, step)),
                price.astype(np.int64).tolist(),
                self._names.business.population.merchants.money[self._sessions.merchant[session]].tolist(),
                luck.astype(np.int64).tolist(),
                strict=True,
            )
        ):
            page, properties = _page(code, product[row], cents, CURRENCIES[money], number)
            documents.append(
                {
                    "_id": event_id,
                    "merchant_id": self._merchant_ids[merchant],
                    "session_id": session_id,
                    "event_type": EVENT_TYPES[code],
                    "page": page,
                    "occurred_at": moment,
                    "properties": properties,
                    **always,
                }
            )
        return documents


def _page(kind: int, product: str, price: int, currency: str, luck: int) -> tuple[str, Document]:
    """Return the page of an event and its properties, which vary with its kind."""
    if kind == _PAGE_VIEW:
        properties: Document = {"referrer": _REFERRERS[luck % len(_REFERRERS)]}
        return "/", properties | ({"scroll_percent": luck // 10} if luck % 3 else {})
    if kind == _PRODUCT_VIEW:
        return f"/products/{product}", {"product": product, "price_minor": price, "currency": currency}
    quantity = 1 + luck % 3
    if kind == 2:
        return f"/products/{product}", {"product": product, "quantity": quantity}
    if kind == 3:
        return "/checkout", {"items": quantity, "cart_minor": quantity * price, "currency": currency}
    return "/checkout/payment", {"method": INSTRUMENT_TYPES[luck % 10 // 8], "is_saved": luck % 2 == 0}


def _draw_sessions(streams: Streams, business: Business) -> _Sessions:
    """Draw the sessions that led to a payment, and those that only looked, at the hours at which people also buy."""
    generator = streams.stream("sessions")
    plan, charges = business.plan, business.charges
    online = np.flatnonzero(charges.device_type != TERMINAL)
    _, first_attempt = np.unique(charges.intent[online], return_index=True)
    wanted = min(len(first_attempt), round(plan.transactions * _CONVERTED_SHARE))
    bought = generator.permutation(online[first_attempt])[:wanted]
    looked = online[
        generator.integers(0, max(1, len(online)), round(plan.transactions * _BROWSING_SHARE) if len(online) else 0)
    ]
    charge = np.concatenate([bought, looked])
    count, is_bought = len(charge), np.arange(len(charge)) < len(bought)

    shifted = charges.created[charge] + generator.integers(-20, 21, count) * DAY
    inside = (shifted >= plan.start_moment) & (shifted < plan.end_moment)
    ended = np.where(is_bought | ~inside, charges.created[charge], shifted)
    seconds = np.clip(np.exp(generator.normal(np.log(260), 0.8, count)), 8, 5400)
    customer = business.charge_customer[charge]
    is_known = is_bought | (generator.random(count) < 0.4)
    depth = np.where(is_bought, len(EVENT_TYPES), 1 + pick(generator, np.array([0.45, 0.30, 0.15, 0.10]), count))
    source = np.where(generator.random(count) < 0.45, -1, generator.integers(0, len(_SOURCES), count))
    started = ended - (seconds * SECOND).astype(np.int64)
    order = np.argsort(started, kind="stable")
    return _Sessions(
        merchant=business.sales.merchant[charge][order],
        customer=np.where(is_known, customer, -1)[order],
        device=charges.device[charge][order],
        device_type=charges.device_type[charge][order],
        country=CITY_COUNTRY[charges.city[charge]][order],
        started=started[order],
        ended=ended[order],
        intent=np.where(is_bought, charges.intent[charge], -1)[order],
        source=source[order],
        depth=depth[order],
    )


def _with_long_visits(streams: Streams, plan: Plan, sessions: _Sessions) -> _Sessions:
    """Make a handful of the visits that only looked very long: crawlers, and persons who stay for hours."""
    generator = streams.stream("long visits")
    is_candidate = (sessions.intent < 0) & (sessions.started >= plan.middle_moment)
    candidates = np.flatnonzero(is_candidate & (sessions.started < plan.end_moment - 6 * HOUR))
    count = min(2 + plan.transactions // 10_000, _MOST_LONG_VISITS, len(candidates) // 20)
    chosen = generator.permutation(candidates)[:count]
    is_crawler = np.arange(count) % 2 == 0
    minutes = np.where(is_crawler, generator.integers(10, 40, count), generator.integers(120, 300, count))
    # At least one of them is long enough for two documents beside its session.
    depth = generator.integers(np.where(np.arange(count) == 0, 450, 250), 901)
    names = ("customer", "ended", "depth")
    changed = replace(sessions, **{name: getattr(sessions, name).copy() for name in names})
    changed.customer[chosen[is_crawler]] = -1
    changed.ended[chosen] = sessions.started[chosen] + minutes * 60 * SECOND
    changed.depth[chosen] = depth
    return changed

"""The behaviour of the same history, as documents: sessions, click events, API requests and feedback.

What is drawn up front is a set of arrays; the documents themselves are made batch by batch. Every document has an `_id`
from the seed and its place in time, so that any part of a collection can be made again exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from payments.simulation.arrays import Flags, Ints, expand, offsets, pick
from payments.simulation.business import Business
from payments.simulation.columns import CURRENCIES
from payments.simulation.ids import IdSpace
from payments.simulation.plan import DAY, SECOND
from payments.simulation.population import CITY_COUNTRY, INSTRUMENT_TYPES
from payments.simulation.purchases import FAILED, ORDINARY, SUCCEEDED
from payments.simulation.streams import Streams
from payments.simulation.tables import COUNTRY_CODES, Tables
from payments.simulation.texts import LANGUAGES, SENTIMENTS, TOPICS, feedback_text
from payments.simulation.world import (
    AUTHORIZATION_EXPIRED,
    AUTHORIZATION_VOIDED,
    COUNTRIES,
    DEVICE_TYPES,
    FAILURES,
    TERMINAL,
)

Document = dict[str, Any]
SCHEMA_VERSION = 1
EVENT_TYPES = ("page_view", "product_view", "add_to_cart", "checkout_started", "payment_submitted")
_COUNTS_AS_PAGE = np.array([True, True, False, True, False])
_SOURCES = ("google", "newsletter", "instagram", "partner", "tiktok")
_REFERRERS = ("direct", "search", "social", "mail")
_VERSIONS = ("2025-09-30", "2026-01-28", "2026-03-25")
_KINDS = ("review", "survey", "ticket")
_CONVERTED_SHARE, _BROWSING_SHARE = 0.14, 0.16
_CONFIRMATION_SHARE, _OTHER_REQUEST_SHARE = 0.38, 0.10
_FEEDBACK_SHARE = 0.03
_OTHER_REQUESTS = (
    ("GET", "/v1/charges"),
    ("GET", "/v1/payment_intents/{id}"),
    ("GET", "/v1/balance_transactions"),
    ("POST", "/v1/refunds"),
    ("POST", "/v1/customers"),
    ("GET", "/v1/disputes"),
)
_ERRORS = (
    None,
    "parameter_invalid",
    "authentication_required",
    "resource_missing",
    "idempotency_key_in_use",
    "rate_limit",
    "api_error",
)
_ERROR_STATUS = (200, 400, 401, 404, 409, 429, 500)


@dataclass(frozen=True)
class Sessions:
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


@dataclass(frozen=True)
class Requests:
    """One row a request to the payments interface, in order of time; route -1 is the confirmation of an intent."""

    merchant: Ints
    route: Ints
    error: Ints
    failure: Ints
    latency: Ints
    version: Ints
    occurred: Ints


@dataclass(frozen=True)
class Feedback:
    """One row a review, survey or ticket, in order of time; rating 0 where none was given."""

    merchant: Ints
    customer: Ints
    charge: Ints
    kind: Ints
    rating: Ints
    topic: Ints
    sentiment: Ints
    submitted: Ints


@dataclass(frozen=True)
class Collection:
    """A collection to write: its name, how many documents, and how to make the ids and the documents of a range."""

    name: str
    count: int
    ids: Callable[[int, int], list[str]]
    documents: Callable[[int, int], list[Document | None]]


def _written() -> Document:
    """Return the fields that every landed document has beside its own."""
    return {"written_at": datetime.now(UTC), "schema_version": SCHEMA_VERSION}


def _held() -> Document:
    """Return those of a document with a retention: a history lies in the past, so it is on hold and never expires."""
    return {"expire_at": None, **_written()}


def _milliseconds(moments: Ints) -> list[Any]:
    """Moments as (naive, UTC) datetimes at the precision of the document store."""
    milliseconds: list[Any] = (moments // 1000).astype("datetime64[ms]").tolist()
    return milliseconds


def _or_none(names: list[str], codes: Ints) -> list[str | None]:
    return [names[code] if code >= 0 else None for code in codes.tolist()]


class Documents:
    """All documents of a history."""

    def __init__(self, business: Business, tables: Tables) -> None:
        self._business = business
        self._tables = tables
        streams = Streams(business.plan.seed)
        self._sessions = _draw_sessions(streams, business)
        self._events = offsets(self._sessions.depth)
        self._requests = _draw_requests(streams, business)
        self._feedback = _draw_feedback(streams, business)
        self._spaces = {
            prefix: IdSpace(business.plan.seed, prefix) for prefix in ("sess", "evt", "req", "fb", "pi", "ch")
        }
        self._merchant_ids: list[Any] = tables.merchant_ids.to_pylist()
        self._customer_ids: list[Any] = tables.customer_ids.to_pylist()

    def counts(self) -> dict[str, int]:
        """Return how many documents each collection gets."""
        return {
            "sessions": len(self._sessions.started),
            "click_events": int(self._events[-1]),
            "api_logs": len(self._requests.occurred),
            "feedback": len(self._feedback.submitted),
        }

    def feedback_subjects(self) -> Ints:
        """Return the persons who gave feedback."""
        return np.unique(self._business.population.customers.subject[self._feedback.customer])

    def collections(self, encrypt: Callable[[int, str], bytes | None]) -> list[Collection]:
        """Return every collection; `encrypt` seals a text under a person's key, or gives None when the key is gone.

        A document whose text cannot be sealed any more is None: an erased person's words are not written again.
        """
        makers: dict[str, tuple[str, Callable[[slice, list[str]], list[Document | None]]]] = {
            "sessions": ("sess", self._session_documents),
            "click_events": ("evt", self._event_documents),
            "api_logs": ("req", self._request_documents),
            "feedback": ("fb", lambda rows, ids: self._feedback_documents(rows, ids, encrypt)),
        }
        return [self._collection(name, *makers[name], count) for name, count in self.counts().items()]

    def _collection(
        self, name: str, prefix: str, make: Callable[[slice, list[str]], list[Document | None]], count: int
    ) -> Collection:
        def ids(start: int, stop: int) -> list[str]:
            return list(self._spaces[prefix].strings(np.arange(start, stop)))

        return Collection(name, count, ids, lambda start, stop: make(slice(start, stop), ids(start, stop)))

    def _session_documents(self, rows: slice, ids: list[str]) -> list[Document | None]:
        held = _held()
        sessions = self._sessions
        owner, _ = expand(sessions.depth[rows])
        first = self._events[rows.start]
        pages = np.bincount(
            owner,
            weights=_COUNTS_AS_PAGE[self._steps(first, first + len(owner))],
            minlength=len(ids),
        )
        intents = self._spaces["pi"].strings(np.maximum(sessions.intent[rows], 0))
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
                **held,
            }
            for (
                session_id, merchant, customer, device, device_type, country, started, ended, page_count, intent,
                intent_id, source,
            ) in zip(
                ids,
                sessions.merchant[rows].tolist(),
                sessions.customer[rows].tolist(),
                self._tables.device_ids(sessions.device[rows]).to_pylist(),
                sessions.device_type[rows].tolist(),
                sessions.country[rows].tolist(),
                _milliseconds(sessions.started[rows]),
                _milliseconds(sessions.ended[rows]),
                pages.astype(np.int64).tolist(),
                sessions.intent[rows].tolist(),
                intents,
                _or_none(list(_SOURCES), sessions.source[rows]),
                strict=True,
            )
        ]  # fmt: skip

    def _steps(self, first: int, last: int) -> Ints:
        """Return which step of its session each event is; the steps are those of EVENT_TYPES."""
        session = np.searchsorted(self._events, np.arange(first, last), side="right") - 1
        return np.arange(first, last) - self._events[session]

    def _event_documents(self, rows: slice, ids: list[str]) -> list[Document | None]:
        held = _held()
        sessions, place = self._sessions, np.arange(rows.start, rows.stop)
        session = np.searchsorted(self._events, place, side="right") - 1
        step = place - self._events[session]
        event_numbers = self._spaces["evt"].draws(place)  # of each event alone, whatever the batch
        started, length = sessions.started[session], (sessions.ended - sessions.started)[session]
        occurred = started + length * step // np.maximum(sessions.depth[session] - 1, 1)
        session_numbers = self._spaces["sess"].draws(session)
        product = [f"prod-{number:04d}" for number in (session_numbers % np.uint64(2000)).tolist()]
        price = (100 + session_numbers // np.uint64(2000) % np.uint64(20_000)).astype(np.int64).tolist()
        currency = self._business.population.merchants.money[sessions.merchant[session]].tolist()
        luck = (event_numbers % np.uint64(1000)).astype(np.int64).tolist()
        documents: list[Document | None] = []
        for row, (event_id, merchant, session_id, kind, moment) in enumerate(
            zip(
                ids,
                sessions.merchant[session].tolist(),
                self._spaces["sess"].strings(session),
                step.tolist(),
                _milliseconds(occurred),
                strict=True,
            )
        ):
            page, properties = _page(kind, product[row], price[row], CURRENCIES[currency[row]], luck[row])
            documents.append(
                {
                    "_id": event_id,
                    "merchant_id": self._merchant_ids[merchant],
                    "session_id": session_id,
                    "event_type": EVENT_TYPES[kind],
                    "page": page,
                    "occurred_at": moment,
                    "properties": properties,
                    **held,
                }
            )
        return documents

    def _request_documents(self, rows: slice, ids: list[str]) -> list[Document | None]:
        held = _held()
        requests = self._requests
        documents: list[Document | None] = []
        for request_id, merchant, route, error, failure, latency, version, moment in zip(
            ids,
            requests.merchant[rows].tolist(),
            requests.route[rows].tolist(),
            requests.error[rows].tolist(),
            requests.failure[rows].tolist(),
            requests.latency[rows].tolist(),
            requests.version[rows].tolist(),
            _milliseconds(requests.occurred[rows]),
            strict=True,
        ):
            method, path = ("POST", "/v1/payment_intents/{id}/confirm") if route < 0 else _OTHER_REQUESTS[route]
            documents.append(
                {
                    "_id": request_id,
                    "merchant_id": self._merchant_ids[merchant],
                    "method": method,
                    "path": path,
                    "status_code": 402 if failure >= 0 else _ERROR_STATUS[error],
                    "error_code": FAILURES[failure] if failure >= 0 else _ERRORS[error],
                    "latency_ms": latency,
                    "api_version": _VERSIONS[version],
                    "occurred_at": moment,
                    **held,
                }
            )
        return documents

    def _feedback_documents(
        self, rows: slice, ids: list[str], encrypt: Callable[[int, str], bytes | None]
    ) -> list[Document | None]:
        written = _written()
        feedback, population = self._feedback, self._business.population
        subject = population.customers.subject[feedback.customer[rows]]
        numbers = self._spaces["fb"].draws(np.arange(rows.start, rows.stop)).tolist()
        charges = self._spaces["ch"].strings(np.maximum(feedback.charge[rows], 0))
        documents: list[Document | None] = []
        for row, (feedback_id, merchant, customer, charge, kind, rating, topic, sentiment, person, moment) in enumerate(
            zip(
                ids,
                feedback.merchant[rows].tolist(),
                feedback.customer[rows].tolist(),
                feedback.charge[rows].tolist(),
                feedback.kind[rows].tolist(),
                feedback.rating[rows].tolist(),
                feedback.topic[rows].tolist(),
                feedback.sentiment[rows].tolist(),
                subject.tolist(),
                _milliseconds(feedback.submitted[rows]),
                strict=True,
            )
        ):
            language = LANGUAGES.get(COUNTRIES[int(population.subjects.country[person])].locale[:2], "en")
            sealed = encrypt(person, feedback_text(language, TOPICS[topic], SENTIMENTS[sentiment], numbers[row]))
            if sealed is None:
                documents.append(None)
                continue
            documents.append(
                {
                    "_id": feedback_id,
                    "merchant_id": self._merchant_ids[merchant],
                    "customer_id": self._customer_ids[customer],
                    "charge_id": charges[row] if charge >= 0 else None,
                    "kind": _KINDS[kind],
                    "rating": rating or None,
                    "topic": TOPICS[topic],
                    "sentiment": SENTIMENTS[sentiment],
                    "language": language,
                    "text_encrypted": sealed,
                    "submitted_at": moment,
                    **written,
                }
            )
        return documents


def _page(kind: int, product: str, price: int, currency: str, luck: int) -> tuple[str, Document]:
    """Return the page of an event and its properties, which vary with its kind."""
    if kind == 0:
        properties: Document = {"referrer": _REFERRERS[luck % len(_REFERRERS)]}
        return "/", properties | ({"scroll_percent": luck // 10} if luck % 3 else {})
    if kind == 1:
        return f"/products/{product}", {"product": product, "price_minor": price, "currency": currency}
    quantity = 1 + luck % 3
    if kind == 2:
        return f"/products/{product}", {"product": product, "quantity": quantity}
    if kind == 3:
        return "/checkout", {"items": quantity, "cart_minor": quantity * price, "currency": currency}
    return "/checkout/payment", {"method": INSTRUMENT_TYPES[luck % 10 // 8], "is_saved": luck % 2 == 0}


def _draw_sessions(streams: Streams, business: Business) -> Sessions:
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
    return Sessions(
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


def _draw_requests(streams: Streams, business: Business) -> Requests:
    """Draw the confirmations of a part of the charges, and other requests at the hours at which people pay."""
    generator = streams.stream("requests")
    plan, charges = business.plan, business.charges
    total = len(charges.created)
    confirmed = generator.permutation(total)[: round(plan.transactions * _CONFIRMATION_SHARE)]
    other = generator.integers(0, total, round(plan.transactions * _OTHER_REQUEST_SHARE))
    charge = np.concatenate([confirmed, other])
    count, is_confirmation = len(charge), np.arange(len(charge)) < len(confirmed)
    route = np.where(is_confirmation, -1, pick(generator, np.array([0.3, 0.3, 0.15, 0.1, 0.1, 0.05]), count))
    error = np.where(
        is_confirmation, 0, pick(generator, np.array([0.93, 0.02, 0.005, 0.02, 0.005, 0.015, 0.005]), count)
    )
    # An authorization that was voided later was confirmed all the same.
    was_authorized = np.isin(charges.failure, [AUTHORIZATION_VOIDED, AUTHORIZATION_EXPIRED])
    is_declined = is_confirmation & ((charges.status == FAILED) & ~was_authorized)[charge]
    latency = np.exp(generator.normal(np.where(is_confirmation, np.log(420), np.log(60)), 0.5))
    slow = (error == len(_ERRORS) - 1) | (generator.random(count) < 0.004)
    delay = generator.integers(-600 * SECOND, 600 * SECOND, count)
    moment = charges.created[charge] + np.where(is_confirmation, 0, delay)
    occurred = np.clip(moment, plan.start_moment, plan.end_moment - SECOND)
    order = np.argsort(occurred, kind="stable")
    return Requests(
        merchant=business.sales.merchant[charge][order],
        route=route[order],
        error=error[order],
        failure=np.where(is_declined, charges.failure[charge], -1)[order],
        latency=np.clip(latency * np.where(slow, 12, 1), 3, 30_000).astype(np.int64)[order],
        version=pick(generator, np.array([0.25, 0.35, 0.40]), len(business.population.merchants.weight))[
            business.sales.merchant[charge][order]
        ],
        occurred=occurred[order],
    )


def _draw_feedback(streams: Streams, business: Business) -> Feedback:
    """Draw what customers say hours to weeks after a charge: worse after a decline, a refund or a dispute."""
    generator = streams.stream("feedback")
    plan, charges = business.plan, business.charges
    total = len(charges.created)
    charge = np.sort(generator.permutation(total)[: round(plan.transactions * _FEEDBACK_SHARE)])
    charge = charge[charges.kind[charge] == ORDINARY]
    submitted = charges.created[charge] + (np.exp(generator.normal(np.log(3), 1.0, len(charge))) * DAY).astype(np.int64)
    in_time = submitted < plan.end_moment
    charge, submitted = charge[in_time], submitted[in_time]
    count = len(charge)
    went_wrong: Flags = (charges.status[charge] != SUCCEEDED) | (business.charge_refunded[charge] > 0)
    mood = pick(generator, np.array([0.62, 0.20, 0.18]), count)
    sentiment = np.where(went_wrong & (generator.random(count) < 0.7), SENTIMENTS.index("negative"), mood)
    kind = np.where(
        went_wrong,
        pick(generator, np.array([0.2, 0.1, 0.7]), count),
        pick(generator, np.array([0.6, 0.28, 0.12]), count),
    )
    topic = pick(generator, np.array([0.28, 0.24, 0.16, 0.12, 0.12, 0.08]), count)
    topic = np.where(charges.status[charge] != SUCCEEDED, TOPICS.index("payment"), topic)
    stars = np.array([5, 3, 1])[sentiment] + np.array([-1, 0, 1])[sentiment] * (generator.random(count) < 0.4)
    order = np.argsort(submitted, kind="stable")
    return Feedback(
        merchant=business.sales.merchant[charge][order],
        customer=business.charge_customer[charge][order],
        charge=np.where(kind == _KINDS.index("survey"), -1, charge)[order],
        kind=kind[order],
        rating=np.where(kind == _KINDS.index("ticket"), 0, stars)[order],
        topic=topic[order],
        sentiment=sentiment[order],
        submitted=submitted[order],
    )

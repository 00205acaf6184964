"""A small, dense set of documents for the example queries: few merchants, customers and moments, so that much collides.

Everything follows from one seed. There are ties in time, empty groups, nulls, both schema versions of sessions and
feedback, sessions with an overflow (one of them with a part missing), several currencies, and features that were
corrected later.
"""

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

Document = dict[str, Any]
Store = dict[str, list[Document]]

START = datetime(2026, 2, 1, tzinfo=UTC)
DAYS = 40
MERCHANTS = ["acct_A", "acct_B", "acct_C"]
CUSTOMERS = {merchant: [f"cus_{merchant[-1]}{number}" for number in range(6)] for merchant in MERCHANTS}
STEPS = ["page_view", "product_view", "add_to_cart", "checkout_started", "payment_submitted"]
PRODUCTS = [f"prod-{number}" for number in range(5)]
CURRENCIES = ["EUR", "JPY", "USD"]
TOPICS = ["delivery", "price", "quality"]
SENTIMENTS = ["positive", "neutral", "negative"]
ACTORS = [("merchant_user", "usr_1"), ("operator", "op_1"), ("service", "svc_1")]
HELD = {"expire_at": None}
HEAD, FULL = 200, 12


def documents(seed: int, scale: int = 1) -> Store:
    """Return the documents of every collection that a query reads; ``scale`` multiplies how many there are."""
    made = _Maker(random.Random(seed), scale)  # noqa: S311 - a repeatable sample, no secret
    made.behaviour()
    made.requests()
    made.feedback()
    made.profiles()
    made.decisions()
    made.features()
    made.webhooks()
    made.audit()
    made.recommendations()
    return dict(made.store)


class _Maker:
    def __init__(self, draw: random.Random, scale: int) -> None:
        self.draw = draw
        self.scale = scale
        self.store: Store = defaultdict(list)

    def add(self, collection: str, document: Document, version: int = 1) -> Document:
        whole = {**document, "written_at": START, "schema_version": version}
        self.store[collection].append(whole)
        return whole

    def moment(self) -> datetime:
        """Return a moment on a coarse grid within working hours, so that many fall together."""
        draw = self.draw
        return START + timedelta(days=draw.randrange(DAYS), hours=draw.randrange(9, 12), minutes=5 * draw.randrange(12))

    def customer(self, merchant: str) -> str:
        """Return a customer, the earlier ones more often."""
        return CUSTOMERS[merchant][min(self.draw.randrange(6), self.draw.randrange(6))]

    def behaviour(self) -> None:
        for number in range(220 * self.scale):
            self._session(f"{number:05d}", is_long=number % 60 == 7)

    def _session(self, number: str, *, is_long: bool) -> None:
        draw = self.draw
        merchant, started = draw.choice(MERCHANTS), self.moment()
        steps = STEPS[: draw.randrange(1, 6)]
        if draw.random() < 0.3:
            steps = [draw.choice(STEPS) for _ in range(draw.randrange(1, 6))]
        if is_long:
            steps = [draw.choice(STEPS[:3]) for _ in range(HEAD + 205)]
        # Two events of one session may share a moment: their ids order them.
        moments = sorted(started + timedelta(seconds=draw.randrange(0, 60, 10)) for _ in steps)
        pointers = []
        for place, (step, moment) in enumerate(zip(steps, moments, strict=True)):
            properties: Document = {"product": draw.choice(PRODUCTS)} if step in STEPS[1:3] else {}
            event = {
                "_id": f"evt_{number}x{place:03d}",
                "merchant_id": merchant,
                "session_id": f"sess_{number}",
                "event_type": step,
                "page": "/",
                "occurred_at": moment,
                "properties": properties,
            }
            if place < FULL:  # what lies beyond would only make the tests slower
                self.add("click_events", event | HELD)
            pointers.append({"event_id": event["_id"], "event_type": step, "occurred_at": moment})
        has_paid = steps[-1] == STEPS[-1]
        session = {
            "_id": f"sess_{number}",
            "merchant_id": merchant,
            "customer_id": self.customer(merchant) if draw.random() < 0.7 else None,
            "device_id": f"device{draw.randrange(25)}",
            "device_type": "mobile",
            "ip_country": draw.choice(["DE", None]),
            "started_at": started,
            "ended_at": moments[-1],
            "page_count": len(steps),
            "has_converted": has_paid,
            "payment_intent_id": f"pi_{number}" if has_paid else None,
            "utm_source": None,
        }
        if not is_long and draw.random() < 0.5:
            self.add("sessions", session | HELD)
            return
        bucketed = {"event_count": len(steps), "has_overflow": len(steps) > HEAD, "events": pointers[:HEAD]}
        self.add("sessions", session | bucketed | HELD, version=2)
        parts = [pointers[first : first + HEAD] for first in range(HEAD, len(pointers), HEAD)]
        if len(self.store["session_overflows"]) == 2:
            parts = parts[:1]  # this session has lost its last part
        for bucket, events in enumerate(parts, start=1):
            part = {"_id": f"sess_{number}:{bucket}", "merchant_id": merchant, "session_id": f"sess_{number}"}
            whole = part | {"bucket": bucket, "events": events, "expire_at": None, "schema_version": 1}
            self.store["session_overflows"].append(whole)

    def requests(self) -> None:
        draw = self.draw
        burst = START + timedelta(days=20, hours=10)
        for number in range(420 * self.scale):
            in_burst = number % 12 == 0
            status = draw.choice([400, 402, 500, 503]) if in_burst or draw.random() < 0.2 else 200
            moment = burst + timedelta(minutes=draw.randrange(30)) if in_burst else self.moment()
            merchant = draw.choice(MERCHANTS)
            request_id = f"req_{number:05d}"
            request = {
                "_id": request_id,
                "merchant_id": merchant,
                "method": draw.choice(["GET", "POST"]),
                "path": draw.choice(["/v1/charges", "/v1/refunds", "/v1/customers"]),
                "status_code": status,
                "error_code": "api_error" if status >= 400 else None,
                "latency_ms": draw.choice([20, 30, 30, 250, draw.randrange(900)]),
                "api_version": draw.choice(["2025-09-30", "2026-01-28"]),
                "occurred_at": moment,
            }
            self.add("api_logs", request | HELD)
            for _ in range(draw.randrange(3) if status >= 500 else 0):
                self._error(merchant, request_id, moment)
        for _ in range(60 * self.scale):  # errors that no request met
            self._error(draw.choice([*MERCHANTS, None]), None, self.moment())

    def _error(self, merchant: str | None, request: str | None, moment: datetime) -> None:
        draw = self.draw
        error = {
            "_id": f"err_{len(self.store['error_logs']):05d}",
            "merchant_id": merchant,
            "request_id": request,
            "service": draw.choice(["checkout", "ledger"]),
            "severity": draw.choice(["warning", "error"]),
            "error_type": draw.choice(["Timeout", "Deadlock"]),
            "message": "it failed",
            "fingerprint": draw.choice(["0" * 15 + "a", "0" * 15 + "b"]),
            "stack": [{"module": "ledger", "line": 1}],
            "context": {"attempt": 1},
            "occurred_at": moment,
        }
        self.add("error_logs", error | HELD)

    def feedback(self) -> None:
        draw = self.draw
        for number in range(240 * self.scale):
            merchant = draw.choice(MERCHANTS)
            said = {
                "_id": f"fb_{number:05d}",
                "merchant_id": merchant,
                "customer_id": self.customer(merchant),
                "charge_id": None,
                "kind": "review",
                "rating": draw.choice([None, 1, 2, 3, 4, 5]),
                "topic": draw.choice(TOPICS),
                "sentiment": draw.choice(SENTIMENTS),
                "language": "en",
                "text_encrypted": b"\x01",
                "submitted_at": self.moment() + timedelta(days=0 if number % 2 else 7),
            }
            if number % 3:
                self.add("feedback", said | {"charge_id": f"ch_{number}"})
                continue
            charge = {"charge_id": f"ch_{number}", "version": 1, "amount_minor": 5, "currency": "EUR", "status": "paid"}
            newer = {"customer_version": 1, "charge": charge, "answers": None, "message_count": None, "thread": None}
            self.add("feedback", said | newer, version=2)

    def profiles(self) -> None:
        draw = self.draw
        for merchant in MERCHANTS:
            for customer in CUSTOMERS[merchant][:-1]:  # the last one has no profile
                charges = [f"ch_{customer[-2:]}{number}" for number in range(draw.randrange(4))]
                currencies = draw.sample(CURRENCIES, draw.randrange(4))
                profile = {
                    "_id": customer,
                    "merchant_id": merchant,
                    "version": 1,
                    "country": draw.choice(["DE", None]),
                    "segment": draw.choice(["new", "loyal", "at_risk"]),
                    "payment_count": len(charges),
                    "first_paid_at": None,
                    "last_paid_at": self.moment() if charges else None,
                    "spent": [
                        {"currency": currency, "amount_minor": draw.randrange(9_000), "payment_count": 1}
                        for currency in currencies
                    ],
                    "recent_charges": [
                        {
                            "charge_id": charge,
                            "amount_minor": 100,
                            "currency": "EUR",
                            "status": "succeeded",
                            "created_at": START,
                        }
                        for charge in charges
                    ],
                    "updated_at": START,
                }
                self.add("customer_profiles", profile)
                for charge in charges:
                    self._decision(charge, merchant)

    def decisions(self) -> None:
        for number in range(240 * self.scale):
            self._decision(f"ch_x{number:05d}", self.draw.choice(MERCHANTS))

    def _decision(self, charge: str, merchant: str) -> None:
        draw = self.draw
        outcome = draw.choice(["genuine", "genuine", "fraud", None])
        decision = {
            "_id": charge,
            "merchant_id": merchant,
            "version": 1,
            "charge_version": 1,
            "amount_minor": draw.randrange(10_000),
            "currency": draw.choice(CURRENCIES),
            "model_version": draw.choice(["m1", None]),
            "score": round(draw.random(), 2),
            "decision": draw.choice(["allow", "review", "review", "block"]),
            "reasons": ["amount"],
            "features": {"amount": 1},
            "latency_ms": 3,
            "decided_at": self.moment(),
            "outcome": outcome,
            "outcome_at": None if outcome is None else START,
        }
        self.add("fraud_decisions", decision)

    def features(self) -> None:
        draw = self.draw
        entities = [("customer", customer) for merchant in MERCHANTS for customer in CUSTOMERS[merchant]]
        for kind, entity in [*entities, ("device", "device1"), ("merchant", CUSTOMERS["acct_A"][0])]:
            for feature_set in ("spending", "visits"):
                for day in sorted(draw.sample(range(DAYS), 4)):
                    # Known a day later, and sometimes corrected; the correction may lack a feature or have a new one.
                    for delay in (1, 9) if draw.random() < 0.5 else (0,):
                        self._feature_row(kind, entity, feature_set, day, delay)

    def _feature_row(self, kind: str, entity: str, feature_set: str, day: int, delay: int) -> None:
        as_of, available_at = START + timedelta(days=day), START + timedelta(days=day + delay)
        names = self.draw.sample(["count", "mean", "share"], self.draw.randrange(1, 4))
        row = {
            "_id": f"{kind}:{entity}:{feature_set}:{day}:{day + delay}",
            "merchant_id": None,
            "entity_type": kind,
            "entity_id": entity,
            "feature_set": feature_set,
            "feature_set_version": 1,
            "as_of": as_of,
            "available_at": available_at,
            "feature_values": {name: self.draw.choice([0, 1, 0.5]) for name in names},
        }
        self.add("ml_features", row | HELD)

    def webhooks(self) -> None:
        draw = self.draw
        for number in range(220 * self.scale):
            merchant, created = draw.choice(MERCHANTS), self.moment()
            state = draw.choice(["pending", "delivered", "delivered", "failed"])
            answers = [draw.choice([500, 503, None]) for _ in range(draw.randrange(0 if state == "pending" else 1, 4))]
            if state == "delivered":
                answers[-1] = 200
            # The last endpoint of a merchant delivers all that it is sent.
            endpoint = f"we_{merchant[-1]}{3 if state == 'delivered' and draw.random() < 0.4 else draw.randrange(3)}"
            attempts = [
                {"attempted_at": created + timedelta(hours=hour), "status_code": answer, "latency_ms": 9}
                for hour, answer in enumerate(answers)
            ]
            delivery = {
                "_id": f"whd_{number:05d}",
                "merchant_id": merchant,
                "event_id": f"evt_{number:05d}",
                "event_type": draw.choice(["charge.succeeded", "charge.refunded"]),
                "endpoint": endpoint,
                "state": state,
                "attempts": attempts,
                "attempt_count": len(attempts),
                "created_at": created,
                "next_attempt_at": created + timedelta(hours=len(answers)) if state == "pending" else None,
            }
            self.add("webhook_deliveries", delivery | HELD)

    def audit(self) -> None:
        draw = self.draw
        for merchant in MERCHANTS:
            for sequence in range(1, 100 * self.scale):
                actor_type, actor = draw.choice(
                    [("merchant_user", "usr_1"), ("operator", "op_1"), ("service", "svc_1")]
                )
                action = {
                    "_id": f"aud_{merchant[-1]}{sequence:05d}",
                    "merchant_id": merchant,
                    "sequence": sequence,
                    "actor_type": actor_type,
                    "actor_id": actor,
                    "action": draw.choice(["view", "export", "login"]),
                    "target_type": draw.choice(["charge", "customer"]),
                    "target_id": draw.choice(["1", "2", "3", None]),
                    "outcome": "denied" if draw.random() < 0.15 else "allowed",
                    "occurred_at": self.moment(),
                    "previous_hash": "0" * 64,
                    "hash": "1" * 64,
                }
                self.add("audit_events", action)

    def recommendations(self) -> None:
        draw = self.draw
        for merchant in MERCHANTS:
            for customer in CUSTOMERS[merchant]:
                for slot in draw.sample(["home", "checkout", "mail"], 2):
                    items = [
                        {"product": product, "score": round(draw.random(), 2), "reason": "popular"}
                        for product in draw.sample([*PRODUCTS, "prod-unseen"], draw.randrange(1, 5))
                    ]
                    offer = {
                        "_id": f"{customer}:{slot}",
                        "merchant_id": merchant,
                        "customer_id": customer,
                        "customer_version": 1,
                        "version": 1,
                        "slot": slot,
                        "items": items,
                        "model_version": "r1",
                        "computed_at": START,
                    }
                    self.add("recommendations", offer | HELD)

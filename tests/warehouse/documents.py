"""Documents of every landed collection, written by hand through the validators, in all schema versions."""

from datetime import UTC, datetime, timedelta
from typing import Any

from bson import Binary
from pymongo.database import Database

Document = dict[str, Any]
MERCHANT, CUSTOMER = "acct_byhand", "cus_byhand"
MOMENT = datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
ZEROS = "0" * 64


def written(**fields: Any) -> Document:
    """A document of the merchant by hand, with what every landed document has; a field given wins."""
    return {"merchant_id": MERCHANT, "written_at": MOMENT, "schema_version": 1, **fields}


def session(name: str, **fields: Any) -> Document:
    return written(
        _id=f"sess_{name}",
        **{
            "customer_id": CUSTOMER,
            "device_id": "dev_1",
            "device_type": "mobile",
            "ip_country": "DE",
            "started_at": MOMENT,
            "ended_at": MOMENT + timedelta(minutes=3),
            "page_count": 2,
            "has_converted": False,
            "payment_intent_id": None,
            "utm_source": None,
            "expire_at": None,
            **fields,
        },
    )


def session_2(name: str, **fields: Any) -> Document:
    """A session of schema version 2: it holds its events, and counts them."""
    event = {"event_id": "evt_byhand1", "event_type": "page_view", "occurred_at": MOMENT}
    return session(name, **{"schema_version": 2, "event_count": 1, "has_overflow": False, "events": [event], **fields})


def feedback(name: str, **fields: Any) -> Document:
    return written(
        _id=f"fb_{name}",
        **{
            "customer_id": CUSTOMER,
            "charge_id": "ch_byhand",
            "kind": "review",
            "rating": 4,
            "topic": "delivery",
            "sentiment": "positive",
            "language": "de",
            "text_encrypted": Binary(b"sealed"),
            "submitted_at": MOMENT,
            **fields,
        },
    )


def feedback_2(name: str, **fields: Any) -> Document:
    """A survey of schema version 2: it embeds the charge with the version of its row, and holds answers."""
    charge = {"charge_id": "ch_byhand", "version": 3, "amount_minor": 1000, "currency": "EUR", "status": "succeeded"}
    found = feedback(
        name,
        **{
            "schema_version": 2,
            "customer_version": 2,
            "kind": "survey",
            "charge": charge,
            "answers": [{"question": "speed", "score": 7}, {"question": "price", "score": 8}],
            "message_count": None,
            "thread": None,
            **fields,
        },
    )
    del found["charge_id"]
    return found


def audit_chain(*hashes: str) -> list[Document]:
    """A chain of audit events, one a hash."""
    return [
        written(
            _id=f"aud_byhand{number}",
            sequence=number,
            actor_type="operator",
            actor_id="op_1",
            action="export",
            target_type="report",
            target_id=None,
            outcome="allowed",
            occurred_at=MOMENT + timedelta(hours=number),
            previous_hash=previous,
            hash=own,
        )
        for number, (previous, own) in enumerate(zip((ZEROS, *hashes), hashes, strict=False), start=1)
    ]


def write_documents(database: Database[Document], merchant: str = MERCHANT, charge: str = "ch_byhand") -> None:
    """Write a few documents of every collection that lands; one decision is about the charge of the merchant."""
    attempts = [
        {"attempted_at": MOMENT + timedelta(seconds=1), "status_code": None, "latency_ms": 10_000},
        {"attempted_at": MOMENT + timedelta(minutes=5), "status_code": 200, "latency_ms": 90},
    ]
    delivery: Document = {
        "event_id": "evt_byhand1",
        "event_type": "charge.succeeded",
        "endpoint": "we_1",
        "created_at": MOMENT,
        "next_attempt_at": None,
        "expire_at": None,
    }
    decision: Document = {
        "version": 2,
        "charge_version": 1,
        "amount_minor": 1000,
        "currency": "EUR",
        "model_version": None,
        "score": 0.75,
        "decision": "review",
        "reasons": ["new_device", "amount"],
        "features": {"customer_payments_1d": 3},
        "latency_ms": 12,
        "decided_at": MOMENT,
        "outcome": "fraud",
        "outcome_at": MOMENT + timedelta(days=30),
    }
    found: dict[str, list[Document]] = {
        "sessions": [session("byhand1"), session_2("byhand2")],
        "click_events": [
            written(
                _id=f"evt_byhand{number}",
                session_id="sess_byhand2",
                event_type=event_type,
                page="/",
                occurred_at=MOMENT + timedelta(milliseconds=700 * number),
                properties={"note": "ä", "items": [1, 2.5, None]},
                expire_at=None,
            )
            for number, event_type in enumerate(("page_view", "checkout_started"), start=1)
        ],
        "feedback": [feedback("byhand1"), feedback_2("byhand2")],
        "api_logs": [
            written(
                _id="req_byhand1",
                method="POST",
                path="/v1/refunds",
                status_code=500,
                error_code="api_error",
                latency_ms=900,
                api_version="2026-03-25",
                occurred_at=MOMENT,
                expire_at=None,
            )
        ],
        "error_logs": [
            written(
                _id="err_byhand1",
                request_id="req_byhand1",
                service="ledger",
                severity="critical",
                error_type="TimeoutError",
                message="no answer within 30 seconds",
                fingerprint="0123456789abcdef",
                stack=[{"module": "ledger.post", "line": 12}],
                context={"attempt": 2},
                occurred_at=MOMENT,
                expire_at=None,
            )
        ],
        "webhook_deliveries": [
            written(_id="whd_byhand1", state="delivered", attempts=attempts, attempt_count=2, **delivery),
            written(_id="whd_byhand2", state="pending", attempts=[], attempt_count=0, **delivery),
        ],
        "audit_events": audit_chain("a1" * 32, "b2" * 32),
        "customer_profiles": [
            written(
                _id=CUSTOMER,
                version=2,
                country="DE",
                segment="loyal",
                payment_count=7,
                first_paid_at=MOMENT,
                last_paid_at=MOMENT,
                spent=[{"currency": "EUR", "amount_minor": 1000, "payment_count": 7}],
                recent_charges=[],
                updated_at=MOMENT,
            )
        ],
        "recommendations": [
            written(
                _id=f"{CUSTOMER}:home",
                customer_id=CUSTOMER,
                customer_version=2,
                version=1,
                slot="home",
                items=[{"product": "prod-1", "score": 0.5, "reason": "viewed"}],
                model_version="r1",
                computed_at=MOMENT,
                expire_at=None,
            )
        ],
        "ml_features": [
            written(
                _id=f"customer:{CUSTOMER}:spending:1:1",
                entity_type="customer",
                entity_id=CUSTOMER,
                feature_set="spending",
                feature_set_version=1,
                as_of=MOMENT,
                available_at=MOMENT + timedelta(minutes=1),
                feature_values={"payments_30d": 3, "mean_value": 12.5},
                expire_at=None,
            )
        ],
        "fraud_decisions": [
            written(_id="ch_byhand2", **{**decision, "outcome": None, "outcome_at": None}),
            written(_id=charge, **{**decision, "merchant_id": merchant}),
        ],
    }
    for collection, documents in found.items():
        for document in documents:
            database[collection].replace_one({"_id": document["_id"]}, document, upsert=True)

"""The document store: collections are applied once, and validators refuse what does not fit."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import WriteError

from payments.errors import UsageError
from payments.systems.documents.client import database
from payments.systems.documents.collections import apply_collections, indexes_afterwards
from payments.systems.documents.definitions import collection_definitions

NOW = datetime(2026, 6, 30, 12, 0, 0, 123_000, tzinfo=UTC)

GOOD: dict[str, dict[str, Any]] = {
    "bank_statements": {
        "_id": f"ba_{'0' * 32}:S1:1",
        "statement_id": "S1",
        "account_token": f"ba_{'0' * 32}",
        "page": 1,
        "page_count": 1,
        "currency": "EUR",
        "opening_balance_minor": -5,
        "closing_balance_minor": -505,
        "period_start_on": "2026-06-30",
        "period_end_on": "2026-06-30",
        "entry_count": 1,
        "entries": [
            {
                "entry_no": 1,
                "entry_ref": None,
                "amount_minor": 500,
                "currency": "EUR",
                "direction": "debit",
                "status": "booked",
                "booked_on": "2026-06-30",
                "value_on": None,
                "payout_id": "po_1",
                "is_reversal": False,
                "reason_code": None,
            }
        ],
        "file_id": f"ba_{'0' * 32}:{'0' * 64}",
        "sha256": "0" * 64,
        "received_at": NOW,
        "schema_version": 1,
        "written_at": NOW,
    },
    "dispute_evidence": {
        "_id": f"dp_1:{'0' * 64}",
        "dispute_id": "dp_1",
        "dispute_version": 1,
        "merchant_id": "acct_1",
        "kind": "receipt",
        "media_type": "application/pdf",
        "size_bytes": 1,
        "sha256": "0" * 64,
        "file_id": f"dp_1:{'0' * 64}",
        "uploaded_at": NOW,
        "uploaded_by": "merchant",
        "schema_version": 1,
        "written_at": NOW,
    },
    "sessions": {
        "_id": "sess_1",
        "merchant_id": "acct_1",
        "customer_id": None,
        "device_id": "dev_1",
        "device_type": "mobile",
        "ip_country": "FR",
        "started_at": NOW,
        "ended_at": NOW,
        "page_count": 3,
        "has_converted": True,
        "payment_intent_id": "pi_1",
        "utm_source": None,
        "schema_version": 1,
        "expire_at": None,
        "written_at": NOW,
    },
    "click_events": {
        "_id": "evt_1",
        "merchant_id": "acct_1",
        "session_id": "sess_1",
        "event_type": "page_view",
        "page": "/",
        "occurred_at": NOW,
        "properties": {"any": {"depth": [1, 2]}},
        "schema_version": 1,
        "expire_at": None,
        "written_at": NOW,
    },
    "api_logs": {
        "_id": "req_1",
        "merchant_id": "acct_1",
        "method": "POST",
        "path": "/v1/charges",
        "status_code": 402,
        "error_code": "card_declined",
        "latency_ms": 120,
        "api_version": "2026-01-01",
        "occurred_at": NOW,
        "schema_version": 1,
        "expire_at": None,
        "written_at": NOW,
    },
    "feedback": {
        "_id": "fb_1",
        "merchant_id": "acct_1",
        "customer_id": "cus_1",
        "charge_id": None,
        "kind": "review",
        "rating": 5,
        "topic": "delivery",
        "sentiment": "positive",
        "language": "en",
        "text_encrypted": b"\x01",
        "submitted_at": NOW,
        "schema_version": 1,
        "written_at": NOW,
    },
    "fraud_scores": {
        "_id": "m1:key",
        "payment_key": "key",
        "payment_id": "ch_1",
        "merchant_id": "acct_1",
        "model_version": "m1",
        "score": 0.25,
        "decision": "allow",
        "scored_at": NOW,
        "schema_version": 1,
        "written_at": NOW,
    },
    "models": {
        "_id": "m1",
        "model_version": "m1",
        "created_at": NOW,
        "features": ["a"],
        "metrics": {"auc": 0.9},
        "model": "text",
        "status": "trained",
        "schema_version": 1,
    },
}


def test_every_collection_has_an_example_here() -> None:
    assert {definition.collection for definition in collection_definitions()} == set(GOOD)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_validator_takes_a_good_document_and_gives_it_back(documents: Database[dict[str, Any]], name: str) -> None:
    documents[name].insert_one(dict(GOOD[name]))
    assert documents[name].find_one() == GOOD[name]


@pytest.mark.parametrize("name", sorted(GOOD))
def test_validator_refuses_unknown_fields_wrong_types_and_holes(documents: Database[dict[str, Any]], name: str) -> None:
    moment = next(field for field in GOOD[name] if field.endswith("_at"))
    required = [field for field in GOOD[name] if field != "_id"]
    bad = [
        {**GOOD[name], "unknown_field": 1},
        {**GOOD[name], moment: "2026-06-30"},
        *({key: value for key, value in GOOD[name].items() if key != field} for field in required),
    ]
    for document in bad:
        with pytest.raises(WriteError, match="failed validation"):
            documents[name].insert_one(document)
    assert documents[name].find_one() is None


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("sessions", "page_count", -1),
        ("sessions", "page_count", 1.5),
        ("sessions", "ip_country", "France"),
        ("click_events", "event_type", "scrolled"),
        ("click_events", "properties", "text"),
        ("api_logs", "status_code", 700),
        ("feedback", "rating", 6),
        ("feedback", "text_encrypted", "plain text"),
        ("fraud_scores", "score", 1.1),
        ("fraud_scores", "decision", "maybe"),
        ("models", "status", "unheard of"),
    ],
)
def test_validator_refuses_values_out_of_range(
    documents: Database[dict[str, Any]], name: str, field: str, value: object
) -> None:
    with pytest.raises(WriteError, match="failed validation"):
        documents[name].insert_one({**GOOD[name], field: value})


def test_applying_again_changes_nothing_and_mends_what_was_taken_away(documents: Database[dict[str, Any]]) -> None:
    assert apply_collections() == []
    documents["sessions"].insert_one(dict(GOOD["sessions"]))
    documents["sessions"].drop_index("by_merchant_and_start")
    documents.command("collMod", "sessions", validator={})
    documents["api_logs"].drop()
    assert apply_collections() == [
        "api_logs: created",
        "api_logs: index by_merchant_and_time made",
        "api_logs: index by_failure_and_time made",
        "api_logs: index by_expiry made",
        "sessions: validator changed",
        "sessions: index by_merchant_and_start made",
    ]
    assert apply_collections() == []
    assert documents["sessions"].find_one() == GOOD["sessions"]


def test_indexes_of_a_filled_collection_come_afterwards(documents: Database[dict[str, Any]]) -> None:
    name, before = "sessions", documents["sessions"].index_information()
    with indexes_afterwards(name):
        assert set(documents[name].index_information()) == {"_id_"}
        documents[name].insert_many({**GOOD[name], "_id": f"sess_{number}"} for number in range(50))
    assert documents[name].index_information() == before
    found = documents[name].find({"merchant_id": "acct_1", "started_at": {"$lte": NOW}}).hint("by_merchant_and_start")
    assert len(list(found)) == 50
    with indexes_afterwards(name):  # it holds documents now, so its readers keep their index
        assert documents[name].index_information() == before


def test_indexes_come_back_after_an_error_in_the_load(documents: Database[dict[str, Any]]) -> None:
    before = documents["sessions"].index_information()
    with pytest.raises(WriteError), indexes_afterwards("sessions"):
        documents["sessions"].insert_one({"_id": "sess_1"})
    assert documents["sessions"].index_information() == before


def test_times_are_aware(documents: Database[dict[str, Any]]) -> None:
    documents["models"].insert_one(dict(GOOD["models"]))
    found = database()["models"].find_one()
    assert found is not None
    assert found["created_at"].tzinfo is not None


@pytest.mark.parametrize(
    ("file_name", "text"),
    [
        ("a.yml", "collection: b\npurpose: p\nreferences: {}\nshard_key: {}\nindexes: []\nvalidator: {}\n"),
        ("a.yml", "collection: a\n"),
        ("a.yml", "{"),
    ],
)
def test_damaged_definition_is_refused(tmp_path: Path, file_name: str, text: str) -> None:
    (tmp_path / file_name).write_text(text)
    with pytest.raises(UsageError):
        collection_definitions(tmp_path)

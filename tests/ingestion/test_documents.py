"""Document collections: what lands, what does not fit, and what never leaves the store."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Int64
from pymongo.database import Database

from ingestion.contracts import entities
from ingestion.documents import land_documents
from ingestion.landing import EntityCounts
from ingestion.quarantine import count_quarantine, list_quarantine, replay
from payments.errors import UsageError
from tests.ingestion.raw import latest, pin, rows

pytestmark = pytest.mark.usefixtures("platform_home")

Document = dict[str, Any]
MOMENT = datetime(2026, 5, 1, 12, 0, 0, 123_000, tzinfo=UTC)


def event(number: int, **other: Any) -> Document:
    return {
        "_id": f"evt_{number}",
        "merchant_id": "acct_1",
        "session_id": "sess_1",
        "event_type": "page_view",
        "page": "/",
        "occurred_at": MOMENT,
        "properties": {"b": 1, "a": {"z": [1.5, None, "ä"], "at": MOMENT}},
        "schema_version": 1,
        **other,
    }


def insert(documents: Database[Document], collection: str, *found: Document) -> None:
    """Insert past the validators, as an old or careless writer could."""
    documents.command("insert", collection, documents=list(found), bypassDocumentValidation=True)


def land(collection: str) -> EntityCounts:
    (counts,) = land_documents([collection]).entities
    assert counts.read == counts.accepted + counts.unchanged + counts.quarantined
    return counts


def numbers(counts: EntityCounts) -> tuple[int, int, int, int, int]:
    return counts.read, counts.accepted, counts.unchanged, counts.quarantined, counts.deleted


def test_documents_land_with_nested_values_as_canonical_json(
    documents: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.documents.DOCUMENTS_A_BATCH", 100)
    insert(documents, "click_events", *(event(number) for number in range(1_001)))
    assert numbers(land("click_events")) == (1_001, 1_001, 0, 0, 0)
    row = next(row for row in rows("documents", "click_events") if row["event_id"] == "evt_7")
    assert row["properties"] == '{"a":{"at":"2026-05-01T12:00:00.123000+00:00","z":[1.5,null,"ä"]},"b":1}'
    assert (row["occurred_at"], row["_key"], row["_op"]) == (MOMENT, '["evt_7"]', "r")
    assert numbers(land("click_events")) == (1_001, 0, 1_001, 0, 0)

    documents["click_events"].update_one({"_id": "evt_7"}, {"$set": {"properties": {"a": 1}}})
    documents["click_events"].delete_one({"_id": "evt_8"})
    assert numbers(land("click_events")) == (1_000, 1, 999, 0, 1)
    assert [(row["event_id"], row["_op"]) for row in rows("documents", "click_events")[-2:]] == [
        ("evt_7", "u"),
        ("evt_8", "d"),
    ]


def test_documents_that_do_not_fit_are_quarantined(documents: Database[Document]) -> None:
    without_page_time = event(5)
    del without_page_time["occurred_at"]
    insert(
        documents,
        "click_events",
        event(0),
        event(1, page=7),
        event(2, page={"nested": 1}),
        event(3, occurred_at="yesterday"),
        event(4, schema_version=2),
        without_page_time,
        event(6, properties={"blob": b"x"}),
        event(7, properties={"note": "4111 1111 1111 1111"}),
        event(8, properties="text", page=None),
        event(9, extra="not asked for", schema_version=Int64(1)),
        event(10, schema_version=1.0),
    )
    assert numbers(land("click_events")) == (11, 3, 0, 8, 0)
    found = {json.loads(item.record).get("_id", "evt_7"): item for item in list_quarantine()}
    assert {key: item.rule for key, item in found.items()} == {
        "evt_1": "wrong_type",
        "evt_2": "wrong_type",
        "evt_3": "wrong_type",
        "evt_4": "unknown_schema_version",
        "evt_5": "missing_value",
        "evt_6": "wrong_type",
        "evt_7": "card_number",
        "evt_10": "wrong_type",
    }
    assert found["evt_1"].reason == "page is int, not text"
    assert found["evt_5"].reason == "occurred_at is missing"
    assert "4111 1111" not in found["evt_7"].record
    assert sum(count.records for count in count_quarantine()) == 8


def test_what_a_person_wrote_never_leaves_the_store(documents: Database[Document]) -> None:
    insert(
        documents,
        "feedback",
        {
            "_id": "fb_1",
            "merchant_id": "acct_1",
            "customer_id": "cus_1",
            "charge_id": None,
            "kind": "review",
            "rating": 7.5,
            "topic": "delivery",
            "sentiment": "negative",
            "language": "en",
            "text_encrypted": b"ciphertext",
            "submitted_at": MOMENT,
            "schema_version": 1,
        },
    )
    assert numbers(land("feedback")) == (1, 0, 0, 1, 0)
    (item,) = list_quarantine()
    assert item.reason == "rating is float, not integer"
    assert "text_encrypted" not in item.record
    documents["feedback"].update_one({"_id": "fb_1"}, {"$set": {"rating": 3}})
    assert numbers(land("feedback")) == (1, 1, 0, 0, 0)
    assert "text_encrypted" not in rows("documents", "feedback")[0]
    assert list_quarantine() == [], "a mended document leaves the quarantine"


def test_a_document_that_no_longer_fits_is_not_a_deletion(documents: Database[Document]) -> None:
    insert(documents, "click_events", event(1))
    land("click_events")
    documents["click_events"].delete_one({"_id": "evt_1"})
    insert(documents, "click_events", event(1, page=1))
    assert numbers(land("click_events")) == (1, 0, 0, 1, 0)
    assert [row["page"] for row in latest("documents", "click_events")] == ["/"]


def test_replay_lands_what_fits_after_a_fix(documents: Database[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    insert(documents, "click_events", event(1, schema_version=2), event(2, page=1), event(3))
    report = land_documents(["click_events"])
    known = entities("documents")
    newer = {"documents": known | {"click_events": replace(known["click_events"], schema_version=2)}}
    with monkeypatch.context() as fixed:
        fixed.setattr("ingestion.documents.entities", newer.__getitem__)
        fixed.setattr("ingestion.quarantine.entities", newer.__getitem__)
        (counts,) = replay(report.batch_id).entities
        assert numbers(counts) == (2, 1, 0, 1, 0)
        row = rows("documents", "click_events")[-1]
        assert (row["event_id"], row["schema_version"], row["occurred_at"], row["_op"]) == ("evt_1", 2, MOMENT, "r")
        assert pin().commits[-1].kind == "replay"
        assert numbers(land("click_events")) == (3, 0, 2, 1, 0), "what was replayed is what stands in the store"
    assert [item.reason for item in list_quarantine()] == ["page is int, not text"]


def test_all_collections_by_default_and_no_others(documents: Database[Document]) -> None:
    names = [counts.entity for counts in land_documents().entities]
    assert names == ["sessions", "click_events", "api_logs", "feedback", "fraud_scores"]
    with pytest.raises(UsageError, match="No such collection: models"):
        land_documents(["models"])
    assert documents.name in pin().commits[-1].origin
    assert "@" not in pin().commits[-1].origin

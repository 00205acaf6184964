"""Document collections: what lands, what does not fit, and what never leaves the store."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Int64
from pymongo.database import Database

from ingestion.contracts import entities
from ingestion.document_changes import ChangeStreamDriver, CursorDriver
from ingestion.documents import land_documents
from ingestion.landing import EntityCounts
from ingestion.quarantine import count_quarantine, list_quarantine, replay
from ingestion.raw_zone import BatchFiles, Commit
from payments.errors import UsageError
from payments.systems.documents.collections import apply_collections
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
        "expire_at": None,
        "written_at": MOMENT,
        "schema_version": 1,
        **other,
    }


def now() -> datetime:
    return datetime.now(UTC)


def remove(documents: Database[Document], *events: str) -> None:
    """Remove events as somebody who asks for it does: with a tombstone each."""
    for document_id in events:
        documents["deletions"].insert_one(
            {
                "_id": f"click_events/{document_id}",
                "collection": "click_events",
                "document_id": document_id,
                "reason": "erasure",
                "deleted_at": now(),
                "expire_at": now() + timedelta(days=400),
                "schema_version": 1,
            }
        )
    documents["click_events"].delete_many({"_id": {"$in": list(events)}})


def insert(documents: Database[Document], collection: str, *found: Document) -> None:
    """Insert past the validators, as an old or careless writer could."""
    documents.command("insert", collection, documents=list(found), bypassDocumentValidation=True)


def land(collection: str, full: bool = False) -> EntityCounts:
    """Land one collection in one batch."""
    (report,) = land_documents([collection], full=full)
    (counts,) = report.entities
    assert counts.read == counts.accepted + counts.unchanged + counts.quarantined
    return counts


def numbers(counts: EntityCounts) -> tuple[int, int, int, int, int]:
    return counts.read, counts.accepted, counts.unchanged, counts.quarantined, counts.deleted


@pytest.fixture(params=["change stream", "cursor"])
def both_drivers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The driver that the embedded server offers, and the one for servers without change streams."""
    drivers = {"change stream": ChangeStreamDriver, "cursor": CursorDriver}
    monkeypatch.setattr("ingestion.documents.driver", lambda _: drivers[request.param]())
    return str(request.param)


def test_documents_land_with_nested_values_as_canonical_json(
    documents: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.document_records.DOCUMENTS_A_BATCH", 100)
    insert(documents, "click_events", *(event(number) for number in range(1_001)))
    assert numbers(land("click_events")) == (1_001, 1_001, 0, 0, 0)
    row = next(row for row in rows("documents", "click_events") if row["event_id"] == "evt_7")
    assert row["properties"] == '{"a":{"at":"2026-05-01T12:00:00.123000+00:00","z":[1.5,null,"ä"]},"b":1}'
    assert (row["occurred_at"], row["_key"], row["_op"]) == (MOMENT, '["evt_7"]', "r")


def test_only_what_changed_is_read_again(documents: Database[Document], both_drivers: str) -> None:
    long_ago = MOMENT if both_drivers == "cursor" else now()
    insert(documents, "click_events", *(event(number, written_at=long_ago) for number in range(50)))
    assert numbers(land("click_events")) == (50, 50, 0, 0, 0)
    assert numbers(land("click_events")) == (0, 0, 0, 0, 0)
    assert pin().commits[-1].kind == "changes"

    documents["click_events"].update_one({"_id": "evt_7"}, {"$set": {"properties": {"a": 1}, "written_at": now()}})
    remove(documents, "evt_8")
    insert(documents, "click_events", event(50, written_at=now()), event(51, written_at=now()))
    documents["click_events"].delete_one({"_id": "evt_51"})
    assert numbers(land("click_events")) == (2, 2, 0, 0, 1)
    assert {(row["event_id"], row["_op"]) for row in rows("documents", "click_events")[-3:]} == {
        ("evt_7", "u"),
        ("evt_8", "d"),
        ("evt_50", "r"),
    }
    assert numbers(land("click_events", full=True)) == (50, 0, 50, 0, 0), "nothing else had changed"
    assert pin().commits[-1].kind == "snapshot"
    positions = [row["_position"] for row in rows("documents", "click_events", order="_sequence, _position")]
    assert positions == sorted(positions), "a later batch stands at a later position"


def test_removal_on_request_is_told_from_the_end_of_retention(documents: Database[Document], both_drivers: str) -> None:
    over = now() - timedelta(days=1)
    for number, moment in enumerate((over, over, now() + timedelta(days=1), None)):
        insert(documents, "click_events", event(number, expire_at=moment, written_at=now()))
    land("click_events")
    remove(documents, "evt_1", "evt_2", "evt_3")
    documents["click_events"].delete_one({"_id": "evt_0"})  # as the server does when its time is over
    assert numbers(land("click_events")) == (0, 0, 0, 0, 4)
    assert {row["event_id"]: row["_op"] for row in rows("documents", "click_events")[-4:]} == {
        "evt_0": "x",
        "evt_1": "d",
        "evt_2": "d",
        "evt_3": "d",
    }
    assert numbers(land("click_events", full=True)) == (0, 0, 0, 0, 0), "what is gone goes once"
    insert(documents, "click_events", event(0, written_at=now()))
    assert numbers(land("click_events")) == (1, 1, 0, 0, 0)
    assert rows("documents", "click_events")[-1]["_op"] == "r"


def test_a_full_reading_tells_retention_from_request_too(documents: Database[Document]) -> None:
    over = now() - timedelta(days=1)
    insert(documents, "click_events", *(event(number, expire_at=over) for number in range(3)), event(3))
    land("click_events")
    remove(documents, "evt_1")
    documents["click_events"].delete_many({"_id": {"$in": ["evt_2", "evt_3"]}})
    assert numbers(land("click_events", full=True)) == (1, 0, 1, 0, 3)
    assert [row["_op"] for row in rows("documents", "click_events", order="event_id, _sequence")] == [
        *("r", "r", "d", "r", "x", "r", "d")
    ]


class KilledError(Exception):
    """Stands for the end of the process."""


def test_a_killed_load_goes_on_where_its_last_batch_ended(
    documents: Database[Document], monkeypatch: pytest.MonkeyPatch, both_drivers: str
) -> None:
    insert(documents, "click_events", *(event(number, written_at=now()) for number in range(1000, 1950)))
    land("click_events")
    documents["click_events"].delete_many({"_id": {"$in": ["evt_1005", "evt_1490", "evt_1949"]}})
    monkeypatch.setattr("ingestion.documents.DOCUMENTS_A_LANDING", 100)
    publish = BatchFiles.publish
    published: list[Commit] = []

    def killed_at_the_fourth(files: BatchFiles, commit: Commit) -> None:
        if len(published) == 3:
            raise KilledError
        publish(files, commit)
        published.append(commit)

    with monkeypatch.context() as patch:
        patch.setattr(BatchFiles, "publish", killed_at_the_fourth)
        with pytest.raises(KilledError):
            land_documents(["click_events"], full=True)
    assert sum(part.read for commit in published for part in commit.entities) == 300
    # Meanwhile: a document behind the place that the load has reached, one ahead of it, and one of each gone.
    documents["click_events"].replace_one({"_id": "evt_1001"}, event(1001, page="/changed", written_at=now()))
    insert(documents, "click_events", event(9, written_at=now()))
    remove(documents, "evt_1002", "evt_1700")

    reports = land_documents(["click_events"])
    assert reports[0].entities[0].read <= 100
    assert sum(report.entities[0].read for report in reports) < 700
    land_documents(["click_events"])  # what changed behind the place
    found = {row["event_id"]: row["page"] for row in latest("documents", "click_events")}
    assert found == {document["_id"]: document["page"] for document in documents["click_events"].find()}
    versions = Counter(row["event_id"] for row in rows("documents", "click_events") if row["_op"] != "d")
    assert versions.pop("evt_1001") == 2
    assert set(versions.values()) == {1}, "nothing landed twice"


def test_a_mark_that_the_server_forgot_means_reading_everything(
    documents: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(documents, "click_events", event(1), event(2))
    with monkeypatch.context() as patch:
        patch.setattr(ChangeStreamDriver, "mark", lambda *_: '{"_data": "00ff"}')
        land("click_events")
    documents["click_events"].delete_one({"_id": "evt_1"})
    insert(documents, "click_events", event(3))
    assert numbers(land("click_events")) == (2, 1, 1, 0, 1)
    assert numbers(land("click_events")) == (0, 0, 0, 0, 0)


def test_another_store_is_a_new_epoch_and_read_as_a_whole(documents: Database[Document]) -> None:
    insert(documents, "click_events", event(1), event(2))
    land("click_events")
    documents["store_identity"].delete_one({})
    assert apply_collections() == ["the store got its identity"]
    documents["click_events"].delete_one({"_id": "evt_2"})
    assert numbers(land("click_events")) == (1, 0, 1, 0, 1)
    first, second = (commit.position for commit in pin().commits)
    assert (first[:8], second[:8]) == ("00000001", "00000002")


def test_two_schema_versions_land_side_by_side_and_an_unknown_one_does_not(documents: Database[Document]) -> None:
    charge = {"charge_id": "ch_2", "version": 3, "amount_minor": 1, "currency": "EUR", "status": "succeeded"}
    common: Document = {"merchant_id": "acct_1", "customer_id": "cus_1", "kind": "review", "topic": "price"}
    common |= {"submitted_at": MOMENT, "written_at": MOMENT}
    insert(
        documents,
        "feedback",
        {"_id": "fb_1", **common, "charge_id": "ch_1", "schema_version": 1},
        {"_id": "fb_2", **common, "charge": charge, "customer_version": 4, "schema_version": 2},
        {"_id": "fb_3", **common, "charge": charge, "schema_version": 3},
    )
    assert numbers(land("feedback")) == (3, 2, 0, 1, 0)
    assert [
        (row["feedback_id"], row["charge_id"], row["charge_version"], row["customer_version"], row["schema_version"])
        for row in rows("documents", "feedback")
    ] == [("fb_1", "ch_1", None, None, 1), ("fb_2", "ch_2", 3, 4, 2)]
    (item,) = list_quarantine()
    assert (item.rule, item.reason) == ("unknown_schema_version", "schema_version 3 is none of 1 to 2")


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
    documents["feedback"].update_one({"_id": "fb_1"}, {"$set": {"rating": 3, "written_at": MOMENT}})
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
    (report,) = land_documents(["click_events"])
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
        assert numbers(land("click_events")) == (0, 0, 0, 0, 0)
        assert numbers(land("click_events", full=True)) == (3, 0, 2, 1, 0), (
            "what was replayed is what stands in the store"
        )
    assert [item.reason for item in list_quarantine()] == ["page is int, not text"]


def test_all_collections_by_default_and_no_others(documents: Database[Document]) -> None:
    (report,) = land_documents()
    assert [counts.entity for counts in report.entities] == list(entities("documents"))
    assert {"sessions", "customer_profiles", "audit_events"} <= set(entities("documents"))
    with pytest.raises(UsageError, match="No such collection: models"):
        land_documents(["models"])
    assert documents.name in pin().commits[-1].origin
    assert "@" not in pin().commits[-1].origin

"""The document store: collections are applied once, and validators take what fits and refuse everything else."""

import shutil
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import encode
from pymongo.database import Database
from pymongo.errors import BulkWriteError, WriteError

from payments.errors import UsageError
from payments.systems.documents.capabilities import Capabilities
from payments.systems.documents.client import database
from payments.systems.documents.collections import apply_collections, drift, indexes_afterwards
from payments.systems.documents.definitions import (
    FOLDER,
    CollectionDefinition,
    collection_definitions,
    definition_of,
)
from tests.systems.documents_by_schema import Document, Spoiled, spoiled_documents, valid_documents

Store = Database[dict[str, Any]]
NOW = datetime(2026, 6, 30, 12, 0, 0, 123_000, tzinfo=UTC)
NAMES = [definition.collection for definition in collection_definitions()]
INVALID, VALID = 500, 100
REFUSED_BY_VALIDATOR = 121


def example(name: str, version: int = 1) -> Document:
    """A valid document of a collection."""
    return valid_documents(definition_of(name), version, 1)[0]


@pytest.fixture(scope="module")
def store(servers: object) -> Store:
    """The document store as the files define it; the tests that use it clear the collection that they fill."""
    apply_collections()
    return database()


def refused(store: Store, name: str, documents: list[Document]) -> set[int]:
    """Insert documents in one unordered batch; return the places of those that the validator refused."""
    try:
        store[name].insert_many(documents, ordered=False)
    except BulkWriteError as error:
        return {one["index"] for one in (error.details or {})["writeErrors"] if one["code"] == REFUSED_BY_VALIDATOR}
    return set()


def in_rounds(definition: CollectionDefinition, documents: Iterable[Document]) -> list[list[Document]]:
    """Give documents in groups within which no two have the same unique key."""
    keys = [["_id"], *(list(index.keys) for index in definition.all_indexes if index.unique)]
    rounds: dict[int, list[Document]] = {}
    seen: Counter[tuple[Any, ...]] = Counter()
    for document in documents:
        own = [(number, *(encode({"": document.get(name)}) for name in key)) for number, key in enumerate(keys)]
        place = max(seen[one] for one in own)
        rounds.setdefault(place, []).append(document)
        seen.update({one: place + 1 - seen[one] for one in own})
    return list(rounds.values())


@pytest.mark.parametrize("name", NAMES)
def test_valid_documents_are_all_taken_and_given_back(store: Store, name: str, full_size: bool) -> None:
    definition = definition_of(name)
    for version in definition.versions:
        wanted = VALID * (5 if full_size else 1)
        documents = valid_documents(definition, version, wanted)
        assert len(documents) == wanted
        for group in in_rounds(definition, documents):
            store[name].delete_many({})
            assert [group[place] for place in refused(store, name, group)] == []
            found = {document["_id"]: document for document in store[name].find()}
            assert found == {document["_id"]: document for document in group}
    store[name].delete_many({})


@pytest.mark.parametrize("name", NAMES)
def test_invalid_documents_are_all_refused(store: Store, name: str, full_size: bool) -> None:
    definition = definition_of(name)
    valid = {version: valid_documents(definition, version, VALID) for version in definition.versions}
    others = {version: documents[0] for version, documents in valid.items()}
    wanted = INVALID * (4 if full_size else 1)
    for version, documents in valid.items():
        spoiled: dict[bytes, Spoiled] = {}
        largest_first = sorted(documents, key=lambda document: -len(encode(document)))
        for seed, document in enumerate(largest_first):
            found = spoiled_documents(definition, version, document, others, seed)
            spoiled |= {encode(one.document): one for one in found}
            if len(spoiled) >= wanted:
                break
        assert len(spoiled) >= wanted, f"only {len(spoiled)} different ones"
        tried = list(spoiled.values())
        places = refused(store, name, [dict(one.document) for one in tried])
        taken = [f"{one.how}: {one.document}" for place, one in enumerate(tried) if place not in places]
        store[name].delete_many({})
        assert not taken, f"version {version} takes {len(taken)}:\n" + "\n".join(taken)


def test_applying_again_changes_nothing_and_mends_what_was_taken_away(documents: Store) -> None:
    assert apply_collections() == []
    kept = example("sessions")
    documents["sessions"].insert_one(dict(kept))
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
    assert documents["sessions"].find_one() == kept


def test_indexes_that_no_file_names_are_dropped(documents: Store) -> None:
    documents["api_logs"].create_index([("path", 1)], name="somebodys")
    assert [change.drift for change in drift()] == ["api_logs: no file defines index somebodys"]
    assert apply_collections() == ["api_logs: index somebodys dropped"]
    assert drift() == []


def test_a_collection_that_no_file_names_is_told_and_left_alone(documents: Store) -> None:
    documents["somebodys_notes"].insert_one({"_id": 1})
    try:
        assert [change.drift for change in drift()] == ["somebodys_notes: no file defines this collection"]
        assert apply_collections() == []
        assert documents["somebodys_notes"].find_one() == {"_id": 1}
    finally:
        documents["somebodys_notes"].drop()


def test_a_new_schema_version_comes_without_touching_documents(documents: Store, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(FOLDER, older)
    text = (older / "sessions.yml").read_text()
    (older / "sessions.yml").write_text(text[: text.index("\n  2:\n")] + "\n")
    assert apply_collections(older) == ["sessions: validator changed"]
    first, second = example("sessions", 1), example("sessions", 2) | {"_id": "sess_2"}
    documents["sessions"].insert_one(dict(first))
    with pytest.raises(WriteError, match="failed validation"):
        documents["sessions"].insert_one(dict(second))

    assert apply_collections() == ["sessions: validator changed"]
    documents["sessions"].insert_one(dict(second))
    assert list(documents["sessions"].find().sort("schema_version", 1)) == [first, second]
    assert apply_collections() == []


def test_indexes_of_a_filled_collection_come_afterwards(documents: Store) -> None:
    name, before = "sessions", documents["sessions"].index_information()
    one = example(name) | {"merchant_id": "acct_1", "started_at": NOW}
    with indexes_afterwards(name):
        assert set(documents[name].index_information()) == {"_id_"}
        documents[name].insert_many({**one, "_id": f"sess_{number}"} for number in range(50))
    assert documents[name].index_information() == before
    found = documents[name].find({"merchant_id": "acct_1", "started_at": {"$lte": NOW}}).hint("by_merchant_and_start")
    assert len(list(found)) == 50
    with indexes_afterwards(name):  # it holds documents now, so its readers keep their index
        assert documents[name].index_information() == before


def test_indexes_come_back_after_an_error_in_the_load(documents: Store) -> None:
    before = documents["sessions"].index_information()
    with pytest.raises(WriteError), indexes_afterwards("sessions"):
        documents["sessions"].insert_one({"_id": "sess_1"})
    assert documents["sessions"].index_information() == before


def test_without_change_streams_the_loader_reads_by_an_index_of_its_own(
    documents: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("payments.systems.documents.collections.capabilities", lambda _: Capabilities(False, False))
        changes = apply_collections()
        assert "sessions: index by_written made" in changes
        assert not any("models" in change for change in changes), "it never lands"
        since = {"written_at": {"$gte": NOW}}
        plan = documents["sessions"].find(since).sort("written_at", 1).explain()["queryPlanner"]["winningPlan"]
        assert plan.get("inputStage", plan)["indexName"] == "by_written"
        assert drift() == []
    assert "sessions: index by_written dropped" in apply_collections()


def test_times_are_aware(documents: Store) -> None:
    documents["models"].insert_one(example("models"))
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

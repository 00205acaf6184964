"""Bringing the document store in line with the files that define its collections; documents are never touched."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pymongo.database import Database

from payments.systems.documents.capabilities import capabilities
from payments.systems.documents.client import database
from payments.systems.documents.definitions import FOLDER, CollectionDefinition, Index, collection_definitions

_GRIDFS = ("files", "chunks")
_IDENTITY = "store_identity"
_CURSOR = Index(name="by_written", keys={"written_at": 1}, serves="what was written since the last landing")


@dataclass(frozen=True)
class Change:
    """A difference between files and server: what it is, what mends it, and what to say when it is mended.

    ``make`` is None where only a person can decide: a collection that no file names may hold somebody's data.
    """

    drift: str
    done: str
    make: Callable[[], object] | None


def drift(folder: Path = FOLDER) -> list[Change]:
    """Return how the server differs from the files; empty when it does not."""
    store = database()
    existing = {found["name"]: found.get("options", {}) for found in store.list_collections()}
    definitions = collection_definitions(folder)
    changes: list[Change] = []
    for definition in definitions:
        changes += _changes(store, definition, existing.get(definition.collection))
    known = {definition.collection for definition in definitions} | {
        f"{definition.bucket}.{part}" for definition in definitions if definition.bucket for part in _GRIDFS
    }
    if _IDENTITY in known and store[_IDENTITY].find_one({"_id": "store"}) is None:
        changes.append(Change("the store has no identity", "the store got its identity", partial(_identify, store)))
    strangers = sorted(name for name in existing.keys() - known if not name.startswith("system."))
    return changes + [Change(f"{name}: no file defines this collection", "", None) for name in strangers]


def apply_collections(folder: Path = FOLDER) -> list[str]:
    """Create missing collections and indexes, bring validators in line, drop indexes that no file names.

    A new schema version changes the validator only: documents of both versions live side by side.

    Returns:
        What changed, one line each; empty when everything was in place.
    """
    done = []
    for change in drift(folder):
        if change.make is not None:
            change.make()
            done.append(change.done)
    return done


@contextmanager
def indexes_afterwards(name: str) -> Iterator[None]:
    """Let the body fill an empty collection without its indexes and build them at once afterwards, also after an error.

    The embedded server keeps an index up to date at four times the cost of building it. A collection that holds
    documents keeps its indexes. After a kill in the body ``apply_collections`` builds what is missing.
    """
    store = database()
    definition = next(found for found in collection_definitions() if found.collection == name)
    if store[name].find_one({}, {"_id": 1}) is None:
        for index in store[name].index_information().keys() & {index.name for index in _indexes(store, definition)}:
            store[name].drop_index(index)
    try:
        yield
    finally:
        for change in _index_changes(store, definition):
            if change.make is not None:
                change.make()


def _identify(store: Database[dict[str, Any]]) -> None:
    """Say once which store this is, so that a loader notices when another one stands in its place."""
    store[_IDENTITY].update_one(
        {"_id": "store"},
        {
            "$setOnInsert": {
                "store_id": f"st_{secrets.token_hex(16)}",
                "created_at": datetime.now(UTC),
                "schema_version": 1,
            }
        },
        upsert=True,
    )


def _changes(
    store: Database[dict[str, Any]], definition: CollectionDefinition, options: Mapping[str, Any] | None
) -> list[Change]:
    name = definition.collection
    rules: dict[str, Any] = {
        "validator": definition.validator,
        "validationLevel": "strict",
        "validationAction": "error",
    }
    if options is None:
        create = [Change(f"{name}: missing", f"{name}: created", lambda: store.create_collection(name, **rules))]
        return create + [_make_index(store, name, index, found=None) for index in _indexes(store, definition)]
    changes = []
    # A server tells only what differs from its own default, which is what the files want.
    found = {"validationLevel": "strict", "validationAction": "error", **options}
    if any(found.get(rule) != value for rule, value in rules.items()):
        change = Change(
            f"{name}: another validator",
            f"{name}: validator changed",
            lambda: store.command("collMod", name, **rules),
        )
        changes.append(change)
    return changes + _index_changes(store, definition)


def _index_changes(store: Database[dict[str, Any]], definition: CollectionDefinition) -> list[Change]:
    name = definition.collection
    present = store[name].index_information()
    indexes = _indexes(store, definition)
    wanted = {index.name for index in indexes}
    changes = [
        _make_index(store, name, index, present.get(index.name))
        for index in indexes
        if not _is_as_defined(present.get(index.name), index)
    ]
    for stray in sorted(present.keys() - wanted - {"_id_"}):
        drop = partial(store[name].drop_index, stray)
        changes.append(Change(f"{name}: no file defines index {stray}", f"{name}: index {stray} dropped", drop))
    return changes


def _indexes(store: Database[dict[str, Any]], definition: CollectionDefinition) -> tuple[Index, ...]:
    """Return the indexes of a collection on this server: without change streams its loader needs one more."""
    if not definition.is_landed or capabilities(store.client).change_streams:
        return definition.all_indexes
    return (*definition.all_indexes, _CURSOR)


def _is_as_defined(found: Mapping[str, Any] | None, index: Index) -> bool:
    if found is None:
        return False
    options = {"unique": False, "partialFilterExpression": None, "expireAfterSeconds": None}
    as_found = {option: found.get(option, default) for option, default in options.items()}
    as_wanted = {option: index.options.get(option, default) for option, default in options.items()}
    return list(found["key"]) == list(index.keys.items()) and as_found == as_wanted


def _make_index(store: Database[dict[str, Any]], name: str, index: Index, found: Mapping[str, Any] | None) -> Change:
    def make() -> None:
        if found is not None:
            store[name].drop_index(index.name)
        store[name].create_index(list(index.keys.items()), **index.options)

    what = "missing" if found is None else "differs"
    return Change(
        f"{name}: index {index.name} {what}",
        f"{name}: index {index.name} {'made' if found is None else 'made anew'}",
        make,
    )

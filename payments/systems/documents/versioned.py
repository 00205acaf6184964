"""Writes that late and repeated messages cannot spoil.

**Versions.** A document's ``version`` only grows. An upsert writes where the stored version is lower, inserts where
there is no document, and changes nothing otherwise. One conditional upsert would not do: where two writers insert at
once, the server answers a lost race and an old version with the same error (duplicate key). So an upsert is three
steps, each atomic in itself and repeated when another writer came between: change what is older; look at what is there;
insert. It needs neither transactions nor retryable writes, and may be sent again after any failure.

**Owners.** The file of a collection gives fields to owners. An upsert is the word of the main owner: it changes that
owner's fields only. What it says of other fields counts when the document is new, since the validator wants them.

What came from another owner, or late and says something else, is kept for review (:mod:`conflicts`).

**Removal.** A document that was removed on request leaves a tombstone, and no later message brings it back. One that is
gone because what it copies is gone leaves a tombstone with a version, and a higher version may bring it back.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Any, TypeVar

from pymongo import DeleteOne, ReplaceOne, UpdateOne, WriteConcern
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, WriteError

from payments.systems.documents.client import database
from payments.systems.documents.conflicts import conflict, keep_losers
from payments.systems.documents.definitions import CollectionDefinition, definition_of

Document = dict[str, Any]
Store = Database[Document]

DURABLE = WriteConcern(w="majority", j=True, wtimeout=10_000)
"""A write is acknowledged when a majority has it on disk, whatever the URI says."""
DOCUMENTS_A_BATCH = 1_000
ATTEMPTS = 20  # each further one means that another writer got through
_DUPLICATE_KEY = 11000


class Outcome(StrEnum):
    """What a write did: it wrote, came late, came again, or met a removed or missing document and changed nothing."""

    WRITTEN = "written"
    STALE = "stale"
    REPEATED = "repeated"
    REMOVED = "removed"
    MISSING = "missing"


@dataclass(frozen=True)
class Upsert:
    """A whole document (``_id``, ``version``, ``schema_version`` and its fields) of a collection that has versions."""

    collection: str
    document: Mapping[str, Any]


@dataclass(frozen=True)
class SetOwned:
    """Fields of one document, set by their owner; ``grows`` names the one of them that must become larger by it."""

    collection: str
    document_id: str
    owner: str
    fields: Mapping[str, Any]
    grows: str | None = None


@dataclass(frozen=True)
class Remove:
    """Documents that somebody asked to have removed; ``reason`` is a word such as ``erasure``."""

    collection: str
    ids: Sequence[str]
    reason: str


class ForeignFieldError(ValueError):
    """Fields that belong to another owner; ``owners`` gives the owner of each."""

    def __init__(self, step: SetOwned, owners: Mapping[str, str]) -> None:
        told = ", ".join(f"{field} ({owner})" for field, owner in sorted(owners.items()))
        super().__init__(f"Fields of {step.collection} that {step.owner} does not own: {told}.")
        self.owners = dict(owners)


Step = Upsert | SetOwned | Remove
_Thing = TypeVar("_Thing")


def upsert(collection: str, document: Mapping[str, Any]) -> Outcome:
    """Write a document unless it is older than what is stored: ``written``, ``stale``, ``repeated`` or ``removed``.

    Raises:
        ValueError: the collection has no versions, or the document a field that the collection does not have.
        pymongo.errors.WriteError: the validator refuses the document.
    """
    step = sound(Upsert(collection, document))
    return apply(durable(), step, None)


def upsert_many(collection: str, documents: Iterable[Mapping[str, Any]]) -> Counter[Outcome]:
    """Write many documents as :func:`upsert` does and count the outcomes; of one id the highest version wins.

    Raises as :func:`upsert` does; documents before and after the refused one may have been written.
    """
    store = durable()
    counts: Counter[Outcome] = Counter()
    for batch in batches(documents, DOCUMENTS_A_BATCH):
        newest: dict[str, Upsert] = {}
        for document in batch:
            step = Upsert(collection, document)
            sound(step)
            before = newest.get(document["_id"])
            if before is not None:
                is_same = before.document["version"] == document["version"]
                counts[Outcome.REPEATED if is_same else Outcome.STALE] += 1
            if before is None or before.document["version"] < document["version"]:
                newest[document["_id"]] = step
        counts += _upsert_batch(store, collection, newest)
    return counts


def set_owned(
    collection: str, document_id: str, owner: str, fields: Mapping[str, Any], grows: str | None = None
) -> Outcome:
    """Set fields of one document in the name of their owner; a document that does not exist is ``missing``.

    ``grows`` names one of the fields, such as ``outcome_at``: only a larger value (or the first one) is written, so
    that a late message cannot win. The main owner of a collection with versions always grows ``version``. What loses is
    kept for review.

    Raises:
        ForeignFieldError: a field belongs to another owner.
        ValueError: there is no such field.
        pymongo.errors.WriteError: the validator refuses a value.
    """
    asked = SetOwned(collection, document_id, owner, fields, grows)
    try:
        step = sound(asked)
    except ForeignFieldError as error:
        _keep_foreign(durable(), asked, error.owners)
        raise
    if not isinstance(step, SetOwned):
        raise AssertionError("a sound step is of the same kind")
    store = durable()
    outcome = apply(store, step, None)
    if outcome in (Outcome.STALE, Outcome.REPEATED):
        _keep_late(store, step)
    return outcome


def delete_copies(collection: str, versions: Mapping[str, int], reason: str) -> Counter[Outcome]:
    """Remove copies whose original is gone, each at the version of its end, and count the outcomes.

    A copy of that version or a higher one stays: ``repeated`` or ``stale``. The tombstone holds the version, so that no
    late message brings the copy back and a later one may. It is written first, and a removal that ended half-way is
    finished when it comes again. A document that somebody asked to remove stays ``removed``.
    """
    store = durable()
    counts: Counter[Outcome] = Counter()
    for ids in batches(versions, DOCUMENTS_A_BATCH):
        found = store[collection].find({"_id": {"$in": ids}}, {"version": 1})
        stored = {document["_id"]: document["version"] for document in found}
        stones = _tombstones(store, collection, ids)
        going: list[str] = []
        for document_id in ids:
            version, stone = versions[document_id], stones.get(document_id, 0)
            if stone is None:
                counts[Outcome.REMOVED] += 1
            elif stored.get(document_id, 0) >= version:
                counts[Outcome.REPEATED if stored[document_id] == version else Outcome.STALE] += 1
            elif document_id not in stored and stone >= version:
                counts[Outcome.REPEATED if stone == version else Outcome.STALE] += 1
            else:
                counts[Outcome.WRITTEN] += 1
                going.append(document_id)
        if going:
            _write_versioned_tombstones(store, collection, {each: versions[each] for each in going}, reason)
            store[collection].bulk_write(
                [DeleteOne({"_id": each, "version": {"$lt": versions[each]}}) for each in going], ordered=False
            )
    return counts


def insert_unless_removed(
    store: Store, collection: str, document: Mapping[str, Any], session: ClientSession | None = None
) -> bool:
    """Insert a document and return True, or return False when it was removed before and may not come back.

    Raises:
        pymongo.errors.DuplicateKeyError: there is one.
    """
    if _blocked(store, collection, {document["_id"]: document.get("version")}, session):
        return False
    store[collection].insert_one(dict(document), session=session)
    return session is not None or not withdraw_removed(store, collection, [document["_id"]])


def durable() -> Store:
    """Return the database, its writes acknowledged when a majority has them on disk."""
    return database().with_options(write_concern=DURABLE)


def sound(step: Step) -> Step:
    """Return the step, its moments at the precision of the store; raise ValueError when it may not be done."""
    definition = definition_of(step.collection)
    if isinstance(step, Remove):
        return step
    fields = step.document if isinstance(step, Upsert) else step.fields
    known = _fields(definition)
    if unknown := sorted(fields.keys() - known.keys() - ({"_id"} if isinstance(step, Upsert) else set())):
        raise ValueError(f"{step.collection} has no field {', '.join(unknown)}.")
    if isinstance(step, Upsert):
        if "version" not in known:
            raise ValueError(f"{step.collection} has no versions: its documents cannot be upserted.")
        if not {"_id", "version"} <= fields.keys():
            raise ValueError(f"A document of {step.collection} needs _id and version.")
        return Upsert(step.collection, _at_precision(fields))
    if foreign := {field: known[field] for field in fields if known[field] != step.owner}:
        raise ForeignFieldError(step, foreign)
    if step.owner == definition.owner and "version" in known and step.grows != "version":
        raise ValueError(f"{definition.owner} changes {step.collection} by a higher version only: let version grow.")
    if step.grows is not None and fields.get(step.grows) is None:
        raise ValueError(f"The field that grows, {step.grows}, has no value.")
    return SetOwned(step.collection, step.document_id, step.owner, _at_precision(fields), step.grows)


def _fields(definition: CollectionDefinition) -> dict[str, str]:
    """Return the owner of each field that a writer may set, over all schema versions."""
    names = {name for version in definition.versions.values() for name in version.properties}
    if definition.retention.days is not None:
        names.add("expire_at")
    return {name: definition.owners.get(name, definition.owner) for name in sorted({*names, "schema_version"})}


def _at_precision(fields: Mapping[str, Any]) -> Document:
    """Return the fields with top-level moments as the store keeps them (UTC, milliseconds), so that they compare."""
    return {
        name: value.astimezone(UTC).replace(microsecond=value.microsecond // 1000 * 1000)
        if isinstance(value, datetime)
        else value
        for name, value in fields.items()
    }


def _stamp(definition: CollectionDefinition) -> Document:
    return {"written_at": datetime.now(UTC)} if definition.is_landed else {}


def apply(store: Store, step: Step, session: ClientSession | None) -> Outcome:
    """Do one sound step; within a transaction a conflict is an error that the transaction is repeated for."""
    match step:
        case Upsert():
            return _upsert(store, step, session)
        case SetOwned():
            return _set_owned(store, step, session)
        case Remove():
            return _remove(store, step, session)


def _upsert(store: Store, step: Upsert, session: ClientSession | None) -> Outcome:
    document_id, version = step.document["_id"], step.document["version"]
    collection = store[step.collection]
    lost: DuplicateKeyError | None = None
    for _ in range(ATTEMPTS):
        older = {"_id": document_id, "version": {"$lt": version}}
        if collection.update_one(older, update_of(step), session=session).matched_count:
            return Outcome.WRITTEN
        found = collection.find_one({"_id": document_id}, {"version": 1}, session=session)
        if found is None:
            try:
                is_new = insert_unless_removed(store, step.collection, new_document(step), session)
            except DuplicateKeyError as error:
                if session is not None:  # the whole transaction is repeated
                    raise
                lost = error  # another writer inserted it: is theirs older?
                continue
            return Outcome.WRITTEN if is_new else Outcome.REMOVED
        if found["version"] >= version:
            return Outcome.REPEATED if found["version"] == version else Outcome.STALE
    # Not a race: the key that is taken is one of another index.
    raise lost or AssertionError(f"{step.collection}/{document_id} changes too often")


def new_document(step: Upsert) -> Document:
    """Return what an upsert inserts where there is no document."""
    return {**step.document, **_stamp(definition_of(step.collection))}


def update_of(step: Upsert) -> Document:
    """Return the update that makes the main owner's fields those of the document, and leaves the others."""
    definition = definition_of(step.collection)
    own = [name for name, owner in _fields(definition).items() if owner == definition.owner]
    gone = {name: "" for name in own if name not in step.document}
    present = {name: step.document[name] for name in own if name in step.document}
    return {"$set": {**present, **_stamp(definition)}, **({"$unset": gone} if gone else {})}


def _set_owned(store: Store, step: SetOwned, session: ClientSession | None) -> Outcome:
    collection = store[step.collection]
    change = {"$set": {**step.fields, **_stamp(definition_of(step.collection))}}
    if step.grows is None:
        changed = collection.update_one({"_id": step.document_id}, change, session=session)
        return Outcome.WRITTEN if changed.matched_count else Outcome.MISSING
    value = step.fields[step.grows]
    older = {"_id": step.document_id, "$or": [{step.grows: None}, {step.grows: {"$lt": value}}]}
    for _ in range(ATTEMPTS):
        if collection.update_one(older, change, session=session).matched_count:
            return Outcome.WRITTEN
        found = collection.find_one({"_id": step.document_id}, {step.grows: 1}, session=session)
        if found is None:
            return Outcome.MISSING
        # Otherwise the document was made in between.
        if found.get(step.grows) is not None and found[step.grows] >= value:
            return Outcome.REPEATED if found[step.grows] == value else Outcome.STALE
    raise AssertionError(f"{step.collection}/{step.document_id} changes too often")


def _keep_foreign(store: Store, step: SetOwned, owners: Mapping[str, str]) -> None:
    """Keep what an owner said of fields of others; a document that does not exist has no fields to meet."""
    found = store[step.collection].find_one({"_id": step.document_id}, {"version": 1})
    if found is not None:
        lost = step.owner, None if step.grows is None else step.fields.get(step.grows)
        keep_losers(
            store,
            [
                conflict((step.collection, step.document_id, field), "foreign", lost, (owner, found.get("version")))
                for field, owner in owners.items()
            ],
        )


def _keep_late(store: Store, step: SetOwned) -> None:
    """Keep what came late, or again, and says something else than what is stored."""
    found = store[step.collection].find_one({"_id": step.document_id}, dict.fromkeys(step.fields, 1))
    if found is not None and step.grows is not None:
        lost, kept = (step.owner, step.fields[step.grows]), (step.owner, found.get(step.grows))
        keep_losers(
            store,
            [
                conflict((step.collection, step.document_id, field), "stale", lost, kept)
                for field, value in step.fields.items()
                if field != step.grows and found.get(field) != value
            ],
        )


def _remove(store: Store, step: Remove, session: ClientSession | None) -> Outcome:
    """Write the tombstones, then remove: a loader that sees the document gone finds out why."""
    stones = [_tombstone(step.collection, document_id, step.reason) for document_id in step.ids]
    store["deletions"].bulk_write(
        [ReplaceOne({"_id": stone["_id"]}, stone, upsert=True) for stone in stones], session=session
    )
    gone = store[step.collection].delete_many({"_id": {"$in": list(step.ids)}}, session=session)
    return Outcome.WRITTEN if gone.deleted_count else Outcome.MISSING


def _write_versioned_tombstones(store: Store, collection: str, versions: Mapping[str, int], reason: str) -> None:
    """Write tombstones unless there is one of a higher version or, from a request, without one."""
    writes = []
    for document_id, version in versions.items():
        stone = _tombstone(collection, document_id, reason) | {"version": version}
        writes.append(ReplaceOne({"_id": stone["_id"], "version": {"$lt": version}}, stone, upsert=True))
    try:
        store["deletions"].bulk_write(writes, ordered=False)
    except BulkWriteError as error:  # the id is taken: by a stone that outweighs this one
        if any(failure["code"] != _DUPLICATE_KEY for failure in error.details["writeErrors"]):
            raise


def _tombstone(collection: str, document_id: str, reason: str) -> Document:
    now = datetime.now(UTC)
    return {
        "_id": f"{collection}/{document_id}",
        "collection": collection,
        "document_id": document_id,
        "reason": reason,
        "deleted_at": now,
        "expire_at": definition_of("deletions").retention.end(now),
        "schema_version": 1,
    }


def _tombstones(
    store: Store, collection: str, ids: Iterable[str], session: ClientSession | None = None
) -> dict[str, int | None]:
    """Return the documents of these that have a tombstone, with its version: None when somebody asked for it."""
    return {
        stone["document_id"]: stone.get("version")
        for batch in batches(ids, DOCUMENTS_A_BATCH)
        for stone in store["deletions"].find(
            {"_id": {"$in": [f"{collection}/{document_id}" for document_id in batch]}},
            {"document_id": 1, "version": 1},
            session=session,
        )
    }


def removed_on_request(
    store: Store, collection: str, ids: Iterable[str], session: ClientSession | None = None
) -> set[str]:
    """Return which of the documents have a tombstone: somebody asked to remove them, or what they copy is gone."""
    return set(_tombstones(store, collection, ids, session))


def _blocked(
    store: Store, collection: str, versions: Mapping[str, int | None], session: ClientSession | None = None
) -> set[str]:
    """Return which of new documents may not be inserted: those that their tombstone outweighs."""
    return {
        document_id
        for document_id, stone in _tombstones(store, collection, versions, session).items()
        if stone is None or (version := versions[document_id]) is None or version <= stone
    }


def withdraw_removed(store: Store, collection: str, ids: Sequence[str]) -> bool:
    """Remove those of the documents that their tombstone outweighs; return whether there may be any."""
    stones = _tombstones(store, collection, ids)
    if asked := sorted(document_id for document_id, stone in stones.items() if stone is None):
        store[collection].delete_many({"_id": {"$in": asked}})
    gone = [DeleteOne({"_id": each, "version": {"$lte": stone}}) for each, stone in stones.items() if stone is not None]
    return bool(store[collection].bulk_write(gone, ordered=False).deleted_count if gone else 0) or bool(asked)


def _upsert_batch(store: Store, collection: str, newest: Mapping[str, Upsert]) -> Counter[Outcome]:
    """Write documents of different ids: those that exist in one command, new ones in another, races one by one."""
    counts: Counter[Outcome] = Counter()
    stored = {
        found["_id"]: found["version"]
        for found in store[collection].find({"_id": {"$in": list(newest)}}, {"version": 1})
    }
    changed, fresh = [], []
    for document_id, step in newest.items():
        version = step.document["version"]
        if document_id not in stored:
            fresh.append(step)
        elif stored[document_id] < version:
            changed.append(step)
        else:
            counts[Outcome.REPEATED if stored[document_id] == version else Outcome.STALE] += 1
    removed = _blocked(store, collection, {step.document["_id"]: step.document["version"] for step in fresh})
    counts[Outcome.REMOVED] += len(removed)
    fresh = [step for step in fresh if step.document["_id"] not in removed]
    written, raced = _insert_batch(store, collection, fresh)
    counts[Outcome.WRITTEN] += written
    if changed:
        updates = [
            UpdateOne({"_id": step.document["_id"], "version": {"$lt": step.document["version"]}}, update_of(step))
            for step in changed
        ]
        try:
            matched = store[collection].bulk_write(updates, ordered=False).matched_count
        except BulkWriteError as error:
            failure = error.details["writeErrors"][0]
            raise WriteError(failure["errmsg"], failure["code"], failure) from None
        counts[Outcome.WRITTEN] += matched
        # The server says how many were overtaken, not which: they had a higher version, which is late either way.
        counts[Outcome.STALE] += len(changed) - matched
    for step in raced:
        counts[_upsert(store, step, None)] += 1
    return counts


def _insert_batch(store: Store, collection: str, steps: Sequence[Upsert]) -> tuple[int, list[Upsert]]:
    """Insert new documents; return how many, and those that another writer inserted first."""
    if not steps:
        return 0, []
    raced: list[Upsert] = []
    try:
        store[collection].insert_many([new_document(step) for step in steps], ordered=False)
    except BulkWriteError as error:
        failures = error.details["writeErrors"]
        if other := next((failure for failure in failures if failure["code"] != _DUPLICATE_KEY), None):
            raise WriteError(other["errmsg"], other["code"], other) from None
        raced = [steps[failure["index"]] for failure in failures]
    withdraw_removed(store, collection, [step.document["_id"] for step in steps])
    return len(steps) - len(raced), raced


def ids_of(step: Step) -> list[str]:
    """Return the ids of the documents that a step touches."""
    match step:
        case Upsert():
            return [step.document["_id"]]
        case SetOwned():
            return [step.document_id]
        case Remove():
            return list(step.ids)


def batches(things: Iterable[_Thing], size: int) -> Iterator[list[_Thing]]:
    """Yield the things in lists of at most ``size``."""
    rest = iter(things)
    while batch := list(islice(rest, size)):
        yield batch

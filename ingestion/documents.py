"""The document collections: read as a whole first, then what changed; both land through the one landing writer.

The first reading goes by id, in batches that are each complete for their range of ids, so that a killed load goes on
where its last committed batch ended. Afterwards only changes are read (:mod:`ingestion.document_changes`). How far a
collection was read stands in the commit record of the batch: data and progress become visible in one step.

Only the fields of the contract are asked for: text that a person wrote (``text_encrypted``) never leaves the store. A
document in which its writer has left a ``refusal`` (rule and reason) goes to quarantine with that.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict
from pymongo.database import Database
from pymongo.errors import PyMongoError

from ingestion.contracts import Entity, entities
from ingestion.document_changes import Document, Driver, LostMarkError, driver, tombstones
from ingestion.document_records import DOCUMENTS_A_BATCH, fields_of, stage
from ingestion.landing import Landing, LandingReport, Staged, landing
from ingestion.raw_zone import Pin, Position, text_literal
from payments.errors import UsageError
from payments.systems.documents.client import database
from payments.systems.documents.definitions import definition_of

SOURCE = "documents"
DOCUMENTS_A_LANDING = 200_000
"""How many documents a batch takes before it is committed: what a kill can cost."""


class Progress(BaseModel):
    """How far a collection was read: the store it was read from, and the mark from which changes are due.

    ``after``: the last id of a reading that has not come to its end; None when it has.
    """

    model_config = ConfigDict(frozen=True)

    store_id: str
    mark: str
    after: str | None = None


@dataclass
class Reading:
    """One call of :func:`land_documents`: the store, and readings of whole collections that are under way.

    ``restart``: collections to read as a whole whatever is known of them; ``was_whole``: the batch holds such a part.
    """

    store: Database[Document]
    driver: Driver
    store_id: str
    restart: set[str] = field(default_factory=set)
    cursors: dict[str, Iterator[Document]] = field(default_factory=dict)
    was_whole: bool = False


def land_documents(collections: Sequence[str] | None = None, *, full: bool = False) -> list[LandingReport]:
    """Land collections (all of the contract by default): what changed, or as a whole where that was never done.

    ``full`` reads everything again and compares. One report a batch. Raises ``UsageError`` for a collection that the
    contract does not name, or when the store cannot be reached or is lost on the way: the next call goes on.
    """
    known = entities(SOURCE)
    if unknown := sorted(set(collections or ()) - set(known)):
        raise UsageError(f"No such collection: {', '.join(unknown)} (there are {', '.join(known)}).")
    store = database()
    pending = list(collections or known)
    reading = Reading(store, driver(store), _store_id(store), set(pending) if full else set())
    reports = []
    while pending:
        with document_batch("changes", _origin(store), reading.store_id) as batch:
            room = DOCUMENTS_A_LANDING
            while pending and room > 0:
                try:
                    is_done, read = _land_collection(batch, reading, known[pending[0]], room)
                except PyMongoError as error:
                    reason = str(error).splitlines()[0]
                    raise UsageError(
                        f"Collection {pending[0]} cannot be read ({reason}): check the document store, then land again."
                    ) from error
                room -= read
                if not is_done:
                    break
                pending.pop(0)
            batch.kind = "snapshot" if reading.was_whole else "changes"
            reading.was_whole = False
            reports.append(batch.commit())
    return reports


@contextmanager
def document_batch(kind: str, origin: str, store_id: str | None = None) -> Iterator[Landing]:
    """Open the next batch of this source, at a position after all that has landed; None is the store of the last batch.

    A position is the seconds of the clock, shifted to the place where a cluster time has them; it never goes back.
    """
    with landing(SOURCE, kind, origin) as batch:
        batch.source_at = datetime.now(UTC)
        last = batch.pin.last_of(SOURCE)
        reached = Position(1, 0, 0, 0) if last is None else last.reached
        before = store_id if last is None else last.parameters.get("store_id")
        batch.epoch = reached.epoch + (store_id is not None and store_id != before)
        batch.source_position = max(reached.commit_lsn + 1, int(time.time()) << 32)
        batch.parameters["store_id"] = store_id or before or ""
        yield batch


def _land_collection(batch: Landing, reading: Reading, entity: Entity, room: int) -> tuple[bool, int]:
    """Land the next part of a collection; return whether it was the last one, and how many documents it had."""
    progress = _progress(batch.pin, entity.name)
    is_known = progress is not None and progress.store_id == reading.store_id and entity.name not in reading.restart
    if progress is not None and is_known and progress.after is None:
        try:
            return _land_changes(batch, reading, entity, progress, room)
        except LostMarkError:
            is_known = False
    return _land_whole(batch, reading, entity, progress if is_known else None, room)


def _land_whole(
    batch: Landing, reading: Reading, entity: Entity, progress: Progress | None, room: int
) -> tuple[bool, int]:
    """Land the documents with the next ids; what has landed within their range and is not among them is gone."""
    collection = reading.store[entity.name]
    reading.restart.discard(entity.name)
    reading.was_whole = True
    if progress is None:
        progress = Progress(store_id=reading.store_id, mark=reading.driver.mark(collection), after="")
        reading.cursors.pop(entity.name, None)
    if entity.name not in reading.cursors:
        asked = _asked_for(entity)
        found = collection.find(_ids_after(progress.after), asked, batch_size=DOCUMENTS_A_BATCH).sort("_id", 1)
        reading.cursors[entity.name] = _read_ahead(found)
    seen = _Seen()
    stage(batch, entity, seen.watching(islice(reading.cursors[entity.name], room)))
    is_last = seen.count < room
    reached = seen.last_id or progress.after
    batch.land(
        Staged(
            entity,
            "staged",
            is_complete=True,
            above=progress.after or None,
            up_to=None if is_last else reached,
            on_request=tuple(tombstones(collection)),
        )
    )
    _note(batch, entity, progress.model_copy(update={"after": None if is_last else reached}))
    return is_last, seen.count


def _land_changes(batch: Landing, reading: Reading, entity: Entity, progress: Progress, room: int) -> tuple[bool, int]:
    collection = reading.store[entity.name]
    changes = reading.driver.changes(
        collection, progress.mark, fields_of(entity), room, partial(_expired, batch, entity)
    )
    stage(batch, entity, changes.documents.values())
    batch.land(Staged(entity, "staged", removed=tuple(changes.removed), on_request=tuple(changes.on_request)))
    _note(batch, entity, progress.model_copy(update={"mark": changes.mark}))
    return changes.is_all, len(changes.documents)


def _read_ahead(documents: Iterable[Document]) -> Iterator[Document]:
    """Yield the documents while the server already prepares the next batch of them."""
    unread = iter(documents)
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(lambda: list(islice(unread, DOCUMENTS_A_BATCH)))
        while batch := coming.result():
            coming = reader.submit(lambda: list(islice(unread, DOCUMENTS_A_BATCH)))
            yield from batch


@dataclass
class _Seen:
    """How many documents went by, and the last id among those that are texts."""

    count: int = 0
    last_id: str | None = None

    def watching(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            self.count += 1
            if isinstance(document["_id"], str):
                self.last_id = document["_id"]
            yield document


def _asked_for(entity: Entity) -> dict[str, bool] | None:
    """Return the projection that keeps in the store what does not land; None where all fields of a collection do.

    The embedded server takes twice as long for a projection.
    """
    definition = definition_of(entity.name)
    declared = {name for version in definition.versions for name in definition.properties(version)}
    wanted = fields_of(entity)
    return None if declared - {"written_at"} <= set(wanted) else dict.fromkeys(wanted, True)


def _ids_after(after: str | None) -> dict[str, Any]:
    """Return the query for ids after one. Ids that are no text sort elsewhere: they are read, and refused, again."""
    return {"$or": [{"_id": {"$gt": after}}, {"_id": {"$not": {"$type": "string"}}}]} if after else {}


def _expired(batch: Landing, entity: Entity, moment: datetime) -> list[str]:
    """Return the ids that have landed, are not gone, and whose time was over at a moment."""
    if "expire_at" not in entity.column_names or (landed := batch.latest(entity)) is None:
        return []
    is_over = f"expire_at <= {text_literal(moment.isoformat())}::timestamptz"
    rows = batch.con.execute(
        f"""select "{entity.key[0]}" from ({landed}) where _op not in ('d', 'x') and {is_over}"""
    ).fetchall()
    return [row[0] for row in rows]


def _progress(pin: Pin, collection: str) -> Progress | None:
    """Return how far a collection was read, as the newest commit that tells of it says."""
    name = _parameter(collection)
    commit = pin.last_of(SOURCE, name)
    return None if commit is None else Progress.model_validate_json(commit.parameters[name])


def _note(batch: Landing, entity: Entity, progress: Progress) -> None:
    batch.parameters[_parameter(entity.name)] = progress.model_dump_json()


def _parameter(collection: str) -> str:
    return f"progress of {collection}"


def _store_id(store: Database[Document]) -> str:
    """Return which store this is; one that was never set up has no identity and is taken as the same."""
    found = store["store_identity"].find_one({"_id": "store"})
    return "" if found is None else str(found["store_id"])


def _origin(store: Database[Document]) -> str:
    host, port = store.client.address or ("", 0)
    return f"mongodb://{host}:{port}/{store.name}"

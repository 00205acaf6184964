"""What changed in a collection since a mark: by change stream, or by a cursor on a server that has none.

Both hold for a crash at any moment: a mark is kept in the commit record of the batch that holds everything before it.
A mark is taken before a collection is read as a whole, so that what changes meanwhile is seen, perhaps twice; the
landing writer compares by content and takes nothing twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from bson import json_util
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure

from payments.systems.documents.capabilities import capabilities
from payments.systems.documents.versioned import DOCUMENTS_A_BATCH, batches, removed_on_request

Document = dict[str, Any]
OVERLAP = timedelta(seconds=60)
"""How far the cursor reads back: writers' clocks differ, and a write takes time to become visible."""
_IDLE_MILLISECONDS = 100
_LOST = (9, 260, 280, 286)
"""Codes of a server that cannot resume: a token it cannot read, or one older than its log (MongoDB's error codes)."""


class LostMarkError(Exception):
    """The server no longer knows what came after a mark: the collection has to be read as a whole again."""


@dataclass
class Changes:
    """What changed: the latest documents by id, the ids that are gone, and the mark that this reaches.

    ``is_all``: nothing more is there now. ``on_request``: which of the ids that are gone somebody asked to remove.
    """

    documents: dict[str, Document] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    on_request: set[str] = field(default_factory=set)
    mark: str = ""
    is_all: bool = True


class Driver(Protocol):
    """How changes are found on a kind of server."""

    def mark(self, collection: Collection[Document]) -> str:
        """Return a mark of now; everything written later is found from it."""

    def changes(
        self,
        collection: Collection[Document],
        mark: str,
        fields: Sequence[str],
        most: int,
        expired: Callable[[datetime], Sequence[str]],
    ) -> Changes:
        """Return what changed since a mark, of about ``most`` documents at a time.

        ``expired`` gives the landed ids whose time was over at a moment. Raises LostMarkError.
        """


def driver(store: Database[Document]) -> Driver:
    """Return the change stream driver where the server has change streams, else the cursor driver."""
    return ChangeStreamDriver() if capabilities(store.client).change_streams else CursorDriver()


class ChangeStreamDriver:
    """The mark is a resume token. Deletions are events; a request is told from retention by its tombstone."""

    def mark(self, collection: Collection[Document]) -> str:
        """Return the token of the end of the log."""
        with collection.watch(max_await_time_ms=_IDLE_MILLISECONDS) as stream:
            if stream.resume_token is None:
                stream.try_next()
            return json_util.dumps(stream.resume_token)

    def changes(
        self,
        collection: Collection[Document],
        mark: str,
        fields: Sequence[str],
        most: int,
        expired: Callable[[datetime], Sequence[str]],  # noqa: ARG002 (events tell)
    ) -> Changes:
        """Return the latest state of each document that events name; see :class:`Driver`."""
        # What is not asked for, such as text that a person wrote, does not leave the store.
        asked = {
            "operationType": 1,
            "documentKey": 1,
            "clusterTime": 1,
            **{f"fullDocument.{name}": 1 for name in fields},
        }
        found = Changes(is_all=False)
        events = 0
        try:
            with collection.watch(
                [{"$project": asked}],
                full_document="updateLookup",
                resume_after=json_util.loads(mark),
                max_await_time_ms=_IDLE_MILLISECONDS,
            ) as stream:
                while events < most:
                    event = stream.try_next()
                    if event is None:
                        found.is_all = True
                        break
                    events += 1
                    _take(found, event)
                found.mark = json_util.dumps(stream.resume_token)
        except OperationFailure as error:
            if error.code not in _LOST:
                raise
            raise LostMarkError(str(error).partition(", full error")[0]) from error
        found.on_request = removed_on_request(collection.database, collection.name, found.removed)
        return found


class CursorDriver:
    """The mark is a moment: ``written_at`` from a little before it on is read again.

    Removals on request are found by their tombstones. A document whose time is over and that is no longer there has
    expired. What somebody removes past both is seen only when the collection is read as a whole.
    """

    def mark(self, collection: Collection[Document]) -> str:  # noqa: ARG002 (the clock of the writers, not the server's)
        """Return now."""
        return datetime.now(UTC).isoformat()

    def changes(
        self,
        collection: Collection[Document],
        mark: str,
        fields: Sequence[str],
        most: int,
        expired: Callable[[datetime], Sequence[str]],
    ) -> Changes:
        """Return what was written, removed or expired since the mark less the overlap; see :class:`Driver`."""
        reached = self.mark(collection)
        since = datetime.fromisoformat(mark) - OVERLAP
        projection = dict.fromkeys((*fields, "written_at"), True)
        found = Changes()
        # In order of the cursor, so that a batch that is full ends at a moment from which the next one goes on.
        written = collection.find({"written_at": {"$gte": since}}, projection).sort("written_at", 1)
        last = None
        for document in written:
            moment = document.pop("written_at")
            if len(found.documents) >= most and moment != last and moment - OVERLAP > since:
                found.is_all, reached = False, moment.isoformat()
                break
            last = moment
            found.documents[str(document["_id"])] = document
        asked = tombstones(collection, since)
        gone = _absent(collection, {*asked, *expired(datetime.now(UTC))})
        found.removed, found.on_request, found.mark = gone - found.documents.keys(), asked & gone, reached
        return found


def tombstones(collection: Collection[Document], since: datetime | None = None) -> set[str]:
    """Return which documents of a collection somebody asked to remove, from a moment on or (None) ever."""
    written = {} if since is None else {"deleted_at": {"$gte": since}}
    found = collection.database["deletions"].find({**written, "collection": collection.name}, {"document_id": 1})
    return {str(tombstone["document_id"]) for tombstone in found}


def _take(found: Changes, event: Document) -> None:
    """Let an event count: the latest of a document's events stands."""
    match event["operationType"]:
        case "insert" | "update" | "replace":
            # A looked-up document may be newer than its event, or gone: then its deletion follows.
            document = event.get("fullDocument")
            if document:
                key = str(event["documentKey"]["_id"])
                found.documents[key] = {"_id": event["documentKey"]["_id"], **document}
                found.removed.discard(key)
        case "delete":
            key = str(event["documentKey"]["_id"])
            found.documents.pop(key, None)
            found.removed.add(key)
        case "drop" | "rename" | "dropDatabase" | "invalidate":
            raise LostMarkError(f"the collection went through {event['operationType']}")


def _absent(collection: Collection[Document], ids: set[str]) -> set[str]:
    there = {
        str(document["_id"])
        for batch in batches(sorted(ids), DOCUMENTS_A_BATCH)
        for document in collection.find({"_id": {"$in": batch}}, {"_id": 1})
    }
    return ids - there

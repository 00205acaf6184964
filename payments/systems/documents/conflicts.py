"""The losers where two writers met, kept for review: whose value of which field, at which version, against whose.

Values are not kept, since a value may be of a person; the winner stands in its document, the loser with its owner. The
id says what lost, so that a loser that comes again is one document.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import DESCENDING, UpdateOne
from pymongo.database import Database

from payments.systems.documents.client import database
from payments.systems.documents.definitions import definition_of

COLLECTION = "conflicts"
DAYS_LOOKED_AT = 30
Version = int | datetime | None


@dataclass(frozen=True)
class Conflict:
    """A value that lost.

    ``rule``: it came late (``stale``), from an owner whose field it is not (``foreign``), met a version that nothing
    has given yet (``ahead``), or the validator refuses it (``refused``). A version is what the field grows by.
    """

    collection: str
    document_id: str
    field: str
    rule: str
    lost_owner: str
    lost_version: Version
    kept_owner: str | None
    kept_version: Version
    found_at: datetime


def conflict(
    place: tuple[str, str, str], rule: str, lost: tuple[str, Version], kept: tuple[str | None, Version]
) -> Conflict:
    """Return a conflict found now: (collection, document, field), then (owner, version) of loser and winner."""
    return Conflict(*place, rule, *lost, *kept, datetime.now(UTC))


def keep_losers(store: Database[dict[str, Any]], losers: Iterable[Conflict]) -> int:
    """Keep what lost, and return how many were not known yet."""
    writes = [UpdateOne({"_id": _id(loser)}, {"$setOnInsert": _document(loser)}, upsert=True) for loser in losers]
    return store[COLLECTION].bulk_write(writes, ordered=False).upserted_count if writes else 0


def recent_conflicts(days: int = DAYS_LOOKED_AT) -> list[Conflict]:
    """Return what lost in the last days, the newest first."""
    since = datetime.now(UTC) - timedelta(days=days)
    found = database()[COLLECTION].find({"found_at": {"$gte": since}}).sort("found_at", DESCENDING)
    return [Conflict(**{name: document[name] for name in Conflict.__dataclass_fields__}) for document in found]


def _id(loser: Conflict) -> str:
    version = loser.lost_version
    told = version.isoformat() if isinstance(version, datetime) else version
    return f"{loser.collection}/{loser.document_id}/{loser.field}/{loser.rule}/{loser.lost_owner}/{told}"


def _document(loser: Conflict) -> dict[str, Any]:
    fields = {name: getattr(loser, name) for name in Conflict.__dataclass_fields__}
    return {**fields, "expire_at": definition_of(COLLECTION).retention.end(loser.found_at), "schema_version": 1}

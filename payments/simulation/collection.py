"""A collection to write, and what documents of several collections have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from payments.simulation.arrays import Ints
from payments.simulation.ids import IdSpace

Document = dict[str, Any]
# Makes the documents of a range of places from their ids; None where a document may not be written any more.
Maker = Callable[[slice, Sequence[str]], list[Document | None]]


@dataclass(frozen=True)
class Collection:
    """A collection to write: its name, how many documents, and how to make the ids and the documents of a range.

    Ids grow with the place, so that a range of places is one of ids.
    """

    name: str
    count: int
    ids: Callable[[int, int], Sequence[str]]
    make: Maker

    def documents(self, start: int, stop: int) -> list[Document | None]:
        """Return the documents of a range of places."""
        return self.make(slice(start, stop), self.ids(start, stop))


def collection(name: str, space: IdSpace, count: int, make: Maker) -> Collection:
    """Return a collection whose ids are those of a space, counted by place."""
    return Collection(name, count, lambda start, stop: space.strings(np.arange(start, stop)), make)


def written(schema_version: int = 1) -> Document:
    """Return the fields that every landed document has beside its own."""
    return {"written_at": datetime.now(UTC), "schema_version": schema_version}


def held(schema_version: int = 1) -> Document:
    """Return those of a document with a retention: a history lies in the past, so it is on hold and never expires."""
    return {"expire_at": None, **written(schema_version)}


def milliseconds(moments: Ints) -> list[Any]:
    """Moments as (naive, UTC) datetimes at the precision of the document store."""
    found: list[Any] = (moments // 1000).astype("datetime64[ms]").tolist()
    return found


def named(names: Sequence[str], codes: Ints) -> list[str | None]:
    """Name each code; a negative code is None."""
    return [names[code] if code >= 0 else None for code in codes.tolist()]

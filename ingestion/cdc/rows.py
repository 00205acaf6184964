"""The messages of rows (insert, update, delete), decoded many at once: a step a column, not a step a value.

All messages of a table stand in one buffer. Since a value says its length, the place of a column is known once the one
before it was read; that is done for all rows together. What comes out are Arrow columns of text.

Layout: PostgreSQL 18 documentation, section 54.9 (Insert, Update, Delete, TupleData). Before the message stands the
header of XLogData (section 54.4): ``w``, the LSN of the message, the end of the log, and a moment; 25 bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingestion.cdc.pgoutput import MalformedMessageError, Relation

HEADER = 25
"""The bytes of XLogData before the message itself."""
_KIND, _OID = HEADER, HEADER + 1
_TUPLE = HEADER + 5

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cells:
    """A column of tuples: for each row the kind (n null, u unchanged, t text) and where its text stands."""

    kinds: Bytes
    starts: Ints
    lengths: Ints

    def where(self, chosen: Flags, other: "Cells") -> "Cells":
        """Return these cells where ``chosen``, else the other ones."""
        return Cells(
            np.where(chosen, self.kinds, other.kinds),
            np.where(chosen, self.starts, other.starts),
            np.where(chosen, self.lengths, other.lengths),
        )

    def text(self, buffer: Bytes) -> "pa.Array[Any]":
        """Return the cells as text; what is not text is null."""
        is_text = self.kinds == _TEXT
        lengths = np.where(is_text, self.lengths, 0)
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        places = np.repeat(self.starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        bitmap = np.packbits(is_text, bitorder="little")
        return text_array(len(lengths), bitmap, offsets.astype(np.int32), buffer[places])


@dataclass(frozen=True)
class Rows:
    """Messages of rows of one table, in their order: ``ops`` is I, U or D, ``lsns`` where each stands in the log.

    ``new`` and ``old`` are columns in the order of the relation; a row has an old tuple where ``has_old``: its key, or
    all of it when ``is_whole``. Of a deleted row ``new`` is null. ``places`` are the rows among all messages decoded.
    """

    relation: Relation
    buffer: Bytes
    places: Ints
    lsns: Ints
    ops: Bytes
    new: list[Cells]
    old: list[Cells]
    has_old: Flags
    is_whole: Flags


_NULL, _UNCHANGED, _TEXT = (ord(letter) for letter in "nut")
_DELETE = ord("D")
_NEW, _OLD_ROW = (ord(letter) for letter in "NO")


def text_array(count: int, bitmap: Bytes | None, offsets: npt.NDArray[np.int32], text: Bytes) -> "pa.Array[Any]":
    """Return text as Arrow keeps it: which values are there (None: all), where each begins, and all."""
    buffers = [None if part is None else pa.py_buffer(part.tobytes()) for part in (bitmap, offsets, text)]
    return pa.Array.from_buffers(pa.string(), count, buffers)


def decode_rows(messages: Sequence[bytes], relations: Mapping[int, Relation]) -> list[Rows]:
    """Return the rows of messages (with their headers) by table.

    Raises:
        MalformedMessageError: a message is not what the protocol says.
    """
    # Behind the last message, so that a look past its end finds zeros and no error of its own.
    buffer = np.frombuffer(b"".join((*messages, bytes(8))), np.uint8)
    lengths = np.fromiter(map(len, messages), np.int64, len(messages))
    ends = np.cumsum(lengths)
    starts = ends - lengths
    oids = _integers(buffer, starts + _OID, 4)
    try:
        return [
            _rows(relations[int(oid)], buffer, places, starts[places], ends[places])
            for oid in np.unique(oids)
            for places in [np.flatnonzero(oids == oid)]
        ]
    except (KeyError, IndexError) as error:
        raise MalformedMessageError(f"no rows of a known table: {error}") from error


def _rows(relation: Relation, buffer: Bytes, places: Ints, starts: Ints, ends: Ints) -> Rows:
    ops, marks = buffer[starts + _KIND], buffer[starts + _TUPLE]
    has_old, is_whole = marks != _NEW, marks == _OLD_ROW
    has_new = ops != _DELETE
    count = len(relation.columns)
    nothing = Cells(
        np.full(len(places), _NULL, np.uint8), np.zeros(len(places), np.int64), np.zeros(len(places), np.int64)
    )

    cursors = starts + _TUPLE + 1
    old = [nothing] * count
    if has_old.any():
        old, cursors = _tuples(buffer, cursors, has_old, count, nothing)
        # After the old tuple of an update stands the mark of the new one.
        then_new = has_old & has_new
        _require(buffer[cursors[then_new]] == _NEW, relation)
        cursors = np.where(then_new, cursors + 1, cursors)
    new = [nothing] * count
    if has_new.any():
        new, cursors = _tuples(buffer, cursors, has_new, count, nothing)
    _require(cursors == ends, relation)
    lsns = _integers(buffer, starts + 1, 8)
    return Rows(relation, buffer, places, lsns, ops, new, old, has_old, is_whole)


def _tuples(buffer: Bytes, cursors: Ints, chosen: Flags, count: int, nothing: Cells) -> tuple[list[Cells], Ints]:
    """Read a tuple of the chosen rows; return its columns and where each row goes on."""
    at = np.where(chosen, cursors, 0)
    _require_count(_integers(buffer, at[chosen], 2), count)
    at = at + 2
    columns = []
    for _ in range(count):
        kinds = buffer[np.minimum(at, len(buffer) - 8)]
        is_text = (kinds == _TEXT) & chosen
        lengths = np.zeros(len(at), np.int64)
        lengths[is_text] = _integers(buffer, at[is_text] + 1, 4)
        columns.append(Cells(kinds, at + 5, lengths).where(chosen, nothing))
        at = at + 1 + np.where(is_text, 4 + lengths, 0)
        if not np.isin(kinds[chosen], (_NULL, _UNCHANGED, _TEXT)).all():
            raise MalformedMessageError("a value is neither null, unchanged nor text")
    return columns, np.where(chosen, at, cursors)


def _require_count(counts: Ints, expected: int) -> None:
    if (counts != expected).any():
        raise MalformedMessageError(f"a row has other than the {expected} columns of its table")


def _require(holds: Flags, relation: Relation) -> None:
    if not holds.all():
        raise MalformedMessageError(f"a row of {relation.schema}.{relation.table} is not as long as it says")


def _integers(buffer: Bytes, at: Ints, width: int) -> Ints:
    """Return big-endian integers of some bytes."""
    found = np.zeros(len(at), np.int64)
    for place in range(width):
        found = (found << 8) | buffer[at + place]
    return found

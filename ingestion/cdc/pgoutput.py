"""The messages of PostgreSQL's logical replication plug-in ``pgoutput``, protocol version 1.

Layouts: PostgreSQL 18 documentation, sections 54.5 (streaming replication protocol) and 54.9 (logical replication
message formats). Integers are big-endian, names end with a zero byte, moments are microseconds since 2000-01-01 UTC, a
log sequence number (LSN) is 64 bits wide. Values come as text; ``None`` is null and :data:`UNCHANGED` a large value
that its row kept (TOAST), which the server does not send again.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class _Unchanged(Enum):
    UNCHANGED = "unchanged"


UNCHANGED: Final = _Unchanged.UNCHANGED
Value = str | None | _Unchanged
Row = tuple[Value, ...]


@dataclass(frozen=True)
class RelationColumn:
    """A column of a relation: whether it is part of the replica identity, and the oid of its type."""

    name: str
    is_key: bool
    type_oid: int


@dataclass(frozen=True)
class Relation:
    """A table as it is from here on; ``identity`` is d (key), n (nothing), f (full row) or i (an index)."""

    oid: int
    schema: str
    table: str
    identity: str
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True)
class Begin:
    """The start of a transaction, known to commit at ``commit_lsn``."""

    commit_lsn: int
    committed_at: datetime
    xid: int


@dataclass(frozen=True)
class Commit:
    """Its end; ``end_lsn`` is where the log goes on after it."""

    commit_lsn: int
    end_lsn: int
    committed_at: datetime


@dataclass(frozen=True)
class Insert:
    """A new row."""

    relation_oid: int
    new: Row


@dataclass(frozen=True)
class Update:
    """A changed row; ``old`` is its former key (``is_whole_row`` false) or row, None when the key stayed."""

    relation_oid: int
    old: Row | None
    is_whole_row: bool
    new: Row


@dataclass(frozen=True)
class Delete:
    """A removed row: its key, or all of it."""

    relation_oid: int
    old: Row
    is_whole_row: bool


@dataclass(frozen=True)
class Truncate:
    """Tables emptied at once."""

    relation_oids: tuple[int, ...]


@dataclass(frozen=True)
class Emitted:
    """A message of ``pg_logical_emit_message``; one that is not transactional stands outside of transactions."""

    is_transactional: bool
    lsn: int
    prefix: str
    content: bytes


@dataclass(frozen=True)
class Other:
    """A message that carries no data: the origin of a transaction, or a type."""

    kind: str


Message = Relation | Begin | Commit | Insert | Update | Delete | Truncate | Emitted | Other


class MalformedMessageError(Exception):
    """Bytes that are no message of this protocol version."""


def decode(payload: bytes) -> Message:
    """Return the message that the payload of one XLogData message holds.

    Raises:
        MalformedMessageError: it ends too early, or is of a kind that version 1 does not have.
    """
    try:
        return _decode(_Reader(payload))
    except (struct.error, IndexError, ValueError) as error:
        raise MalformedMessageError(f"no pgoutput message: {payload[:40]!r} ({error})") from error


def _decode(reader: "_Reader") -> Message:
    kind = reader.letter()
    if kind not in _KINDS:
        raise ValueError(f"unknown kind {kind!r}")
    return _KINDS[kind](reader)


def _begin(reader: "_Reader") -> Begin:
    return Begin(reader.int64(), reader.moment(), reader.int32())


def _commit(reader: "_Reader") -> Commit:
    reader.int8()  # flags, none are defined
    return Commit(reader.int64(), reader.int64(), reader.moment())


def _insert(reader: "_Reader") -> Insert:
    oid = reader.int32()
    reader.expect("N")
    return Insert(oid, reader.row())


def _delete(reader: "_Reader") -> Delete:
    oid, kind = reader.int32(), reader.letter()
    return Delete(oid, reader.row(), is_whole_row=kind == "O")


def _truncate(reader: "_Reader") -> Truncate:
    count = reader.int32()
    reader.int8()  # cascade, restart identity
    return Truncate(tuple(reader.int32() for _ in range(count)))


def _emitted(reader: "_Reader") -> Emitted:
    is_transactional, lsn, prefix = reader.int8() == 1, reader.int64(), reader.name()
    return Emitted(is_transactional, lsn, prefix, reader.bytes(reader.int32()))


def _relation(reader: "_Reader") -> Relation:
    oid, schema, table, identity = reader.int32(), reader.name(), reader.name(), reader.letter()
    columns = []
    for _ in range(reader.int16()):
        is_key, name, type_oid = reader.int8() == 1, reader.name(), reader.int32()
        reader.int32()  # type modifier
        columns.append(RelationColumn(name, is_key, type_oid))
    # The server leaves the schema pg_catalog empty.
    return Relation(oid, schema or "pg_catalog", table, identity, tuple(columns))


def _update(reader: "_Reader") -> Update:
    oid, kind = reader.int32(), reader.letter()
    if kind == "N":
        return Update(oid, None, is_whole_row=False, new=reader.row())
    old = reader.row()
    reader.expect("N")
    return Update(oid, old, is_whole_row=kind == "O", new=reader.row())


_KINDS: dict[str, Callable[["_Reader"], Message]] = {
    "B": _begin,
    "C": _commit,
    "R": _relation,
    "I": _insert,
    "U": _update,
    "D": _delete,
    "T": _truncate,
    "M": _emitted,
    "O": lambda _: Other("O"),
    "Y": lambda _: Other("Y"),
}


class _Reader:
    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def bytes(self, count: int) -> bytes:
        found = self._payload[self._at : self._at + count]
        if len(found) < count:
            raise IndexError("it ends too early")
        self._at += count
        return found

    def letter(self) -> str:
        return self.bytes(1).decode("ascii")

    def expect(self, letter: str) -> None:
        if (found := self.letter()) != letter:
            raise ValueError(f"{letter} expected, not {found}")

    def int8(self) -> int:
        return self.bytes(1)[0]

    def int16(self) -> int:
        return int(struct.unpack(">H", self.bytes(2))[0])

    def int32(self) -> int:
        return int(struct.unpack(">I", self.bytes(4))[0])

    def int64(self) -> int:
        return int(struct.unpack(">Q", self.bytes(8))[0])

    def moment(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.int64())

    def name(self) -> str:
        end = self._payload.index(0, self._at)
        found = self._payload[self._at : end].decode()
        self._at = end + 1
        return found

    def row(self) -> Row:
        return tuple(self._value() for _ in range(self.int16()))

    def _value(self) -> Value:
        match self.letter():
            case "n":
                return None
            case "u":
                return UNCHANGED
            case "t":
                return self.bytes(self.int32()).decode()
            case kind:
                raise ValueError(f"unknown kind of value {kind!r}")

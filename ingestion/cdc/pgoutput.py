"""The messages of PostgreSQL's logical replication plug-in ``pgoutput``, protocol version 1, but for those of rows.

Layouts: PostgreSQL 18 documentation, sections 54.5 (streaming replication protocol) and 54.9 (logical replication
message formats). Integers are big-endian, names end with a zero byte, moments are microseconds since 2000-01-01 UTC, a
log sequence number (LSN) is 64 bits wide. Messages of rows come in great numbers: ``rows`` decodes many at once.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


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
class Truncate:
    """Tables emptied at once."""

    relation_oids: tuple[int, ...]


@dataclass(frozen=True)
class Other:
    """A message that carries no data: the origin of a transaction, a type, or an emitted message."""

    kind: str


Message = Relation | Begin | Commit | Truncate | Other


class MalformedMessageError(Exception):
    """Bytes that are no message of this protocol version."""


def decode(payload: bytes) -> Message:
    """Return the message that the payload of one XLogData message holds.

    Raises:
        MalformedMessageError: it ends too early, or is of a kind that version 1 does not have.
    """
    try:
        reader = _Reader(payload)
        kind = reader.letter()
        if kind not in _KINDS:
            raise ValueError(f"unknown kind {kind!r}")
        return _KINDS[kind](reader)
    except (struct.error, IndexError, ValueError) as error:
        raise MalformedMessageError(f"no pgoutput message: {payload[:40]!r} ({error})") from error


def _begin(reader: "_Reader") -> Begin:
    return Begin(reader.int64(), reader.moment(), reader.int32())


def _commit(reader: "_Reader") -> Commit:
    reader.int8()  # flags, none are defined
    return Commit(reader.int64(), reader.int64(), reader.moment())


def _truncate(reader: "_Reader") -> Truncate:
    count = reader.int32()
    reader.int8()  # cascade, restart identity
    return Truncate(tuple(reader.int32() for _ in range(count)))


def _relation(reader: "_Reader") -> Relation:
    oid, schema, table, identity = reader.int32(), reader.name(), reader.name(), reader.letter()
    columns = []
    for _ in range(reader.int16()):
        is_key, name, type_oid = reader.int8() == 1, reader.name(), reader.int32()
        reader.int32()  # type modifier
        columns.append(RelationColumn(name, is_key, type_oid))
    # The server leaves the schema pg_catalog empty.
    return Relation(oid, schema or "pg_catalog", table, identity, tuple(columns))


_KINDS: dict[str, Callable[["_Reader"], Message]] = {
    "B": _begin,
    "C": _commit,
    "R": _relation,
    "T": _truncate,
    "M": lambda _: Other("M"),
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

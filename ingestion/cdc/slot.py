"""Reading a replication slot: whole transactions in the order of their commits, acknowledged when the caller says so.

The server remembers what was acknowledged (``confirmed_flush_lsn``), and that can go back when it crashes: what was
acknowledged is then sent again. So the caller keeps a position of its own and gives it as the start. Nothing is
acknowledged but what the caller names: a driver that confirms idle log by itself would hide that the slot was moved.

Messages of the streaming replication protocol: PostgreSQL 18 documentation, section 54.4.
"""

import select
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn

from ingestion.cdc.changes import Keys, RowMessage, Transaction, changes_of
from ingestion.cdc.pgoutput import Begin, Commit, Delete, Insert, Relation, Truncate, Update, decode
from payments.errors import UsageError

_STATUS_SECONDS = 5.0
_EPOCH_SECONDS = 946_684_800  # 2000-01-01, from which the protocol counts


@dataclass(frozen=True)
class Slot:
    """A replication slot of a database and the publication that it sends."""

    dsn: str
    name: str
    publication: str


@dataclass
class SlotReader:
    """An open slot, read by one process at a time: the server sees to that.

    ``wal_end`` is how far the server had read its log when it last spoke: up to there all transactions have come.
    """

    connection: PGconn
    epoch: int
    keys: Keys
    wal_end: int = 0
    _relations: dict[int, Relation] = field(default_factory=dict)
    _begin: Begin | None = None
    _messages: list[tuple[int, RowMessage]] = field(default_factory=list)
    _acknowledged: int = 0
    _status_at: float = field(default_factory=time.monotonic)

    def next(self, wait_seconds: float) -> Transaction | None:
        """Return the next transaction, or None when none has ended within the time.

        Raises:
            psycopg.OperationalError: the connection or the server is gone.
        """
        until = time.monotonic() + wait_seconds
        while True:
            count, message = self.connection.get_copy_data(1)
            if time.monotonic() - self._status_at > _STATUS_SECONDS:
                self._tell(must_answer=False)
            if count > 0:
                transaction = self._take(bytes(message))
                if transaction is not None:
                    return transaction
            elif count < 0:
                raise psycopg.OperationalError(self.connection.get_error_message() or "the server ended the stream")
            elif (left := until - time.monotonic()) > 0:
                select.select([self.connection.socket], [], [], min(left, _STATUS_SECONDS))
                self.connection.consume_input()
            else:
                return None

    def acknowledge(self, end_lsn: int) -> None:
        """Let the server forget what stands before ``end_lsn``: call it when that is durable elsewhere."""
        self._acknowledged = max(self._acknowledged, end_lsn)
        self._tell(must_answer=False)

    def ask(self) -> None:
        """Ask the server how far it has read: its answer moves ``wal_end`` while :meth:`next` waits."""
        self._tell(must_answer=True)

    @property
    def is_between_transactions(self) -> bool:
        """Whether no transaction has begun that has not ended."""
        return self._begin is None

    def _tell(self, *, must_answer: bool) -> None:
        clock = round((time.time() - _EPOCH_SECONDS) * 1_000_000)
        done = self._acknowledged
        self.connection.put_copy_data(b"r" + struct.pack(">QQQqB", done, done, done, clock, must_answer))
        self.connection.flush()
        self._status_at = time.monotonic()

    def _take(self, message: bytes) -> Transaction | None:
        if message[:1] == b"k":
            wal_end, _, must_answer = struct.unpack(">QQB", message[1:18])
            self.wal_end = max(self.wal_end, wal_end)
            if must_answer:
                self._tell(must_answer=False)
            return None
        lsn, wal_end, _ = struct.unpack(">QQQ", message[1:25])
        self.wal_end = max(self.wal_end, wal_end)
        return self._decoded(lsn, message[25:])

    def _decoded(self, lsn: int, payload: bytes) -> Transaction | None:
        decoded = decode(payload)
        match decoded:
            case Relation(oid=oid):
                self._relations[oid] = decoded
            case Begin():
                self._begin, self._messages = decoded, []
            case Insert() | Update() | Delete() | Truncate():
                self._messages.append((lsn, decoded))
            case Commit(commit_lsn, end_lsn, committed_at):
                begin, self._begin = self._begin, None
                changes = changes_of(self.epoch, commit_lsn, self._messages, self._relations, self.keys)
                self._messages = []
                return Transaction(0 if begin is None else begin.xid, commit_lsn, end_lsn, committed_at, tuple(changes))
        return None


@contextmanager
def open_slot(slot: Slot, start_lsn: int, epoch: int, keys: Keys) -> Iterator[SlotReader]:
    """Open a slot from a position on; 0 is where the server stands.

    Raises:
        UsageError: the slot is missing, lost, or read by somebody else.
    """
    options = "-c timezone=UTC -c datestyle=ISO"
    conninfo = make_conninfo(slot.dsn, replication="database", options=options, application_name="payments stream")
    connection = pq.PGconn.connect(conninfo.encode())
    try:
        statement = sql.SQL("START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {})").format(
            sql.Identifier(slot.name),
            sql.SQL(f"{start_lsn >> 32:X}/{start_lsn & 0xFFFFFFFF:X}"),
            sql.Literal(f'"{slot.publication}"'),
        )
        if connection.status != pq.ConnStatus.OK:
            raise UsageError(f"PostgreSQL cannot be reached for replication: {_reason(connection)}.")
        if connection.exec_(statement.as_bytes()).status != pq.ExecStatus.COPY_BOTH:
            raise UsageError(f"The replication slot {slot.name} cannot be read: {_reason(connection)}.")
        yield SlotReader(connection, epoch, keys)
    finally:
        connection.finish()


def _reason(connection: PGconn) -> str:
    return connection.get_error_message().strip().splitlines()[0].removeprefix("ERROR:").strip()

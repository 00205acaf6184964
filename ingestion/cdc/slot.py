"""Reading a replication slot: whole transactions in the order of their commits, acknowledged when the caller says so.

The server remembers what was acknowledged (``confirmed_flush_lsn``), and that can go back when it crashes: what was
acknowledged is then sent again. So the caller keeps a position of its own and gives it as the start. Nothing is
acknowledged but what the caller names: a driver that confirms idle log by itself would hide that the slot was moved.

Messages of the streaming replication protocol: PostgreSQL 18 documentation, section 54.4.
"""

import select
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn

from ingestion.cdc.batches import EVENT_COLUMNS, ChangeTables, LogBatch
from ingestion.cdc.changes import Transactions, change_table, truncation
from ingestion.cdc.pgoutput import Begin, Commit, Relation, Truncate, decode
from ingestion.cdc.rows import HEADER, Ints, decode_rows
from ingestion.cdc.schemas import TableView
from ingestion.contracts import Column, Entity
from ingestion.oltp import lsn_text
from ingestion.raw_zone import Position
from payments.errors import UnreachableError, UsageError
from payments.systems.oltp.connection import last_error
from payments.systems.processes import wait_until

PIECE_MESSAGES = 50_000
PIECE_BYTES = 32 * 1024 * 1024
IDLE_BYTES = 16 * 1024 * 1024
_STATUS_SECONDS = 5.0
_END_SECONDS = 5.0
_ASK_SECONDS = 0.01
TAKE_OVER_SECONDS = 5.0  # the server takes a moment to notice that a reader was killed
_EPOCH_SECONDS = 946_684_800  # 2000-01-01, from which the protocol counts
_WAL_DATA, _KEEPALIVE = ord("w"), ord("k")
_ROW_KINDS = frozenset(b"IUD")

OUTBOX = ("ops", "outbox")
EVENTS = Entity("oltp", "outbox", ("merchant_id", "event_id"), tuple(Column(name, "text") for name in EVENT_COLUMNS))
"""The outbox as an entity: it is carried to the broker, and never lands."""

Views = Callable[[Relation], tuple[Entity, TableView] | None]
"""Tells how a table is read, or None when nobody wants it; asked again whenever a table changed."""


@dataclass(frozen=True)
class Slot:
    """A replication slot of a database and the publication that it sends."""

    dsn: str
    name: str
    publication: str


@dataclass
class SlotReader:
    """An open slot, read by one process at a time: the server sees to that.

    ``reached`` is where the log stands behind the batches returned; ``wal_end`` how far the server had read its log
    when it last spoke: up to there all transactions have come.
    """

    connection: PGconn
    epoch: int
    reached: int
    views: Views
    tables: ChangeTables
    wal_end: int = 0
    _acknowledged: int = 0
    _told: int = 0
    _told_at: float = field(default_factory=time.monotonic)
    _relations: dict[int, Relation] = field(default_factory=dict)
    _wanted: dict[int, tuple[Entity, TableView] | None] = field(default_factory=dict)
    _begin: Begin | None = None
    _messages: list[bytes] = field(default_factory=list)
    _bytes: int = 0
    _begins: list[Begin] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _last_lsn: int = -1
    _last_turn: int = 0
    _is_given_up: bool = False

    def collect(self, seconds: float, rows: int, target: int | None = None) -> LogBatch | None:
        """Return the transactions that end within the time, no more than about ``rows`` changes; None when none does.

        A transaction that has begun is waited for, unless the reader is given up. With a target it is not the time that
        ends a batch, but that the server has read so far. A batch without changes tells that the server read on over
        what others wrote: who lands it lets the server forget.

        Raises:
            psycopg.OperationalError: the connection or the server is gone.
        """
        until = time.monotonic() + seconds
        start, end, count = self.reached, None, 0
        while True:
            if self._is_given_up:
                return None
            left = _ASK_SECONDS if target is not None else until - time.monotonic()
            if self._begin is None and (left <= 0 or self._pending >= rows or self.has_read(target)):
                break
            if target is not None and self._begin is None and time.monotonic() - self._told_at > _ASK_SECONDS:
                self._tell(must_answer=True)
            message = self._receive(max(left, 0.01))
            if message is not None:
                self.reached, end, count = message.end_lsn, message, count + 1
        if end is None:
            if self.wal_end < self.reached + IDLE_BYTES:
                return None
            self.reached = self.wal_end
            return LogBatch(self.epoch, start, self.reached, datetime.fromtimestamp(0, UTC), 0, {})
        self._decode()
        tables = self.tables.take()
        events = tables.pop(EVENTS.name, None)
        if events is not None:
            events = events.select([*EVENT_COLUMNS, "_position"])
        return LogBatch(self.epoch, start, end.end_lsn, end.committed_at, count, tables, events)

    def acknowledge(self, end_lsn: int) -> None:
        """Let the server forget what stands before ``end_lsn``: call it, from any thread, when that is durable.

        The server is told by the next :meth:`collect`, or when the slot is closed.
        """
        self._acknowledged = max(self._acknowledged, end_lsn)

    def give_up(self) -> None:
        """Let a :meth:`collect` of another thread return soon, and none after it return anything."""
        self._is_given_up = True

    def end(self) -> None:
        """End the stream in order: the server has heard of all that was acknowledged, and the slot is free.

        A server that takes too long is left to end it alone.
        """
        connection = self.connection
        self._tell(must_answer=False)
        connection.put_copy_end()
        connection.flush()
        until = time.monotonic() + _END_SECONDS
        # The server frees the slot behind the end of the copy, and then says that the command is complete.
        for is_over in (self._copy_is_over, self._command_is_over):
            while not is_over():
                if (left := until - time.monotonic()) < 0:
                    return
                select.select([connection.socket], [], [], left)
                connection.consume_input()

    def _copy_is_over(self) -> bool:
        """Pass over what has come of the log."""
        while (count := self.connection.get_copy_data(1)[0]) > 0:
            pass
        return count < 0

    def _command_is_over(self) -> bool:
        while not self.connection.is_busy():
            if self.connection.get_result() is None:
                return True
        return False

    def has_read(self, target: int | None) -> bool:
        """Say whether every transaction that committed before a place of the log has come."""
        return target is not None and self._begin is None and self.wal_end >= target

    @property
    def _pending(self) -> int:
        return self.tables.rows + len(self._messages)

    def _receive(self, seconds: float) -> Commit | None:
        """Take what has come, or wait for it; return at the end of a transaction, or when nothing more is there."""
        connection = self.connection
        self._tell_what_is_new()
        while True:
            count, data = connection.get_copy_data(1)
            if count > 0:
                message = bytes(data)
                if message[0] == _WAL_DATA and message[HEADER] in _ROW_KINDS:
                    if self._begin is not None:
                        self._messages.append(message)
                        self._bytes += count
                        if len(self._messages) >= PIECE_MESSAGES or self._bytes >= PIECE_BYTES:
                            self._decode()
                elif (commit := self._take(message)) is not None:
                    return commit
            elif count < 0:
                raise psycopg.OperationalError(connection.get_error_message() or "the server ended the stream")
            else:
                readable, _, _ = select.select([connection.socket], [], [], min(seconds, _STATUS_SECONDS))
                if not readable:
                    return None
                connection.consume_input()
                seconds = 0.0

    def _take(self, message: bytes) -> Commit | None:
        if message[0] == _KEEPALIVE:
            wal_end, _, must_answer = struct.unpack(">QQB", message[1:18])
            self.wal_end = max(self.wal_end, wal_end)
            if must_answer:
                self._tell(must_answer=False)
            return None
        lsn, wal_end, _ = struct.unpack(">QQQ", message[1:HEADER])
        self.wal_end = max(self.wal_end, wal_end)
        decoded = decode(message[HEADER:])
        match decoded:
            case Begin():
                if not self._messages:
                    self._last_lsn = -1  # nothing of this transaction came before
                self._begin = decoded
                self._begins.append(decoded)
                self._starts.append(len(self._messages))
            case Relation(oid=oid):
                if self._relations.get(oid) != decoded:
                    self._decode()  # what came before has the old columns
                self._relations[oid] = decoded
                self._wanted[oid] = self.views(decoded)
            case Truncate(oids) if self._begin is not None:
                self._decode()
                for n, wanted in enumerate(filter(None, (self._wanted[oid] for oid in oids))):
                    # A change is known by its position, also among those of other tables.
                    position = Position(self.epoch, self._begin.commit_lsn, lsn, n)
                    self.tables.add(wanted[0].name, truncation(wanted[0], position, self._begin))
            case Commit():
                self._begin = None
                return decoded
        return None

    def _decode(self) -> None:
        """Decode the messages of rows that have come, and note which transaction goes on."""
        if self._messages:
            transactions = Transactions(self.epoch, self._begins, self._starts)
            found = decode_rows(self._messages, self._relations)
            turns = self._turns(
                np.concatenate([rows.lsns for rows in found])[
                    np.argsort(np.concatenate([rows.places for rows in found]))
                ],
                transactions,
            )
            for rows in found:
                wanted = self._wanted[rows.relation.oid]
                if wanted is not None:
                    entity, view = wanted
                    table = change_table(entity, view, rows, turns[rows.places], transactions)
                    self.tables.add(entity.name, table)
            self._tell_what_is_new()  # a large transaction may take longer than the server waits for a word
        self._messages, self._bytes = [], 0
        self._begins = [] if self._begin is None else [self._begin]
        self._starts = [] if self._begin is None else [0]

    def _turns(self, lsns: Ints, transactions: Transactions) -> Ints:
        """Count for each message those before it that share its LSN; a piece goes on where the one before ended."""
        of = transactions.of(np.arange(len(lsns)))
        is_first = np.ones(len(lsns), bool)
        is_first[1:] = (lsns[1:] != lsns[:-1]) | (of[1:] != of[:-1])
        places = np.arange(len(lsns))
        turns = places - np.maximum.accumulate(np.where(is_first, places, 0))
        if lsns[0] == self._last_lsn:  # a rare cut between rows of one COPY
            run = int(np.argmax(is_first[1:])) + 1 if is_first[1:].any() else len(lsns)
            turns[:run] += self._last_turn + 1
        self._last_lsn, self._last_turn = int(lsns[-1]), int(turns[-1])
        return turns

    def _tell_what_is_new(self) -> None:
        if self._acknowledged > self._told or time.monotonic() - self._told_at > _STATUS_SECONDS:
            self._tell(must_answer=False)

    def _tell(self, *, must_answer: bool) -> None:
        clock = round((time.time() - _EPOCH_SECONDS) * 1_000_000)
        done = self._acknowledged
        self.connection.put_copy_data(b"r" + struct.pack(">QQQqB", done, done, done, clock, must_answer))
        self.connection.flush()
        self._told, self._told_at = done, time.monotonic()


@contextmanager
def open_slot(slot: Slot, start_lsn: int, epoch: int, views: Views, folder: Path) -> Iterator[SlotReader]:
    """Open a slot from a place of the log on; ``folder`` is for what exceeds the memory.

    Raises:
        UnreachableError: the server does not answer.
        UsageError: the slot is missing, lost, or read by somebody else.
    """
    options = "-c timezone=UTC -c datestyle=ISO -c client_encoding=UTF8"
    conninfo = make_conninfo(slot.dsn, replication="database", options=options, application_name="payments stream")
    connection = pq.PGconn.connect(conninfo.encode())
    try:
        statement = sql.SQL("START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {})").format(
            sql.Identifier(slot.name),
            sql.SQL(lsn_text(start_lsn)),
            sql.Literal(f'"{slot.publication}"'),
        )
        if connection.status != pq.ConnStatus.OK:
            raise UnreachableError(f"PostgreSQL cannot be reached for replication: {last_error(connection)}.")
        if not wait_until(lambda: _starts(connection, statement), TAKE_OVER_SECONDS):
            raise UsageError(f"The replication slot {slot.name} cannot be read: {last_error(connection)}.")
        reader = SlotReader(connection, epoch, start_lsn, views, ChangeTables(folder))
        try:
            yield reader
        finally:
            with suppress(psycopg.OperationalError):  # it is gone
                reader.end()
    finally:
        connection.finish()


def _starts(connection: PGconn, statement: sql.Composable) -> bool:
    """Start the stream and return True; return False while somebody reads the slot. Any other refusal is final."""
    if connection.exec_(statement.as_bytes()).status == pq.ExecStatus.COPY_BOTH:
        return True
    if "is active for PID" in connection.get_error_message():
        return False
    raise UsageError(f"The replication slot cannot be read: {last_error(connection)}.")

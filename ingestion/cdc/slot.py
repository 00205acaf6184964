"""Reading a replication slot: whole transactions in the order of their commits, acknowledged when the caller says so.

The server remembers what was acknowledged (``confirmed_flush_lsn``), and that can go back when it crashes: what was
acknowledged is then sent again. So the caller keeps a position of its own and gives it as the start.
"""

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg2
from psycopg2.extras import LogicalReplicationConnection, ReplicationCursor, ReplicationMessage

from ingestion.cdc.changes import Keys, RowMessage, Transaction, changes_of
from ingestion.cdc.pgoutput import Begin, Commit, Delete, Insert, Relation, Truncate, Update, decode
from payments.errors import UsageError

_STATUS_SECONDS = 5.0


@dataclass
class SlotReader:
    """An open slot. ``wal_end`` is how far the server's log had grown when it last said so."""

    cursor: ReplicationCursor
    epoch: int
    keys: Keys
    wal_end: int = 0
    _relations: dict[int, Relation] = field(default_factory=dict)
    _begin: Begin | None = None
    _messages: list[tuple[int, RowMessage]] = field(default_factory=list)
    _acknowledged: int = 0
    _status_at: float = field(default_factory=time.monotonic)

    def next(self, wait_seconds: float) -> Transaction | None:
        """Return the next transaction, or None when none has ended within the time. Raises psycopg2.Error."""
        until = time.monotonic() + wait_seconds
        while True:
            message = self.cursor.read_message()
            self._report()
            if message is None:
                left = until - time.monotonic()
                if left <= 0:
                    return None
                select.select([self.cursor], [], [], min(left, _STATUS_SECONDS))
                continue
            transaction = self._take(message)
            if transaction is not None:
                return transaction

    def acknowledge(self, end_lsn: int) -> None:
        """Let the server forget what stands before ``end_lsn``: call it when that is durable elsewhere."""
        self._acknowledged = max(self._acknowledged, end_lsn)
        self.cursor.send_feedback(flush_lsn=self._acknowledged, reply=False, force=True)
        self._status_at = time.monotonic()

    @property
    def is_between_transactions(self) -> bool:
        """Whether no transaction has begun that has not ended."""
        return self._begin is None

    def _report(self) -> None:
        if time.monotonic() - self._status_at > _STATUS_SECONDS:
            self.cursor.send_feedback(flush_lsn=self._acknowledged, reply=False, force=True)
            self._status_at = time.monotonic()

    def _take(self, message: ReplicationMessage) -> Transaction | None:
        self.wal_end = max(self.wal_end, message.wal_end)
        decoded = decode(message.payload)
        match decoded:
            case Relation(oid=oid):
                self._relations[oid] = decoded
            case Begin():
                self._begin, self._messages = decoded, []
            case Insert() | Update() | Delete() | Truncate():
                self._messages.append((message.data_start, decoded))
            case Commit(commit_lsn, end_lsn, committed_at):
                begin, self._begin = self._begin, None
                changes = changes_of(self.epoch, commit_lsn, self._messages, self._relations, self.keys)
                self._messages = []
                return Transaction(0 if begin is None else begin.xid, commit_lsn, end_lsn, committed_at, tuple(changes))
        return None


@dataclass(frozen=True)
class Slot:
    """A replication slot of a database and the publication that it sends."""

    dsn: str
    name: str
    publication: str


@contextmanager
def open_slot(slot: Slot, start_lsn: int, epoch: int, keys: Keys) -> Iterator[SlotReader]:
    """Open a slot from a position on; 0 is where the server stands.

    Raises:
        UsageError: the slot is missing, lost, or read by somebody else.
    """
    connection = psycopg2.connect(
        slot.dsn, connection_factory=LogicalReplicationConnection, options="-c timezone=UTC -c datestyle=ISO"
    )
    try:
        cursor = connection.cursor()
        try:
            cursor.start_replication(
                slot_name=slot.name,
                decode=False,
                start_lsn=start_lsn,
                options={"proto_version": "1", "publication_names": f'"{slot.publication}"'},
            )
        except psycopg2.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"The replication slot {slot.name} cannot be read: {reason}.") from error
        yield SlotReader(cursor, epoch, keys)
    finally:
        connection.close()

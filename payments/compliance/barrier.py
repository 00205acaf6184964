"""A barrier: a place of the operational store's log, and the store exactly as it stood there, under any traffic.

A logical slot that is being made tells from which place of the log it will read, and exports the snapshot that belongs
to it: exactly the transactions that committed before. The slot is temporary and is dropped as soon as the snapshot is
taken over. A server that gives no such slot is read in a repeatable-read transaction, whose place in the log is known
only as exactly as the store is quiet.
"""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from ingestion.oltp import SnapshotPoint, lsn_text, repeatable_read, snapshot_point
from payments.systems.oltp.connection import connect, dsn, last_error

_WAIT = "10s"
"""How long a transaction that is open may keep the slot from being made, before the barrier does without one."""


@dataclass(frozen=True)
class Barrier:
    """The operational store as it stood at ``point.lsn``: what ``connection`` reads; ``doubt`` says why not exactly."""

    connection: psycopg.Connection
    point: SnapshotPoint
    doubt: str | None = None

    @property
    def place(self) -> str:
        """The place of the log as PostgreSQL writes it."""
        return lsn_text(self.point.lsn)


@contextmanager
def barrier() -> Iterator[Barrier]:
    """Yield the store at a barrier, within one read-only transaction. Raises ``UsageError`` when it is not there."""
    with connect(autocommit=True) as connection, ExitStack() as stack:
        server = snapshot_point(connection)
        try:
            with _exported_snapshot() as (lsn, snapshot):
                stack.enter_context(repeatable_read(connection, snapshot))
            found = Barrier(connection, replace(server, lsn=lsn))
        except NoSlotError as error:
            stack.enter_context(repeatable_read(connection))
            after = snapshot_point(connection).lsn + 1  # what the snapshot shows was written before
            found = Barrier(connection, replace(server, lsn=after), str(error))
        connection.execute("set local jit = off")  # it takes longer than it saves
        yield found


class NoSlotError(Exception):
    """The server makes no logical slot: what it said."""


@contextmanager
def _exported_snapshot() -> Iterator[tuple[int, str]]:
    """Yield a place of the log and the name of the snapshot that stands there; it can be taken over until the end."""
    options = f"-c lock_timeout={_WAIT}"
    conninfo = make_conninfo(dsn(), replication="database", options=options, application_name="payments reconcile")
    connection = pq.PGconn.connect(conninfo.encode())
    try:
        if connection.status != pq.ConnStatus.OK:
            raise NoSlotError(last_error(connection))
        name = f"payments_reconcile_{secrets.token_hex(4)}"
        made = connection.exec_(
            f"CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')".encode()
        )
        place, snapshot = made.get_value(0, 1), made.get_value(0, 2)
        if made.status != pq.ExecStatus.TUPLES_OK or place is None or snapshot is None:
            raise NoSlotError(last_error(connection))
        high, low = place.decode().split("/")
        yield (int(high, 16) << 32) + int(low, 16), snapshot.decode()
        connection.exec_(f"DROP_REPLICATION_SLOT {name}".encode())  # it would go with the connection, but later
    finally:
        connection.finish()

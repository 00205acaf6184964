"""A barrier: a place of the operational store's log, and the store exactly as it stood there, under any traffic.

A server that gives no slot for it is read in a repeatable-read transaction, whose place in the log is known only as
exactly as the store is quiet.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import psycopg

from ingestion.oltp import SnapshotPoint, lsn_text, repeatable_read, snapshot_point
from payments.systems.oltp.connection import connect
from payments.systems.oltp.exported import NoSlotError, exported_snapshot


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
            with exported_snapshot() as (lsn, snapshot):
                stack.enter_context(repeatable_read(connection, snapshot))
            found = Barrier(connection, replace(server, lsn=lsn))
        except NoSlotError as error:
            stack.enter_context(repeatable_read(connection))
            after = snapshot_point(connection).lsn + 1  # what the snapshot shows was written before
            found = Barrier(connection, replace(server, lsn=after), str(error))
        connection.execute("set local jit = off")  # it takes longer than it saves
        yield found

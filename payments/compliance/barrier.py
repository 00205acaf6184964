"""A barrier: a place of the operational store's log, and the store exactly as it stood there, under any traffic.

A server that gives no slot for it is read in a repeatable-read transaction, whose place in the log is known only as
exactly as the store is quiet.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg

from ingestion.oltp import SnapshotPoint, lsn_text, one_state, snapshot_point
from payments.systems.oltp.connection import connect


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
    with connect(autocommit=True) as connection, one_state(connection) as state:
        point = state.point
        if state.doubt is not None:
            point = replace(point, lsn=snapshot_point(connection).lsn + 1)  # what the state shows was written before
        connection.execute("set local jit = off")  # it takes longer than it saves
        yield Barrier(connection, point, state.doubt)

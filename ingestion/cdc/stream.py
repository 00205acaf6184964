"""Change data capture of the operational store, straight into the raw zone: no broker between.

The slot is made before the snapshot that everything begins with, so that nothing falls between them. Transactions land
whole, many to a batch; how far the log was read stands in the commit record of the batch, so that data and position
become visible in one step, and the slot is acknowledged only then. What the server sends again, after a crash of either
side, is known by its position and left out.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg import sql

from ingestion.cdc.changes import Keys, Transaction
from ingestion.cdc.records import stage_log
from ingestion.cdc.slot import Slot, SlotReader, open_slot
from ingestion.contracts import entities
from ingestion.landing import Landing, LandingReport, Staged, landing
from ingestion.oltp import SOURCE, epoch_of, land_oltp, snapshot_point, table_of
from ingestion.raw_zone import Commit, RawZone
from payments.errors import UsageError
from payments.settings import settings
from payments.systems.oltp.connection import connect, dsn

NAME = "payments"
"""The name of the publication and of the slot."""
CHANGES_A_BATCH = 20_000
SECONDS_A_BATCH = 0.5
_IDLE_SECONDS = 0.2
_IDLE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Start:
    """Where reading begins: after ``lsn``, which has landed, in an epoch of the source."""

    lsn: int
    epoch: int


@dataclass(frozen=True)
class Progress:
    """One step of a stream: what a batch landed, None when nothing came, and how things stand after it.

    ``lag_bytes`` of the server's log are not read yet; ``lag_seconds`` passed between the commit of the last
    transaction of the batch and the moment at which it could be queried.
    """

    report: LandingReport | None
    position: str
    changes: int
    lag_bytes: int
    lag_seconds: float


def drain() -> list[LandingReport]:
    """Land every change that was committed before the call, and return the batches.

    The first call makes publication and slot and lands a snapshot. Raises ``UsageError`` when the store cannot be
    reached, or the slot is lost, read by somebody else, or beyond what has landed.
    """
    reports = prepare()
    with connect(autocommit=True) as connection:
        target = _flushed(connection)
    with _reading() as (reader, start):
        reached = start.lsn
        while reached < target:
            batch = collect(reader, reached, target)
            if batch:
                reports.append(land(batch, start.epoch))
                reached = batch[-1].end_lsn
                reader.acknowledge(reached)
            elif has_read(reader, target):
                break  # the rest of the log changed nothing that is published
            else:
                reader.ask()
    return reports


def follow(is_stopped: Callable[[], bool]) -> Iterator[Progress]:
    """Land changes as they are committed, a batch at a time, until told to stop; a batch is never left half-way.

    Raises ``UsageError`` as :func:`drain` does.
    """
    prepare()
    with _reading() as (reader, start):
        reached, position = start.lsn, ""
        while not is_stopped():
            batch = collect(reader, reached, None)
            reader.ask()
            if not batch:
                if has_read(reader, reached + _IDLE_BYTES):
                    # Others write and we have nothing to read: say so, or the server keeps its log for us.
                    reached = reader.wal_end
                    _land_nothing(reached, start.epoch)
                    reader.acknowledge(reached)
                yield Progress(None, position, 0, max(0, reader.wal_end - reached), 0.0)
                continue
            report = land(batch, start.epoch)
            reached = batch[-1].end_lsn
            reader.acknowledge(reached)
            last = batch[-1]
            position = str(last.changes[-1].position) if last.changes else position
            lag = (datetime.now(UTC) - last.committed_at).total_seconds()
            changes = sum(len(transaction.changes) for transaction in batch)
            yield Progress(report, position, changes, max(0, reader.wal_end - reached), lag)


def has_read(reader: SlotReader, target: int) -> bool:
    """Return whether every transaction that committed before a place of the log has come."""
    return reader.is_between_transactions and reader.wal_end >= target


def prepare() -> list[LandingReport]:
    """Make publication and slot where they are missing, and land a snapshot that is younger than the slot."""
    with connect(autocommit=True) as connection:
        _publish(connection)
        slot = _slot(connection)
        if slot is None:
            # A transaction of its own: a slot cannot be made in one that has written.
            connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput', failover => true)", (NAME,))
            slot = _slot(connection)
        if slot is None:
            raise AssertionError("the slot that was made is not there")
        confirmed, wal_status = slot
        if wal_status == "lost":
            raise UsageError(
                f"The replication slot {NAME} is lost: the server dropped log that was not read. Drop the slot "
                f"(select pg_drop_replication_slot('{NAME}')) and stream again: a snapshot comes first."
            )
        point = snapshot_point(connection)
    last = _last_landed()
    if last is None or epoch_of(last, point) != _epoch(last):
        return [land_oltp()]
    if int(last.parameters["lsn"]) < confirmed:
        return [land_oltp()]
    return []


def collect(reader: SlotReader, reached: int, target: int | None) -> list[Transaction]:
    """Return the next transactions after ``reached``: as many as a batch takes, or came within its time.

    With a target, what has come is enough as soon as the server has read up to there.
    """
    batch: list[Transaction] = []
    size = 0
    until = time.monotonic() + SECONDS_A_BATCH
    while size < CHANGES_A_BATCH and (left := until - time.monotonic()) > 0:
        if target is not None:
            reader.ask()
        transaction = reader.next(left if target is None else min(left, _IDLE_SECONDS))
        if transaction is None:
            if target is not None and (batch or has_read(reader, target)):
                break
        elif transaction.end_lsn > reached:
            batch.append(transaction)
            size += len(transaction.changes)
    return batch


def land(batch: list[Transaction], epoch: int) -> LandingReport:
    """Land transactions in one batch, with the position that they reach."""
    last = batch[-1]
    tables = {table_of(entity): entity for entity in entities(SOURCE).values()}
    with _log_batch(epoch, last.end_lsn) as files:
        files.source_at = last.committed_at
        files.source_position = last.commit_lsn
        for table, entity in tables.items():
            if stage_log(files, entity, table, batch):
                files.land_log(Staged(entity, "staged"))
        return files.commit()


@contextmanager
def _log_batch(epoch: int, lsn: int) -> Iterator[Landing]:
    """Open a batch of the log of the server that landed last, which reaches ``lsn``."""
    last = _last_landed()
    if last is None:
        raise AssertionError("a snapshot lands before the log is read")
    with landing(SOURCE, "log", last.origin) as batch:
        batch.epoch, batch.source_position, batch.source_at = epoch, lsn, last.source_at
        batch.parameters = {**last.parameters, "lsn": str(lsn)}
        yield batch


def _land_nothing(lsn: int, epoch: int) -> None:
    with _log_batch(epoch, lsn) as batch:
        batch.commit()


@contextmanager
def _reading() -> Iterator[tuple[SlotReader, Start]]:
    last = _last_landed()
    if last is None:
        raise AssertionError("a snapshot lands before the log is read")
    start = Start(int(last.parameters["lsn"]), _epoch(last))
    try:
        with open_slot(Slot(dsn(), NAME, NAME), start.lsn, start.epoch, keys()) as reader:
            yield reader, start
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"The operational store was lost while its log was read ({reason}): what has landed stays; stream again."
        ) from error


def keys() -> Keys:
    """Return the key of each table that lands."""
    return {table_of(entity): entity.key for entity in entities(SOURCE).values()}


def _last_landed() -> Commit | None:
    return RawZone(settings().raw_zone).pin().last_of(SOURCE)


def _epoch(commit: Commit) -> int:
    return int(commit.position.split("/")[0], 16)


def _publish(connection: psycopg.Connection) -> None:
    """Publish the tables of the contract: changes of partitions as those of their table."""
    wanted = {table_of(entity) for entity in entities(SOURCE).values()}
    found = {
        (schema, table)
        for schema, table in connection.execute(
            "select schemaname, tablename from pg_publication_tables where pubname = %s", (NAME,)
        )
    }
    tables = sql.SQL(", ").join(sql.Identifier(*table) for table in sorted(wanted))
    if not found:
        connection.execute(
            sql.SQL("create publication {} for table {} with (publish_via_partition_root = true)").format(
                sql.Identifier(NAME), tables
            )
        )
    elif found != wanted:
        connection.execute(sql.SQL("alter publication {} set table {}").format(sql.Identifier(NAME), tables))


def _slot(connection: psycopg.Connection) -> tuple[int, str] | None:
    row = connection.execute(
        "select (confirmed_flush_lsn - '0/0')::bigint, wal_status from pg_replication_slots where slot_name = %s",
        (NAME,),
    ).fetchone()
    return None if row is None else (int(row[0]), str(row[1]))


def _flushed(connection: psycopg.Connection) -> int:
    row = connection.execute("select (pg_current_wal_flush_lsn() - '0/0')::bigint").fetchone()
    if row is None:
        raise AssertionError("no row from pg_current_wal_flush_lsn()")
    return int(row[0])

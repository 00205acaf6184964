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

from ingestion.cdc.changes import Change, Transaction
from ingestion.cdc.records import stage_log
from ingestion.cdc.slot import Slot, SlotReader, open_slot
from ingestion.contracts import entities
from ingestion.landing import Landing, LandingReport, Staged, landing
from ingestion.oltp import SOURCE, epoch_of, land_oltp, snapshot_point, table_of
from ingestion.raw_zone import Commit, Position, RawZone
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
class Step:
    """One step of a stream: what a batch landed and the position it reached, None when nothing came.

    ``lag_bytes`` of the server's log are not read yet; ``lag_seconds`` passed between the commit of the last
    transaction of the batch and the moment at which it could be queried.
    """

    report: LandingReport | None
    position: Position | None
    changes: int
    lag_bytes: int
    lag_seconds: float


def drain() -> list[LandingReport]:
    """Land every change that was committed before the call, and return the batches.

    The first call makes publication and slot and lands a snapshot; so does one that finds the slot beyond what has
    landed, because somebody moved it or made it anew. Raises ``UsageError`` when the store cannot be reached, or the
    slot is lost or read by somebody else.
    """
    reports = prepare()
    with connect(autocommit=True) as connection:
        target = snapshot_point(connection).lsn
    with _reading() as (reader, reached):
        reports += [step.report for step in _steps(reader, reached, target) if step.report is not None]
    return reports


def follow(is_stopped: Callable[[], bool]) -> Iterator[Step]:
    """Land changes as they are committed, a batch at a time, until told to stop; a batch is never left half-way.

    Raises ``UsageError`` as :func:`drain` does.
    """
    prepare()
    with _reading() as (reader, reached):
        steps = _steps(reader, reached, None)
        while not is_stopped():
            yield next(steps)


def _steps(reader: SlotReader, reached: int, target: int | None) -> Iterator[Step]:
    """Land what comes after ``reached``, up to a place of the log or (None) without end."""
    while target is None or reached < target:
        batch = collect(reader, reached, target)
        reader.ask()
        if batch:
            report = land(batch, reader.epoch)
            last = batch[-1]
            reached = last.end_lsn
            reader.acknowledge(reached)
            lag = (datetime.now(UTC) - last.committed_at).total_seconds()
            changes = sum(len(transaction.changes) for transaction in batch)
            position = last.changes[-1].position if last.changes else None
            yield Step(report, position, changes, max(0, reader.wal_end - reached), lag)
            continue
        if target is not None and has_read(reader, target):
            return  # the rest of the log changed nothing that is published
        if has_read(reader, reached + _IDLE_BYTES):
            # Others write and we have nothing to read: say so, or the server keeps its log for us.
            reached = reader.wal_end
            with _log_batch(reader.epoch, reached) as nothing:
                nothing.commit()
            reader.acknowledge(reached)
        yield Step(None, None, 0, max(0, reader.wal_end - reached), 0.0)


def has_read(reader: SlotReader, target: int) -> bool:
    """Return whether every transaction that committed before a place of the log has come."""
    return reader.is_between_transactions and reader.wal_end >= target


def prepare() -> list[LandingReport]:
    """Make publication and slot where they are missing, and land a snapshot unless one is younger than the slot."""
    with connect(autocommit=True) as connection:
        confirmed, wal_status = _slot_made(connection)
        if wal_status == "lost":
            raise UsageError(
                f"The replication slot {NAME} is lost: the server dropped log that was not read. Drop the slot "
                f"(select pg_drop_replication_slot('{NAME}')) and stream again: a snapshot comes first."
            )
        point = snapshot_point(connection)
    last = _last_landed()
    if last is None or epoch_of(last, point) != last.reached.epoch or int(last.parameters["lsn"]) < confirmed:
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
    changes: dict[tuple[str, str], list[tuple[Transaction, Change]]] = {}
    for transaction in batch:
        for change in transaction.changes:
            changes.setdefault((change.schema, change.table), []).append((transaction, change))
    with _log_batch(epoch, last.end_lsn) as files:
        files.source_at = last.committed_at
        for entity in entities(SOURCE).values():
            if found := changes.get(table_of(entity)):
                stage_log(files, entity, found)
                files.land_log(Staged(entity, "staged"))
        return files.commit()


@contextmanager
def _log_batch(epoch: int, lsn: int) -> Iterator[Landing]:
    """Open a batch of the log of the server that landed last, which reaches ``lsn``."""
    with landing(SOURCE, "log", origin="") as batch:
        last = batch.pin.last_of(SOURCE)
        if last is None:
            raise AssertionError("a snapshot lands before the log is read")
        batch.origin, batch.source_at = last.origin, last.source_at
        batch.epoch, batch.source_position = epoch, lsn
        batch.parameters = {**last.parameters, "lsn": str(lsn)}
        yield batch


@contextmanager
def _reading() -> Iterator[tuple[SlotReader, int]]:
    """Open the slot behind what has landed, and give the place of the log up to which that is."""
    last = _last_landed()
    if last is None:
        raise AssertionError("a snapshot lands before the log is read")
    reached = int(last.parameters["lsn"])
    keys = {table_of(entity): entity.key for entity in entities(SOURCE).values()}
    try:
        with open_slot(Slot(dsn(), NAME, NAME), reached, last.reached.epoch, keys) as reader:
            yield reader, reached
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"The operational store was lost while its log was read ({reason}): what has landed stays; stream again."
        ) from error


def _last_landed() -> Commit | None:
    return RawZone(settings().raw_zone).pin().last_of(SOURCE)


def _slot_made(connection: psycopg.Connection) -> tuple[int, str]:
    """Make publication and slot where they are missing; return how far the slot was read, and how its log is."""
    try:
        _publish(connection)
        slot = _slot(connection)
        if slot is None:
            # A transaction of its own: a slot cannot be made in one that has written.
            connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput', failover => true)", (NAME,))
            slot = _slot(connection)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        message = error.diag.message_primary
        raise UsageError(f"The operational store lacks what is to be streamed ({message}): run payments up.") from error
    except psycopg.Error as error:
        raise UsageError(f"The operational store gives no log to read: {error.diag.message_primary}.") from error
    if slot is None:
        raise AssertionError("the slot that was made is not there")
    return slot


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

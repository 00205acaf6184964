"""Change data capture of the operational store, straight into the raw zone: no broker between.

The slot is made before the snapshot that everything begins with, so that nothing falls between them. Transactions land
whole, many to a batch; how far the log was read stands in the commit record of the batch, so that data and position
become visible in one step, and the slot is acknowledged only then. What the server sends again, after a crash of either
side, is known by its position and left out.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from ingestion.cdc.changes import Keys, Transaction
from ingestion.cdc.records import stage_log
from ingestion.cdc.slot import Slot, SlotReader, open_slot
from ingestion.contracts import entities
from ingestion.landing import LandingReport, Staged, landing
from ingestion.oltp import SOURCE, SnapshotPoint, epoch_of, land_oltp, snapshot_point, table_of
from ingestion.raw_zone import Commit, RawZone
from payments.errors import UsageError
from payments.settings import settings
from payments.systems.oltp.connection import connect, dsn

NAME = "payments"
"""The name of the publication and of the slot."""
CHANGES_A_BATCH = 20_000
SECONDS_A_BATCH = 0.5
_IDLE_SECONDS = 0.2


@dataclass(frozen=True)
class Start:
    """Where reading begins: after ``lsn``, which has landed, in an epoch of the source."""

    lsn: int
    epoch: int


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
                f"The replication slot {NAME} is lost: the server dropped log that was not read. "
                "Run payments stream --resnapshot."
            )
        point = snapshot_point(connection)
    last = _last_landed()
    if last is None or epoch_of(last, point) != _epoch(last):
        return [land_oltp()]
    if int(last.parameters["lsn"]) < confirmed:
        return [land_oltp()]
    return []


def collect(reader: SlotReader, reached: int, target: int | None) -> list[Transaction]:
    """Return the next transactions after ``reached``: as many as a batch takes, or came within its time."""
    batch: list[Transaction] = []
    size = 0
    until = time.monotonic() + SECONDS_A_BATCH
    while size < CHANGES_A_BATCH and time.monotonic() < until:
        transaction = reader.next(_IDLE_SECONDS)
        if transaction is None:
            if batch or (target is not None and has_read(reader, target)):
                break
            if target is not None:
                reader.ask()
            continue
        if transaction.end_lsn > reached:
            batch.append(transaction)
            size += len(transaction.changes)
    return batch


def land(batch: list[Transaction], epoch: int) -> LandingReport:
    """Land transactions in one batch, with the position that they reach."""
    last = batch[-1]
    tables = {table_of(entity): entity for entity in entities(SOURCE).values()}
    with connect(autocommit=True) as connection:
        point = snapshot_point(connection)
        info = connection.info
        origin = f"postgresql://{info.host}:{info.port}/{info.dbname}"
    with landing(SOURCE, "log", origin) as files:
        files.source_at = last.committed_at
        files.source_position = last.commit_lsn
        files.epoch = epoch
        files.parameters = _parameters(point, last.end_lsn)
        for table, entity in tables.items():
            if stage_log(files, entity, table, batch):
                files.land_log(Staged(entity, "staged"))
        return files.commit()


@contextmanager
def _reading() -> Iterator[tuple[SlotReader, Start]]:
    last = _last_landed()
    if last is None:
        raise AssertionError("a snapshot lands before the log is read")
    start = Start(int(last.parameters["lsn"]), _epoch(last))
    with open_slot(Slot(dsn(), NAME, NAME), start.lsn, start.epoch, keys()) as reader:
        yield reader, start


def keys() -> Keys:
    """Return the key of each table that lands."""
    return {table_of(entity): entity.key for entity in entities(SOURCE).values()}


def _last_landed() -> Commit | None:
    return RawZone(settings().raw_zone).pin().last_of(SOURCE)


def _epoch(commit: Commit) -> int:
    return int(commit.position.split("/")[0], 16)


def _parameters(point: SnapshotPoint, lsn: int) -> dict[str, str]:
    return {"system_identifier": point.system_identifier, "timeline": str(point.timeline), "lsn": str(lsn)}


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

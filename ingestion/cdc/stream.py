"""Change data capture of the operational store, straight into the raw zone: no broker between.

The slot is made before the snapshot that everything begins with, so that nothing falls between them. Transactions land
whole, many to a batch; how far the log was read stands in the commit record of the batch, so that data and position
become visible in one step, and the slot is acknowledged only then. What the server sends again, after a crash of either
side, begins behind what has landed.
"""

import json
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from ingestion.cdc.batches import LogBatch
from ingestion.cdc.pgoutput import Relation
from ingestion.cdc.records import stage_log
from ingestion.cdc.schemas import TableView, view_of
from ingestion.cdc.slot import EVENTS, OUTBOX, Slot, SlotReader, Views, open_slot
from ingestion.cdc.snapshot import land_snapshot, unfinished
from ingestion.contracts import Entity, entities
from ingestion.landing import Landing, LandingReport, Staged, landing
from ingestion.oltp import SOURCE, SnapshotPoint, carried, epoch_of, snapshot_point, table_now, table_of
from ingestion.raw_zone import Commit, Position, RawZone
from payments.errors import UsageError
from payments.settings import settings
from payments.systems.oltp.connection import connect, dsn

NAME = "payments"
"""The name of the publication and of the slot."""
CHANGES_A_BATCH = 100_000
SECONDS_A_BATCH = 0.2
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

    The first call makes publication and slot and lands a snapshot. Raises ``UsageError`` when the store cannot be
    reached, or the slot is lost, was moved, or is read by somebody else.
    """
    reports = list(prepare())
    with connect(autocommit=True) as connection:
        target = snapshot_point(connection).lsn
    with _reading() as reader:
        reports += [step.report for step in _steps(reader, target) if step.report is not None]
    return reports


def follow(is_stopped: Callable[[], bool]) -> Iterator[Step]:
    """Land changes as they are committed, a batch at a time, until told to stop; a batch is never left half-way.

    Raises ``UsageError`` as :func:`drain` does.
    """
    for _ in prepare():
        pass
    with _reading() as reader, closing(_steps(reader, None)) as steps:
        while not is_stopped():
            yield next(steps)


def _steps(reader: SlotReader, target: int | None) -> Generator[Step, None, None]:
    """Land what comes, up to a place of the log or (None) without end; the next batch is read while one lands."""
    reached = reader.reached
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(reader.collect, SECONDS_A_BATCH, CHANGES_A_BATCH, target)
        while True:
            batch = coming.result()
            if batch is None:
                if reader.has_read(target):
                    return  # the rest of the log changed nothing that is published
                if reader.wal_end >= reached + _IDLE_BYTES and reader.has_read(reader.wal_end):
                    # Others write and we have nothing to read: say so, or the server keeps its log for us.
                    reached = reader.reached = reader.wal_end
                    with _log_batch(reader.epoch, reached) as nothing:
                        nothing.commit()
                    reader.acknowledge(reached)
                yield Step(None, None, 0, max(0, reader.wal_end - reached), 0.0)
                coming = pool.submit(reader.collect, SECONDS_A_BATCH, CHANGES_A_BATCH, target)
                continue
            coming = pool.submit(reader.collect, SECONDS_A_BATCH, CHANGES_A_BATCH, target)
            report = land(batch)
            reached = batch.end_lsn
            reader.acknowledge(reached)
            lag = (datetime.now(UTC) - batch.committed_at).total_seconds()
            position = Position(batch.epoch, batch.end_lsn, 0, 0)
            yield Step(report, position, batch.rows, max(0, reader.wal_end - reached), lag)


def prepare() -> Iterator[LandingReport]:
    """Make publication and slot where they are missing, and land the snapshot, or what is missing of it."""
    with connect(autocommit=True) as connection:
        try:
            _publish(connection)
            generation = _generation(connection)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            message = error.diag.message_primary
            raise UsageError(
                f"The operational store lacks what is to be streamed ({message}): run payments up."
            ) from error
        except psycopg.Error as error:
            raise UsageError(f"The operational store gives no log to read: {error.diag.message_primary}.") from error
    pin = RawZone(settings().raw_zone).pin()
    yield from land_snapshot(unfinished(pin, generation, again=list(_stopped(pin.last_of(SOURCE)))))


def resnapshot() -> None:
    """Begin anew: the slot is made again, and the next stream reads every table before it goes on with the log.

    What has landed stays; the snapshot is compared with it. Raises ``UsageError`` when the store cannot be reached or
    somebody reads the slot.
    """
    with connect(autocommit=True) as connection:
        _begin_generation(connection, snapshot_point(connection), _last_landed())


def _generation(connection: psycopg.Connection) -> str:
    """Return the generation that the stream goes on with; begin one where there is none, or the server is another.

    A generation is one life of the slot: it begins with a snapshot. Raises ``UsageError`` when the slot is not where
    it was left: what it passed by would be missing, and nobody would know.
    """
    point = snapshot_point(connection)
    last = _last_landed()
    if last is None or "generation" not in last.parameters or epoch_of(last, point) != last.reached.epoch:
        return _begin_generation(connection, point, last)
    slot = connection.execute(
        "select (confirmed_flush_lsn - '0/0')::bigint, wal_status from pg_replication_slots where slot_name = %s",
        (NAME,),
    ).fetchone()
    if slot is None:
        raise UsageError(_refusal("is gone"))
    confirmed, wal_status = slot
    if wal_status == "lost":
        raise UsageError(_refusal("is lost: the server dropped log that was not read"))
    if confirmed > int(last.parameters["lsn"]):
        raise UsageError(_refusal("was moved by somebody else beyond what has landed"))
    return last.parameters["generation"]


def _refusal(reason: str) -> str:
    return (
        f"The replication slot {NAME} {reason}, so changes may be missing. Run payments stream --resnapshot: it makes "
        "the slot anew and compares every table with what has landed."
    )


def _begin_generation(connection: psycopg.Connection, point: SnapshotPoint, last: Commit | None) -> str:
    """Make the slot anew and note from where its log is read: before any snapshot of it."""
    active = connection.execute(
        "select active from pg_replication_slots where slot_name = %s and active", (NAME,)
    ).fetchone()
    if active is not None:
        raise UsageError(f"The replication slot {NAME} is read by somebody else: stop that stream first.")
    connection.execute(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", (NAME,)
    )
    # From version 17 on a standby may keep the slot, so that it survives a failover.
    failover = ", failover => true" if connection.info.server_version >= 170_000 else ""
    row = connection.execute(
        f"select (lsn - '0/0')::bigint from pg_create_logical_replication_slot(%s, 'pgoutput'{failover})".encode(),
        (NAME,),
    ).fetchone()
    if row is None:
        raise AssertionError("no row from pg_create_logical_replication_slot()")
    generation = str(int(last.parameters.get("generation", "0")) + 1 if last is not None else 1)
    with landing(SOURCE, "log", origin=point.origin) as batch:
        batch.epoch, batch.source_position = epoch_of(last, point), int(row[0])
        batch.source_at = datetime.now(UTC) if last is None else last.source_at
        batch.parameters = {
            "system_identifier": point.system_identifier,
            "timeline": str(point.timeline),
            "lsn": str(row[0]),
            "generation": generation,
        }
        batch.commit()
    return generation


def land(batch: LogBatch) -> LandingReport:
    """Land transactions in one batch, with the position that they reach."""
    with _log_batch(batch.epoch, batch.end_lsn) as files:
        files.source_at = batch.committed_at
        stopped = _stopped(files.pin.last_of(SOURCE))
        for entity in entities(SOURCE).values():
            if (changes := batch.changes.get(entity.name)) is None:
                continue
            if reasons := _stops(changes):
                stopped[entity.name] = reasons[0]
            stage_log(files, entity, changes)
            files.land_log(Staged(entity, "staged"))
        if stopped:
            files.parameters["stopped"] = json.dumps(stopped)
        return files.commit()


def _stops(changes: pa.Table) -> list[str]:
    """Return why a table of changes does not fit its contract any more."""
    found = changes.filter(pc.field("_rule") == "stopped_table")["_reason"]
    return [str(reason) for reason in found.unique().to_pylist()]


def _stopped(last: Commit | None) -> dict[str, str]:
    """Return why tables are stopped, by entity: they did not fit the contract any more, and wait for a snapshot."""
    found: dict[str, str] = json.loads(last.parameters.get("stopped", "{}")) if last is not None else {}
    return found


@contextmanager
def _log_batch(epoch: int, lsn: int) -> Iterator[Landing]:
    """Open a batch of the log of the server that landed last, which reaches ``lsn``."""
    with landing(SOURCE, "log", origin="") as batch:
        last = batch.pin.last_of(SOURCE)
        if last is None:
            raise AssertionError("a generation begins before the log is read")
        batch.origin, batch.source_at = last.origin, last.source_at
        batch.epoch, batch.source_position = epoch, lsn
        batch.parameters = {**carried(last), "lsn": str(lsn)}
        yield batch


@contextmanager
def _reading() -> Iterator[SlotReader]:
    """Open the slot behind what has landed."""
    last = _last_landed()
    if last is None:
        raise AssertionError("a generation begins before the log is read")
    reached = int(last.parameters["lsn"])
    try:
        with open_slot(
            Slot(dsn(), NAME, NAME), reached, last.reached.epoch, _views(_stopped(last)), settings().home
        ) as reader:
            yield reader
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"The operational store was lost while its log was read ({reason}): what has landed stays; stream again."
        ) from error


def _views(stopped: dict[str, str]) -> Views:
    """Return what tells how a table is read: as it is from here on, or stopped until a snapshot of it."""
    wanted = {table_of(entity): entity for entity in entities(SOURCE).values()}

    def view(relation: Relation) -> tuple[Entity, TableView] | None:
        name = (relation.schema, relation.table)
        type_oids = {column.name: column.type_oid for column in relation.columns}
        if name == OUTBOX:
            return EVENTS, view_of(EVENTS, type_oids, {})
        entity = wanted.get(name)
        if entity is None:
            return None
        found = view_of(entity, type_oids, {})
        if None in found.sources.values():
            # Perhaps a column has another name: the catalogue knows.
            with connect(autocommit=True) as connection:
                renamed = table_now(connection, RawZone(settings().raw_zone).pin(), entity).view.sources
            found = view_of(entity, type_oids, {old: new for old, new in renamed.items() if new is not None})
        if (reason := stopped.get(entity.name)) is not None:
            found = replace(found, stopped=reason)
        if found.stopped is not None:
            stopped[entity.name] = found.stopped
        return entity, found

    return view


def _last_landed() -> Commit | None:
    return RawZone(settings().raw_zone).pin().last_of(SOURCE)


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

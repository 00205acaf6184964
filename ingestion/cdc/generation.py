"""How a stream begins: publication, slot, and the snapshot that everything starts from.

A generation is one life of the slot. It begins with the slot, from whose place the log is read, and a snapshot of every
table after that, so that nothing falls between them. Slot and raw zone know each other by the place that they reached:
a slot that stands beyond what has landed was moved, or made anew, and what it passed by is missing.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
from psycopg import sql

from ingestion.cdc.slot import OUTBOX, TAKE_OVER_SECONDS
from ingestion.cdc.snapshot import land_snapshot, unfinished
from ingestion.contracts import entities
from ingestion.landing import LandingReport, landing
from ingestion.oltp import SOURCE, SnapshotPoint, epoch_of, snapshot_point, stopped_tables, table_of
from ingestion.raw_zone import Commit, RawZone
from payments.errors import UsageError
from payments.settings import settings
from payments.systems.oltp.connection import connect
from payments.systems.oltp.nodes import FAILOVER_SLOTS_VERSION
from payments.systems.processes import wait_until

NAME = "payments"
"""The name of the publication and of the slot."""


def prepare(*, with_events: bool) -> Iterator[LandingReport]:
    """Make publication and slot where they are missing, and land the snapshot, or what is missing of it.

    Raises ``UsageError`` when the store cannot be reached, gives no log, or the slot is not where it was left.
    """
    with connect(autocommit=True) as connection:
        try:
            _publish(connection, with_events=with_events)
            generation = _generation(connection)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            message = error.diag.message_primary
            raise UsageError(
                f"The operational store lacks what is to be streamed ({message}): run payments up."
            ) from error
        except psycopg.Error as error:
            if connection.closed:
                raise  # the server went away
            raise UsageError(f"The operational store gives no log to read: {error.diag.message_primary}.") from error
    zone = RawZone(settings().raw_zone)
    with zone.alone("snapshot.lock"):  # whoever comes second finds it landed
        pin = zone.pin()
        yield from land_snapshot(unfinished(pin, generation, again=list(stopped_tables(pin.last_of(SOURCE)))))


def resnapshot() -> None:
    """Begin anew: the slot is made again, and the next stream reads every table before it goes on with the log.

    What has landed stays; the snapshot is compared with it. Raises ``UsageError`` when the store cannot be reached or
    somebody reads the slot.
    """
    with connect(autocommit=True) as connection:
        _begin_generation(connection, snapshot_point(connection), last_landed())


def _generation(connection: psycopg.Connection) -> str:
    """Return the generation that the stream goes on with; begin one where there is none, or the server is another.

    A generation is one life of the slot: it begins with a snapshot. Raises ``UsageError`` when the slot is not where
    it was left: what it passed by would be missing, and nobody would know.
    """
    point = snapshot_point(connection)
    last = last_landed()
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
    read_by = "select active_pid from pg_replication_slots where slot_name = %s and active"
    if not wait_until(lambda: connection.execute(read_by, (NAME,)).fetchone() is None, TAKE_OVER_SECONDS):
        raise UsageError(f"The replication slot {NAME} is read by somebody else: stop that stream first.")
    connection.execute(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", (NAME,)
    )
    # A standby may keep the slot, so that it survives a failover.
    failover = ", failover => true" if connection.info.server_version // 10_000 >= FAILOVER_SLOTS_VERSION else ""
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


def last_landed() -> Commit | None:
    """Return the last commit of the operational store."""
    return RawZone(settings().raw_zone).pin().last_of(SOURCE)


def log_name(last: Commit) -> str:
    """Return the name of the log that a commit goes on with: the server's, and which generation of the slot it is."""
    return f"{last.parameters['system_identifier']}/{last.parameters['generation']}"


def _publish(connection: psycopg.Connection, *, with_events: bool) -> None:
    """Publish the tables of the contract, for a broker the outbox too; changes of partitions as those of the table."""
    wanted = {table_of(entity) for entity in entities(SOURCE).values()} | ({OUTBOX} if with_events else set())
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

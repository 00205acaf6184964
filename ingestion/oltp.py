"""The operational PostgreSQL store, landed as one consistent snapshot over all tables of its contract.

The contract names tables of the schemas ``core`` and ``ledger`` only: identity and key material are never read.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import sql

from ingestion.contracts import Entity, entities
from ingestion.landing import Landing, LandingReport, Staged, landing, record_of
from ingestion.raw_zone import Commit, file_literal, text_literal
from payments.errors import UsageError
from payments.systems.oltp.connection import connect

SOURCE = "oltp"


@dataclass(frozen=True)
class SnapshotPoint:
    """Where in the life of the server a snapshot stands; ``lsn`` as an integer, ``read_at`` by the server's clock.

    Everything that was committed and flushed before ``lsn`` is in the snapshot; what came later may be. A change log
    that is read from ``lsn`` on therefore misses nothing, and repeats what it shares with the snapshot.
    """

    system_identifier: str
    timeline: int
    lsn: int
    read_at: datetime


def land_oltp() -> LandingReport:
    """Land every table of the contract as it stood in one repeatable-read transaction; absent rows become deletions.

    Raises ``UsageError`` when the store cannot be reached or lacks a table.
    """
    tables = entities(SOURCE)
    with landing(SOURCE, "snapshot", origin="") as batch:
        point = _export(batch, tables.values())
        batch.source_at = point.read_at
        batch.source_position = point.lsn
        batch.epoch = epoch_of(batch.pin.last_of(SOURCE), point)
        batch.parameters = {
            "system_identifier": point.system_identifier,
            "timeline": str(point.timeline),
            "lsn": str(point.lsn),
        }
        for entity in tables.values():
            _stage(batch, entity)
            batch.land(Staged(entity, "staged", is_complete=True))
        return batch.commit()


def epoch_of(last: Commit | None, point: SnapshotPoint) -> int:
    """Return the ordinal of the server's life that a snapshot belongs to, from 1.

    It grows when the log cannot be the one of the last landing: another server, another timeline (a failover or a
    restore), or a position behind the one that has landed.
    """
    if last is None:
        return 1
    epoch = last.reached.epoch
    is_same_log = (
        last.parameters["system_identifier"] == point.system_identifier
        and last.parameters["timeline"] == str(point.timeline)
        and int(last.parameters["lsn"]) <= point.lsn
    )
    return epoch if is_same_log else epoch + 1


def _export(batch: Landing, tables: Iterable[Entity]) -> SnapshotPoint:
    """Write each table to a CSV file of the batch, all from one snapshot."""
    with connect(autocommit=True) as connection:
        info = connection.info
        batch.origin = f"postgresql://{info.host}:{info.port}/{info.dbname}"
        # Before the snapshot: a position taken after it could lie beyond a commit that the snapshot does not see.
        before = snapshot_point(connection)
        with connection.transaction():
            connection.execute("set transaction isolation level repeatable read read only")
            connection.execute("set local datestyle = 'ISO'")
            connection.execute("set local bytea_output = 'hex'")
            row = connection.execute("select transaction_timestamp()").fetchone()
            if row is None:
                raise AssertionError("no row from transaction_timestamp()")
            _require_all_rows(connection, tables)
            for entity in tables:
                _copy(connection, entity, _csv(batch, entity))
        return replace(before, read_at=row[0])


def snapshot_point(connection: psycopg.Connection) -> SnapshotPoint:
    """Return where the server's log stands now."""
    row = connection.execute(
        """
        select
            (select system_identifier::text from pg_control_system()),
            (select timeline_id from pg_control_checkpoint()),
            (
                case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end - '0/0'
            )::bigint,
            clock_timestamp()
        """
    ).fetchone()
    if row is None:
        raise AssertionError("no row from pg_control_system()")
    return SnapshotPoint(*row)


def _require_all_rows(connection: psycopg.Connection, tables: Iterable[Entity]) -> None:
    """Refuse a role that row-level security keeps rows from: a snapshot takes what is absent for deleted."""
    names = [".".join(table_of(entity)) for entity in tables]
    hidden = connection.execute(
        """
        select name
        from unnest(%s::text[]) as name
        inner join pg_class as class on to_regclass(name) = class.oid
        where row_security_active(class.oid) and not exists (
            select from pg_policy as policy
            where
                policy.polrelid = class.oid
                and policy.polpermissive
                and policy.polcmd in ('*', 'r')
                and pg_get_expr(policy.polqual, class.oid) = 'true'
                and exists (
                    select from unnest(policy.polroles) as role
                    where role = 0 or pg_has_role(role, 'usage')
                )
        )
        order by name
        """,
        (names,),
    ).fetchall()
    if hidden:
        raise UsageError(
            f"The operational store shows {connection.info.user} only part of {hidden[0][0]}: "
            f"grant payments_replication to {connection.info.user}."
        )


def _copy(connection: psycopg.Connection, entity: Entity, path: Path) -> None:
    columns = sql.SQL(", ").join(sql.Identifier(name) for name in entity.column_names)
    # A null is an empty field, an empty text a quoted one.
    statement = sql.SQL("copy (select {} from {}) to stdout (format csv)").format(
        columns, sql.Identifier(*table_of(entity))
    )
    try:
        with connection.cursor().copy(statement) as copy, path.open("wb") as file:
            for block in copy:
                file.write(block)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        message = error.diag.message_primary
        raise UsageError(f"The operational store lacks what is to be landed ({message}): run payments up.") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise UsageError(f"The operational store refuses to be read: {error.diag.message_primary}.") from error


def table_of(entity: Entity) -> tuple[str, str]:
    """Return schema and table of an entity."""
    if entity.name.startswith("ledger_"):
        return "ledger", entity.name.removeprefix("ledger_")
    return "core", entity.name


def _csv(batch: Landing, entity: Entity) -> Path:
    return batch.files.aside / f"{entity.name}.csv"


def _stage(batch: Landing, entity: Entity) -> None:
    path = _csv(batch, entity)
    types = ", ".join(f"{text_literal(name)}: 'varchar'" for name in entity.column_names)
    batch.con.execute(
        f"""
        create or replace temp table exported as
        from read_csv(
            {file_literal(path)}, columns = {{{types}}}, auto_detect = false, header = false,
            delim = ',', quote = '"', escape = '"', nullstr = '', allow_quoted_nulls = false, max_line_size = 16000000
        )
        """
    )
    path.unlink()
    batch.con.execute(
        f"""
        create or replace temp view staged as
        select
            rowid as _ordinal,
            *,
            cast(null as varchar) as _rule,
            cast(null as varchar) as _reason,
            {record_of(entity)} as _record,
        from exported
        """
    )

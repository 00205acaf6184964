"""The operational PostgreSQL store, landed as one consistent snapshot over all tables of its contract.

The contract names tables of the schemas ``core`` and ``ledger`` only: identity and key material are never read.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import sql

from ingestion.cdc.schemas import TableView, catalog_columns, renamed_since, view_of
from ingestion.contracts import Entity, entities
from ingestion.landing import Landing, LandingReport, Staged, landing, record_of
from ingestion.raw_zone import Commit, Pin, file_literal, text_literal
from payments.errors import UsageError
from payments.systems.oltp.connection import connect
from payments.systems.oltp.exported import NoSlotError, exported_snapshot

SOURCE = "oltp"
_ALL_ROWS = sql.SQL("true")


@dataclass(frozen=True)
class SnapshotPoint:
    """Where in the life of the server a snapshot stands; ``lsn`` as an integer, ``origin`` its address."""

    system_identifier: str
    timeline: int
    lsn: int
    origin: str = ""


def land_oltp() -> LandingReport:
    """Land every table of the contract as it stood in one repeatable-read transaction; absent rows become deletions.

    A stream of the log goes on from where it was. Raises ``UsageError`` when the store cannot be reached or a table
    cannot be read any more.
    """
    with landing(SOURCE, "snapshot", origin="") as batch:
        with connect(autocommit=True) as connection:
            tables = tables_now(connection, batch.pin)
            with one_state(connection) as state:
                require_all_rows(connection, tables)
                for table in tables:
                    if table.view.stopped is not None:
                        raise UsageError(
                            f"The operational store lacks what is to be landed ({table.entity.name}: "
                            f"{table.view.stopped}): run payments up."
                        )
                    copy_table(connection, table, csv_of(batch.files.aside, table.entity))
        begin_snapshot(batch, state)
        note_columns(batch, tables)
        for table in tables:
            stage_csv(batch, table.entity, csv_of(batch.files.aside, table.entity))
            batch.land(Staged(table.entity, "staged", is_complete=True))
        return batch.commit()


def begin_snapshot(batch: Landing, state: "State") -> None:
    """Set what the commit record of a snapshot says: whose it is, and where in the server's life it stands."""
    last, point = batch.pin.last_of(SOURCE), state.point
    batch.origin = point.origin
    batch.source_at, batch.source_position = state.read_at, point.lsn
    batch.epoch = epoch_of(last, point)
    server = {"system_identifier": point.system_identifier, "timeline": str(point.timeline), "lsn": str(point.lsn)}
    is_streamed = last is not None and "generation" in last.parameters and last.reached.epoch == batch.epoch
    batch.parameters = carried(last) if last is not None and is_streamed else server


def carried(last: Commit) -> dict[str, str]:
    """Return what a commit record hands on to the next: whose log it is, how far it was read, and what is stopped."""
    handed_on = ("system_identifier", "timeline", "lsn", "generation", "stopped")
    return {name: value for name, value in last.parameters.items() if name in handed_on}


def note_columns(batch: Landing, tables: Iterable["Table"]) -> None:
    """Note the numbers that columns have in the catalogue: they stay when a column gets another name."""
    batch.parameters["columns"] = json.dumps({table.entity.name: table.numbers for table in tables})


def stopped_tables(last: Commit | None) -> dict[str, str]:
    """Return why tables are stopped, by entity: they did not fit the contract any more, and wait for a snapshot."""
    found: dict[str, str] = json.loads(last.parameters.get("stopped", "{}")) if last is not None else {}
    return found


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


@dataclass(frozen=True)
class State:
    """The store as a transaction that began at ``read_at`` shows it: all that was committed before ``point.lsn``.

    ``doubt`` says why the place is not exact: some of what was committed right after it may show too. A log that is
    read from there on misses nothing, and repeats what it shares with the state.
    """

    point: SnapshotPoint
    read_at: datetime
    doubt: str | None = None


@contextmanager
def one_state(connection: psycopg.Connection) -> Iterator[State]:
    """Open a transaction that reads one state of the store, at an exact place of its log where the server can tell."""
    # A place taken after the state could lie beyond a commit that the state does not show.
    point = snapshot_point(connection)
    with ExitStack() as stack:
        try:
            with exported_snapshot() as (lsn, snapshot):
                read_at = stack.enter_context(repeatable_read(connection, snapshot))
            state = State(replace(point, lsn=lsn), read_at)
        except NoSlotError as error:
            state = State(point, stack.enter_context(repeatable_read(connection)), str(error))
        yield state


@contextmanager
def repeatable_read(connection: psycopg.Connection, snapshot: str | None = None) -> Iterator[datetime]:
    """Open a transaction that reads one state, or the state of an exported snapshot; yield the moment it began."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read read only")
        if snapshot is not None:
            connection.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))
        connection.execute("set local datestyle = 'ISO'")
        connection.execute("set local bytea_output = 'hex'")
        row = connection.execute("select transaction_timestamp()").fetchone()
        if row is None:
            raise AssertionError("no row from transaction_timestamp()")
        yield row[0]


@dataclass(frozen=True)
class Table:
    """An entity as its table is now; ``numbers`` are those of its columns in the catalogue, by contract column."""

    entity: Entity
    view: TableView
    numbers: Mapping[str, int]


def tables_now(connection: psycopg.Connection, pin: Pin) -> list[Table]:
    """Return every table of the contract as it is now; columns renamed since they were noted are found again."""
    return [table_now(connection, pin, entity) for entity in entities(SOURCE).values()]


def table_now(connection: psycopg.Connection, pin: Pin, entity: Entity) -> Table:
    """Return one table of the contract as it is now."""
    columns = catalog_columns(connection, *table_of(entity))
    renamed = renamed_since(noted_numbers(pin, entity), columns)
    view = view_of(entity, {column.name: column.type_oid for column in columns}, renamed)
    by_name = {column.name: column.number for column in columns}
    numbers = {name: by_name[source] for name, source in view.sources.items() if source is not None}
    return Table(entity, view, numbers)


def noted_numbers(pin: Pin, entity: Entity) -> dict[str, int]:
    """Return the catalogue's numbers of columns as the last snapshot of an entity noted them."""
    for commit in reversed(pin.batches(SOURCE, kind="snapshot")):
        if "columns" in commit.parameters:
            found: dict[str, dict[str, int]] = json.loads(commit.parameters["columns"])
            if entity.name in found:
                return found[entity.name]
    return {}


def snapshot_point(connection: psycopg.Connection) -> SnapshotPoint:
    """Return where the server's log stands now."""
    row = connection.execute(
        """
        select
            (select system_identifier::text from pg_control_system()),
            (select timeline_id from pg_control_checkpoint()),
            (
                case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end - '0/0'
            )::bigint
        """
    ).fetchone()
    if row is None:
        raise AssertionError("no row from pg_control_system()")
    info = connection.info
    system_identifier, timeline, lsn = row
    return SnapshotPoint(system_identifier, timeline, lsn, f"postgresql://{info.host}:{info.port}/{info.dbname}")


def lsn_text(lsn: int) -> str:
    """Return a place of the log as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def require_all_rows(connection: psycopg.Connection, tables: Iterable[Table]) -> None:
    """Refuse a role that row-level security keeps rows from: a snapshot takes what is absent for deleted."""
    names = [".".join(table_of(table.entity)) for table in tables]
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


def copy_table(connection: psycopg.Connection, table: Table, path: Path, where: sql.Composable = _ALL_ROWS) -> None:
    """Write rows of a table to a CSV file: the columns of its contract, one that is gone as null."""
    columns = sql.SQL(", ").join(
        sql.SQL("null::text") if source is None else sql.Identifier(source)
        for name in table.entity.column_names
        for source in [table.view.sources[name]]
    )
    # A null is an empty field, an empty text a quoted one.
    statement = sql.SQL("copy (select {} from {} where {}) to stdout (format csv)").format(
        columns, sql.Identifier(*table_of(table.entity)), where
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


def csv_of(folder: Path, entity: Entity) -> Path:
    """Return the file that a table of a batch is exported to."""
    return folder / f"{entity.name}.csv"


def stage_csv(batch: Landing, entity: Entity, path: Path) -> None:
    """Create the view ``staged`` from an exported table, and remove the file."""
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

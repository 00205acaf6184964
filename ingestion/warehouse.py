"""The raw zone in the PostgreSQL warehouse: what is new is appended to ``raw_<source>.<table>`` in one transaction."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files as package_files
from typing import Any

import duckdb

from ingestion.contracts import ENVELOPE, Column, Entity, entities
from ingestion.erasure import ERASABLE
from ingestion.raw_zone import BATCHES, Pin, RawZone, batch_table, parquet, relation, text_literal
from payments.errors import UsageError
from payments.settings import settings

SOURCES = ("oltp", "documents", "files")
_SCANNER = "duckdb_extension_postgres_scanner"


def load_postgres() -> dict[str, int]:
    """Load the batches of the raw zone that the warehouse lacks; return the rows loaded by table.

    The tables are made from the contracts where they are missing, and gain the columns that their contract gained. A
    warehouse that holds batches of another raw zone is emptied and loaded anew. Raises ``UsageError`` when the
    warehouse cannot be reached.
    """
    with attached_warehouse() as con:
        pin = RawZone(settings().raw_zone).pin()
        con.execute("begin")
        _create_tables(con)
        after = _loaded(con)
        _read_batches(con, pin, after)
        if after and not _holds(con, after):
            _empty(con, [*_tables(), "raw_platform.quarantine", "raw_platform.batches"])
            after = 0
            _read_batches(con, pin, after)
        con.execute("delete from batches where sequence <= ?", [after])
        # Rows of these that were loaded are others since an erasure.
        rewritten = _erasable() if after < pin.checkpoint.rewritten else []
        if after and rewritten:
            _empty(con, rewritten)
        touched = con.execute("select distinct 'raw_' || source || '.' || entity from batches").fetchall()
        since = {table: after for (table,) in touched} | dict.fromkeys(rewritten, 0)
        loaded = {
            table: _append(con, pin, entity, since[table]) if table in since else 0
            for table, entity in _tables().items()
        }
        quarantine = "raw_platform.quarantine"
        loaded[quarantine] = _append_quarantine(con, pin, since.get(quarantine, after))
        loaded["raw_platform.batches"] = _insert(con, entities("platform")["batches"], "select * from batches")
        con.execute("commit")
        return loaded


@contextmanager
def attached_warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a DuckDB connection with the warehouse attached as ``wh``."""
    known = settings()
    address = {
        "host": known.warehouse_host,
        "port": known.warehouse_port or known.oltp_port,
        "user": known.warehouse_user,
        "password": known.warehouse_password,
        "dbname": known.warehouse_dbname,
        "connect_timeout": 10,
    }
    conninfo = " ".join(f"{name}='{_escaped(str(value))}'" for name, value in address.items())
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(f"load {text_literal(_scanner())}")
        try:
            con.execute(f"attach {text_literal(conninfo)} as wh (type postgres)")
        except duckdb.Error:
            # The engine's message repeats the connection string, with the password.
            where = f"{known.warehouse_host}:{address['port']}/{known.warehouse_dbname}"
            raise UsageError(
                f"The warehouse {where} cannot be reached as {known.warehouse_user}: run payments up or set "
                "PAYMENTS_WAREHOUSE_HOST, _PORT, _USER, _PASSWORD and _DBNAME."
            ) from None
        yield con


def _scanner() -> str:
    """Return the path of the extension in the installed wheel: nothing is downloaded."""
    folder = package_files(_SCANNER) / "extensions" / f"v{duckdb.__version__}"
    return str(folder / "postgres_scanner.duckdb_extension")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def _execute(con: duckdb.DuckDBPyConnection, statement: str) -> None:
    con.execute(f"call postgres_execute('wh', {text_literal(statement)})")


def _create_tables(con: duckdb.DuckDBPyConnection) -> None:
    statements: list[str] = []
    for source in (*SOURCES, "platform"):
        statements.append(f"create schema if not exists raw_{source}")
        for entity in entities(source).values():
            columns = [f'"{column.name}" {column.type}' for column in _columns(entity)]
            table = f'raw_{source}."{entity.name}"'
            added = ", ".join(f"add column if not exists {column}" for column in columns)
            statements.append(f"create table if not exists {table} ({', '.join(columns)})")
            statements.append(f"alter table {table} {added}")
    statements.append("create index if not exists batches_by_sequence on raw_platform.batches (sequence)")
    _execute(con, "; ".join(statements))


def _columns(entity: Entity) -> tuple[Column, ...]:
    return entity.columns if entity.source == "platform" else (*entity.columns, *ENVELOPE)


def _loaded(con: duckdb.DuckDBPyConnection) -> int:
    row = _ask(con, "select coalesce(max(sequence), 0) from raw_platform.batches")
    return int(row[0])


def _ask(con: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """Return the first row of a query that the warehouse itself answers."""
    row: tuple[Any, ...] | None = con.execute(f"from postgres_query('wh', {text_literal(query)})").fetchone()
    if row is None:
        raise AssertionError(f"no row from: {query}")
    return row


def _read_batches(con: duckdb.DuckDBPyConnection, pin: Pin, since: int) -> None:
    """Fill the table ``batches`` with the rows of ``platform.batches`` from a sequence on."""
    names = ", ".join(column.name for column in entities("platform")["batches"].columns)
    merged = [pin.root / file.name for file in pin.checkpoint.files.get(BATCHES, []) if file.highest >= since]
    con.register("landed", batch_table(commit for commit in pin.commits if commit.sequence >= since))
    older = f"union all select {names} from {parquet(merged)} where sequence >= {since}" if merged else ""
    con.execute(f"create or replace temp table batches as select {names} from landed {older}")
    con.unregister("landed")


def _holds(con: duckdb.DuckDBPyConnection, sequence: int) -> bool:
    """Return whether the batch last loaded is one of this raw zone."""
    here = con.execute("select max(landed_at) from batches where sequence = ?", [sequence]).fetchone()
    there = _ask(con, f"select max(landed_at) from raw_platform.batches where sequence = {sequence}")
    return here == there and there != (None,)


def _tables() -> dict[str, Entity]:
    return {f"raw_{source}.{name}": entity for source in SOURCES for name, entity in entities(source).items()}


def _erasable() -> list[str]:
    tables = [f"raw_{source}.{name}" for source, names in ERASABLE.items() for name in names]
    return [*tables, "raw_platform.quarantine"]


def _empty(con: duckdb.DuckDBPyConnection, tables: Iterable[str]) -> None:
    _execute(con, f"truncate {', '.join(tables)}")


def _append(con: duckdb.DuckDBPyConnection, pin: Pin, entity: Entity, after: int) -> int:
    files = pin.files(entity.source, entity.name, after=after)
    if not files:
        return 0
    # A merged file holds older rows as well.
    return _insert(con, entity, f"{relation(con, entity, files)} where _sequence > {after}")


def _append_quarantine(con: duckdb.DuckDBPyConnection, pin: Pin, after: int) -> int:
    entity = entities("platform")["quarantine"]
    files = [
        path
        for source in SOURCES
        for name in entities(source)
        for path in pin.files(source, name, "quarantine", after=after)
    ]
    return _insert(con, entity, f"select * from {parquet(files)} where sequence > {after}") if files else 0


def _insert(con: duckdb.DuckDBPyConnection, entity: Entity, rows: str) -> int:
    names = ", ".join(f'"{column.name}"' for column in _columns(entity))
    table = f'wh.raw_{entity.source}."{entity.name}"'
    inserted = con.execute(f"insert into {table} ({names}) select {names} from ({rows})").fetchone()
    return int(inserted[0]) if inserted else 0

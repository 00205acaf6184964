"""The raw zone in the PostgreSQL warehouse: what is new is appended to ``raw_<source>.<table>`` in one transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files as package_files

import duckdb

from ingestion.contracts import ENVELOPE, Column, Entity, entities
from ingestion.raw_zone import Commit, Pin, RawZone, parquet, relation, text_literal
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
    pin = RawZone(settings().raw_zone).pin()
    with attached_warehouse() as con:
        con.execute("begin")
        _create_tables(con)
        after = _loaded(con)
        if after and not _holds(con, pin, after):
            _empty(con)
            after = 0
        loaded = {
            f"raw_{entity.source}.{entity.name}": _append(con, pin, entity, after)
            for source in SOURCES
            for entity in entities(source).values()
        }
        loaded["raw_platform.quarantine"] = _append_quarantine(con, pin, after)
        loaded["raw_platform.batches"] = _append_batches(con, pin, after)
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
    _execute(con, "; ".join(statements))


def _columns(entity: Entity) -> tuple[Column, ...]:
    return entity.columns if entity.source == "platform" else (*entity.columns, *ENVELOPE)


def _loaded(con: duckdb.DuckDBPyConnection) -> int:
    row = con.execute("select coalesce(max(sequence), 0) from wh.raw_platform.batches").fetchone()
    return int(row[0]) if row else 0


def _holds(con: duckdb.DuckDBPyConnection, pin: Pin, sequence: int) -> bool:
    """Return whether the batch last loaded is one of this raw zone."""
    commit = next((commit for commit in pin.commits if commit.sequence == sequence), None)
    row = con.execute("select max(landed_at) from wh.raw_platform.batches where sequence = ?", [sequence]).fetchone()
    return commit is not None and row is not None and row[0] == commit.landed_at


def _empty(con: duckdb.DuckDBPyConnection) -> None:
    tables = [f'raw_{source}."{name}"' for source in (*SOURCES, "platform") for name in entities(source)]
    _execute(con, f"truncate {', '.join(tables)}")


def _append(con: duckdb.DuckDBPyConnection, pin: Pin, entity: Entity, after: int) -> int:
    files = pin.files(entity.source, entity.name, after=after)
    if not files:
        return 0
    present = [row[0] for row in con.execute(f"describe select * from {parquet(files)}").fetchall()]
    return _insert(con, entity, relation(entity, files, present))


def _append_quarantine(con: duckdb.DuckDBPyConnection, pin: Pin, after: int) -> int:
    entity = entities("platform")["quarantine"]
    files = [
        path
        for source in SOURCES
        for name in entities(source)
        for path in pin.files(source, name, "quarantine", after=after)
    ]
    return _insert(con, entity, f"select * from {parquet(files)}") if files else 0


def _append_batches(con: duckdb.DuckDBPyConnection, pin: Pin, after: int) -> int:
    entity = entities("platform")["batches"]
    rows = [row for commit in pin.commits if commit.sequence > after for row in batch_rows(commit)]
    if not rows:
        return 0
    columns = ", ".join(f'"{column.name}" {column.duckdb_type}' for column in entity.columns)
    con.execute(f"create or replace temp table batches ({columns})")
    marks = ", ".join("?" for _ in entity.columns)
    con.executemany(f"insert into batches values ({marks})", rows)
    return _insert(con, entity, "select * from batches")


def _insert(con: duckdb.DuckDBPyConnection, entity: Entity, rows: str) -> int:
    names = ", ".join(f'"{column.name}"' for column in _columns(entity))
    table = f'wh.raw_{entity.source}."{entity.name}"'
    inserted = con.execute(f"insert into {table} ({names}) select {names} from ({rows})").fetchone()
    return int(inserted[0]) if inserted else 0


def batch_rows(commit: Commit) -> list[list[object]]:
    """Return the rows of ``platform.batches`` that a commit record stands for, one an entity, in contract order."""
    return [
        [
            commit.batch_id,
            commit.sequence,
            commit.source,
            part.entity,
            commit.kind,
            commit.origin,
            commit.position,
            commit.source_at,
            commit.landed_at,
            commit.code_version,
            part.schema_version,
            part.read,
            part.accepted,
            part.unchanged,
            part.quarantined,
            part.deleted,
        ]
        for part in commit.entities
    ]

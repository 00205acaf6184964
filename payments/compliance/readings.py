"""Reading each store for a comparison: PostgreSQL at a barrier, the raw zone as of a place, the models of a warehouse.

Raw zone and warehouse are read in one DuckDB session, in which the warehouse is attached as ``wh``, read-only.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import psycopg

from ingestion.contracts import Entity
from ingestion.landing import open_items
from ingestion.oltp import Table, table_of
from ingestion.raw_zone import Pin, Position, file_literal, parquet, relation, text_literal
from payments.compliance.barrier import Barrier
from payments.compliance.content import Content, content_of, content_query, key_text, row_hash
from payments.errors import UsageError

KEYS_NAMED = 5
"""How many differing keys are named of an entity."""
_MEMORY_LIMIT = "2GB"


@dataclass(frozen=True)
class Reading:
    """What a store holds of an entity; ``rows`` gives SQL for key and hash of each row, when those are asked for.

    ``as_of`` is the condition under which rows of the raw zone were read.
    """

    store: str
    content: Content
    rows: Callable[[], str]
    as_of: str = "true"


@dataclass(frozen=True)
class Comparison:
    """What the stores hold of one entity at one point, by store; ``first`` says what is wrong with the first keys.

    Without any content the entity could not be compared, and ``first`` says why.
    """

    entity: str
    contents: Mapping[str, Content]
    first: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether all stores say the same."""
        said = list(self.contents.values())
        return bool(said) and all(content == said[0] for content in said)

    @property
    def differences(self) -> Iterator[str]:
        """One sentence a measure on which the stores differ: rows, each sum of money, else the content."""
        if self.agrees or not self.contents:
            return
        measures = {"rows": {store: content.rows for store, content in self.contents.items()}}
        for column, currency in sorted({place for content in self.contents.values() for place in content.money}):
            measures[f"{column} {currency}"] = {
                store: content.money.get((column, currency), 0) for store, content in self.contents.items()
            }
        differing = {name: values for name, values in measures.items() if len(set(values.values())) > 1}
        if not differing:
            digits = {store: f"{content.checksum:x}" for store, content in self.contents.items()}
            yield f"{self.entity} content: " + _listed(digits)
        for name, values in differing.items():
            yield f"{self.entity} {name}: " + _listed(values)


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{store} {value}" for store, value in values.items())


@contextmanager
def session(warehouse: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open DuckDB with the warehouse attached. Raises ``UsageError`` when there is none or dbt is writing it."""
    if not warehouse.exists():
        raise UsageError(f"there is no warehouse at {warehouse}: run dbt build")
    with tempfile.TemporaryDirectory(prefix="payments-reconcile-") as spill:
        config = {"memory_limit": _MEMORY_LIMIT, "temp_directory": spill, "threads": 2}
        with duckdb.connect(config=config) as con:  # type: ignore[arg-type]
            con.execute("set TimeZone = 'UTC'")
            try:
                con.execute(f"attach {text_literal(str(warehouse))} as wh (read_only)")
            except duckdb.IOException as error:
                reason = str(error).splitlines()[0]
                raise UsageError(f"the warehouse cannot be read while something writes it ({reason})") from error
            yield con


def operational(con: duckdb.DuckDBPyConnection, found: Barrier, table: Table) -> Reading:
    """Read a table of PostgreSQL at the barrier. Raises ``UsageError`` when the server refuses."""
    entity = compared_columns(table)
    columns = ", ".join(f'"{source}" as "{name}"' for name, source in table.view.sources.items() if source is not None)
    rows = '(select {} from "{}"."{}") as rows'.format(columns, *table_of(entity))
    try:
        told = found.connection.execute(content_query(entity, rows, "postgres").encode()).fetchall()
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"The operational store cannot be read as {entity.name} is compared ({reason}).") from error
    return Reading("PostgreSQL", content_of(entity, told), lambda: _copied(con, found.connection, entity, rows))


def compared_columns(table: Table) -> Entity:
    """Return an entity without the columns that its table has lost."""
    kept = tuple(column for column in table.entity.columns if table.view.sources[column.name] is not None)
    return replace(table.entity, columns=kept)


def _copied(con: duckdb.DuckDBPyConnection, connection: psycopg.Connection, entity: Entity, relation: str) -> str:
    """Copy key and hash of every row into a table of the session, on disk rather than in memory."""
    rows = f"select {key_text(entity, 'postgres')}, {row_hash(entity, 'postgres')} from {relation}"
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        with connection.cursor().copy(f"copy ({rows}) to stdout (format csv)".encode()) as copy:
            for block in copy:
                file.write(block)
        file.flush()
        con.execute(
            f"""
            create or replace temp table copied as
            from read_csv(
                {file_literal(Path(file.name))}, columns = {{'key': 'varchar', 'hash': 'bigint'}}, auto_detect = false,
                header = false, delim = ',', quote = '"', escape = '"', max_line_size = 16000000
            )
            """
        )
    return "select key, hash from copied"


def as_of(con: duckdb.DuckDBPyConnection, pin: Pin, entity: Entity, condition: str) -> Reading:
    """Read the latest version of each record of the raw zone among the rows of a condition."""
    return replace(read(con, entity, "raw zone", f"({latest(con, pin, entity, condition)})"), as_of=condition)


def has_more(con: duckdb.DuckDBPyConnection, pin: Pin, entity: Entity, condition: str) -> bool:
    """Return whether the raw zone has rows of an entity that a condition leaves out."""
    files = pin.files(entity.source, entity.name)
    if not files:
        return False
    return bool(con.execute(f"select exists (from {parquet(files)} where not ({condition}))").fetchall()[0][0])


def changes_landed(con: duckdb.DuckDBPyConnection, pin: Pin, entity: Entity, start: Position, end: Position) -> Content:
    """Count the changes of an entity that landed from the log between two places; the checksum is of their positions.

    A truncation counts once, as in the log: it landed as the deletion of every row, all at one place.
    """
    files = pin.files(entity.source, entity.name)
    if not files:
        return Content()
    rows = con.execute(
        f"""
        with
        changes as (
            select _op, _position, left(_position, {len(start.prefix)}) as place
            from {parquet(files)}
            -- What a snapshot landed is of no transaction.
            where _position >= '{start}' and _position < '{end}' and _transaction_id is not null
        ),
        counted as (
            select _position from changes where _op <> 'd'
            union all
            select min(_position) as _position from changes where _op = 'd' group by place
        )
        select count(*), coalesce(sum(cast('0x' || left(md5(_position), 15) as bigint)), 0) from counted
        """
    ).fetchall()
    return Content(int(rows[0][0]), int(rows[0][1]))


def latest(con: duckdb.DuckDBPyConnection, pin: Pin, entity: Entity, condition: str) -> str:
    """Return SQL for the latest version of each record among the rows of a condition, without those deleted."""
    landed = relation(con, entity, pin.files(entity.source, entity.name))
    rows = f"select * from ({landed}) where {condition}"
    # Ranking whole rows costs more than looking whether any record has a second version.
    is_plain = con.execute(f"select count(*) = count(distinct _key) from ({rows})").fetchall()[0][0]
    newest = (
        "" if is_plain else "qualify row_number() over (partition by _key order by _position desc, _sequence desc) = 1"
    )
    return f"select * from ({rows} {newest}) where _op <> 'd'"


def read(con: duckdb.DuckDBPyConnection, entity: Entity, store: str, relation: str) -> Reading:
    """Read any relation of the session that has the columns of an entity."""
    content = content_of(entity, con.execute(content_query(entity, relation, "duckdb")).fetchall())
    rows = f"select {key_text(entity, 'duckdb')} as key, {row_hash(entity, 'duckdb')} as hash from {relation}"
    return Reading(store, content, lambda: rows)


def compared(con: duckdb.DuckDBPyConnection, entity: str, one: Reading, other: Reading) -> Comparison:
    """Compare two readings of an entity."""
    contents = {one.store: one.content, other.store: other.content}
    first = () if one.content == other.content else tuple(_differing_keys(con, one, other))
    return Comparison(entity, contents, first)


def _differing_keys(con: duckdb.DuckDBPyConnection, one: Reading, other: Reading) -> list[str]:
    """Return what is wrong with the first keys on which two readings differ, a sentence each."""
    found = con.execute(
        f"""
        with
        one as (select key, sum(hash) as hash, count(*) as times from ({one.rows()}) group by key),
        other as (select key, sum(hash) as hash, count(*) as times from ({other.rows()}) group by key)
        select
            case
                when other.key is null then 'only in {one.store}'
                when one.key is null then 'only in {other.store}'
                when one.times <> other.times
                    then one.times || ' times in {one.store}, ' || other.times || ' times in {other.store}'
                else 'other content in {other.store} than in {one.store}'
            end || ': ' || key
        from one
        full join other using (key)
        where one.hash is distinct from other.hash
        order by key
        limit {KEYS_NAMED}
        """
    ).fetchall()
    return [row[0] for row in found]


def in_quarantine(con: duckdb.DuckDBPyConnection, pin: Pin, entity: Entity) -> int:
    """Return how many records of an entity stand in quarantine, unsettled."""
    items = open_items(pin, entity.source, entity.name)
    return 0 if items is None else int(con.execute(f"select count(*) from ({items})").fetchall()[0][0])

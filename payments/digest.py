"""Digests of the marts, by which two engines are shown to hold the same rows.

Both warehouses are read through DuckDB, so that one engine writes the canonical text of every row and adds up its
hashes; a difference is then one of content, never of formatting. The canonical text of a row is its columns in order
of their names, each as ``name=text`` (timestamps in UTC to the microsecond, null as no text at all), parted by a unit
separator. The checksum of a model is the sum of the md5 numbers of its rows modulo 2**64, for both halves: it does
not depend on the order of rows, and a row that stands twice counts twice.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb

from ingestion.warehouse import attached_warehouse
from payments.errors import UsageError
from payments.settings import PROJECT_ROOT, settings

Target = Literal["duckdb", "postgres"]
MANIFEST = PROJECT_ROOT / "target" / "manifest.json"


@dataclass(frozen=True)
class Digest:
    """Number of rows of a model and the order-free checksum of their content."""

    rows: int
    checksum: str


NOT_BUILT = Digest(0, "not built")
"""The digest of a model that a target has not built."""


@dataclass(frozen=True)
class Comparison:
    """The digests of one model on both engines."""

    model: str
    duckdb: Digest
    postgres: Digest

    @property
    def equal(self) -> bool:
        """Whether both engines have built the model with the same rows."""
        return self.duckdb == self.postgres != NOT_BUILT


def digest(target: Target, manifest: Path = MANIFEST, layer: str = "marts") -> dict[str, Digest]:
    """Return the digest of every model of a layer of a target, by model; ``NOT_BUILT`` for one it has not built.

    Raises ``UsageError`` when there is no manifest or the warehouse cannot be reached.
    """
    models = _models(manifest, layer)
    with warehouse_of(target) as (con, catalog):
        return {model: _digest_of(con, catalog, schema, table) for model, (schema, table) in sorted(models.items())}


def compare(manifest: Path = MANIFEST) -> list[Comparison]:
    """Return the digests of every mart on DuckDB beside those on PostgreSQL."""
    ours, theirs = digest("duckdb", manifest), digest("postgres", manifest)
    return [Comparison(model, ours[model], theirs[model]) for model in ours]


def _models(manifest: Path, layer: str) -> dict[str, tuple[str, str]]:
    """Return schema and table of every model of a layer in a dbt manifest."""
    if not manifest.is_file():
        raise UsageError(f"There is no {manifest}: run dbt build first.")
    nodes: dict[str, dict[str, Any]] = json.loads(manifest.read_text(encoding="utf-8"))["nodes"]
    return {
        node["alias"]: (node["schema"], node["alias"])
        for node in nodes.values()
        if node["resource_type"] == "model" and layer in node["fqn"]
    }


@contextmanager
def warehouse_of(target: Target) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """Yield a DuckDB connection to a warehouse, and the name of its catalogue there."""
    if target == "postgres":
        with attached_warehouse() as con:
            yield con, "wh"
        return
    path = settings().warehouse_path
    if not path.is_file():
        raise UsageError(f"There is no warehouse {path}: run dbt build first.")
    with duckdb.connect(str(path), read_only=True) as con:
        con.execute("set TimeZone = 'UTC'")
        yield con, con.execute("select current_database()").fetchall()[0][0]


def _digest_of(con: duckdb.DuckDBPyConnection, catalog: str, schema: str, table: str) -> Digest:
    columns: list[tuple[str, str]] = con.execute(
        """
        select column_name, data_type
        from duckdb_columns()
        where database_name = $catalog and schema_name = $schema and table_name = $table
        order by column_name
        """,
        {"catalog": catalog, "schema": schema, "table": table},
    ).fetchall()
    if not columns:
        return NOT_BUILT
    parts = ", ".join(_canonical(name, data_type) for name, data_type in columns)
    rows, low, high = con.execute(
        f"""
        with
        hashed as (
            select md5(concat_ws(chr(31), {parts})) as hash
            from {quoted(catalog)}.{quoted(schema)}.{quoted(table)}
        )
        select
            count(*),
            coalesce(sum(cast('0x' || substr(hash, 1, 16) as ubigint)), 0) % 18446744073709551616,
            coalesce(sum(cast('0x' || substr(hash, 17, 16) as ubigint)), 0) % 18446744073709551616
        from hashed
        """
    ).fetchall()[0]
    return Digest(rows, f"{low:016x}{high:016x}")


def _canonical(name: str, data_type: str) -> str:
    """Return the SQL of a column's canonical text; a null is left out by ``concat_ws``."""
    value = quoted(name)
    if data_type == "TIMESTAMP WITH TIME ZONE":
        value = f"strftime({value} at time zone 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')"
    return f"{literal(name + '=')} || cast({value} as varchar)"


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"

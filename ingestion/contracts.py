"""The raw contract of each source, read from the dbt source files: one home for landing, dbt and the warehouse."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from payments.errors import UsageError
from payments.settings import PROJECT_ROOT

CONTRACTS = PROJECT_ROOT / "models" / "staging"

_DUCKDB_TYPES = {
    "text": "varchar",
    "bigint": "bigint",
    "integer": "integer",
    "boolean": "boolean",
    "date": "date",
    "timestamptz": "timestamptz",
    "double precision": "double",
}
_NUMERIC = re.compile(r"numeric\(\d+, ?\d+\)")


LARGEST_AMOUNT_MINOR = 10**13
"""The most minor units of one amount (a hundred billion of a currency with two decimals), so that sums stay bigint."""


@dataclass(frozen=True)
class Column:
    """A column: ``type`` as PostgreSQL writes it; ``is_json`` when nested values are welcome, as JSON text.

    ``paths`` says where a document holds it, when that is not a field of the same name: field names joined by dots,
    the first that is there counts, so that schema versions with other shapes become one column.
    """

    name: str
    type: str
    required: bool = False
    is_json: bool = False
    paths: tuple[str, ...] = ()

    @property
    def duckdb_type(self) -> str:
        """The type as DuckDB writes it."""
        return _DUCKDB_TYPES.get(self.type, self.type)


@dataclass(frozen=True)
class Entity:
    """One relation of a source: the columns of its natural key and all of its columns, in order."""

    source: str
    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    schema_version: int = 1

    @property
    def column_names(self) -> list[str]:
        """The names of all columns, in order."""
        return [column.name for column in self.columns]

    @property
    def text_columns(self) -> list[str]:
        """The names of the columns that hold text."""
        return [column.name for column in self.columns if column.type == "text"]


ENVELOPE = (
    Column("_op", "text", required=True),
    Column("_key", "text", required=True),
    Column("_before", "text"),
    Column("_unchanged_columns", "text"),
    Column("_position", "text", required=True),
    Column("_source_at", "timestamptz", required=True),
    Column("_transaction_id", "text"),
    Column("_schema_version", "integer", required=True),
    Column("_content_hash", "text", required=True),
    Column("_batch_id", "text", required=True),
    Column("_sequence", "bigint", required=True),
)
"""The columns that the landing writer appends to every row: operation, key, position, content hash and batch."""


@cache
def entities(source: str, folder: Path = CONTRACTS) -> dict[str, Entity]:
    """Return the entities of a source by name, in the order of its contract.

    The contract is every ``<folder>/<source>/_*__sources.yml``: a large source has a file for each area. Raises
    ``UsageError`` when there is none or it names an unknown type.
    """
    paths = sorted((folder / source).glob("_*__sources.yml"))
    declared = [
        table
        for path in paths
        for found in yaml.safe_load(path.read_text(encoding="utf-8"))["sources"]
        if found["name"] == source
        for table in found["tables"]
    ]
    if not declared:
        raise UsageError(f"No contract for source {source}: no _*__sources.yml in {folder / source} declares it.")
    return {table["name"]: _entity(source, table) for table in declared}


def _entity(source: str, table: dict[str, Any]) -> Entity:
    columns = tuple(_column(table["name"], column) for column in table["columns"])
    meta = _meta(table)
    key = tuple(meta.get("key", ()))
    if unknown := set(key) - {column.name for column in columns}:
        raise UsageError(f"The key of {source}.{table['name']} names columns that it does not have: {sorted(unknown)}.")
    return Entity(source, table["name"], key, columns, int(meta.get("schema_version", 1)))


def _column(table: str, column: dict[str, Any]) -> Column:
    data_type = str(column["data_type"]).lower()
    if data_type not in _DUCKDB_TYPES and not _NUMERIC.fullmatch(data_type):
        raise UsageError(f"Column {table}.{column['name']} has a type that no contract knows: {data_type}.")
    meta = _meta(column)
    return Column(
        column["name"],
        data_type,
        bool(meta.get("required", False)),
        bool(meta.get("json", False)),
        tuple(meta.get("paths", ())),
    )


def _meta(node: dict[str, Any]) -> dict[str, Any]:
    return dict(node.get("config", {}).get("meta", {}))

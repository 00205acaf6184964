"""How the columns of a contract are read from a table that changes while its log is read.

What the contract names must be there, under its name or the name that the column has by now (its number in the
catalogue stays). A column that may be null may also be gone: it is null from there on. What the contract does not name
never leaves the store. A table that does not fit any more is stopped: the others go on, and its changes go to
quarantine until a snapshot of it begins anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg

from ingestion.contracts import Entity

_INTEGERS = frozenset({20, 21, 23, 5069})  # bigint, smallint, integer, xid8
# The type oids from which a type of the contract can be read; text can be read from every type.
_READABLE = {
    "bigint": _INTEGERS,
    "integer": _INTEGERS,
    "boolean": frozenset({16}),
    "date": frozenset({1082}),
    "timestamptz": frozenset({1184}),
    "double precision": _INTEGERS | {700, 701, 1700},
}
_NUMERIC = _INTEGERS | {1700}


@dataclass(frozen=True)
class CatalogColumn:
    """A column of a table as the catalogue has it; ``number`` stays when it is renamed."""

    name: str
    number: int
    type_oid: int


@dataclass(frozen=True)
class TableView:
    """From which column of the table each column of the contract is read: None when it is gone.

    ``stopped`` says why the table cannot be read any more.
    """

    sources: Mapping[str, str | None]
    stopped: str | None = None


def view_of(entity: Entity, type_oids: Mapping[str, int], renamed: Mapping[str, str]) -> TableView:
    """Return how an entity is read from a table with these columns; ``renamed`` has new names by contract column."""
    sources: dict[str, str | None] = {}
    reasons = []
    for column in entity.columns:
        name = next((name for name in (column.name, renamed.get(column.name)) if name in type_oids), None)
        sources[column.name] = name
        if name is None:
            if column.required or column.name in entity.key:
                reasons.append(f"the table has no column {column.name}")
        elif not _is_readable(column.type, type_oids[name]):
            reasons.append(f"column {name} is no {column.type} any more")
            sources[column.name] = None
    return TableView(sources, "; ".join(reasons) or None)


def _is_readable(contract_type: str, type_oid: int) -> bool:
    if contract_type == "text":
        return True
    return type_oid in _READABLE.get(contract_type, _NUMERIC)


def catalog_columns(connection: psycopg.Connection, schema: str, table: str) -> list[CatalogColumn]:
    """Return the columns of a table as they are now; none when there is no such table."""
    rows = connection.execute(
        """
        select attname, attnum, atttypid::bigint
        from pg_attribute
        where
            attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text))
            and attnum > 0
            and not attisdropped
        order by attnum
        """,
        (schema, table),
    ).fetchall()
    return [CatalogColumn(str(name), int(number), int(oid)) for name, number, oid in rows]


def renamed_since(numbers: Mapping[str, int], columns: list[CatalogColumn]) -> dict[str, str]:
    """Return the present name of each contract column whose number in the catalogue was noted under another name."""
    names = {column.number: column.name for column in columns}
    return {name: names[number] for name, number in numbers.items() if names.get(number, name) != name}

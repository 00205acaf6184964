"""Documents as records of the landing writer: columns from fields and paths, nested values as canonical JSON text."""

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pyarrow as pa
from bson import Int64, json_util

from ingestion.contracts import Column, Entity
from ingestion.landing import Landing, record_of

DOCUMENTS_A_BATCH = 5_000

REFUSAL = "refusal"
_OPTIONS = json_util.JSONOptions(
    json_mode=json_util.JSONMode.RELAXED,
    datetime_representation=json_util.DatetimeRepresentation.ISO8601,
    tz_aware=True,
    tzinfo=UTC,
)


class MisfitError(Exception):
    """A document that does not fit its contract: rule and reason."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


def stage(batch: Landing, entity: Entity, documents: Iterable[dict[str, Any]]) -> None:
    """Create the view ``staged`` from documents, a few thousand at a time."""
    con = batch.con
    columns = [f'"{column.name}" {_STAGED[column.type][0]}' for column in entity.columns]
    con.execute("drop view if exists staged")
    con.execute(f"create or replace temp table read ({', '.join(columns)}, _rule text, _reason text, _document text)")
    unread = iter(documents)
    while some := list(islice(unread, DOCUMENTS_A_BATCH)):
        con.register("incoming", _table(entity, some))
        con.execute("insert into read select * from incoming")
        con.unregister("incoming")
    con.execute(
        f"""
        create temp view staged as
        select
            rowid as _ordinal,
            * exclude (_document),
            coalesce(_document, {record_of(entity)}) as _record,
        from read
        """
    )


def fields_of(entity: Entity) -> list[str]:
    """Return the fields of a document that the contract asks for, and where its writer says why it does not fit."""
    asked = [path.partition(".")[0] for column in entity.columns for path in _paths(entity, column)]
    return list(dict.fromkeys([*asked, REFUSAL]))


def is_document(record: str) -> bool:
    """Return whether a quarantined record is a document as it was read, not its columns."""
    return '"_id":' in record


def document_of(record: str) -> dict[str, Any]:
    """Return the document that a quarantined record holds (extended JSON)."""
    document: dict[str, Any] = json_util.loads(record, json_options=_OPTIONS)
    return document


def _table(entity: Entity, documents: list[dict[str, Any]]) -> pa.Table:
    """Return documents as columns. One that does not fit is blank but for its key, with what is wrong with it."""
    misfits: dict[int, MisfitError] = {
        place: MisfitError(refusal["rule"], refusal["reason"])
        for place, refusal in enumerate(_values(documents, (REFUSAL,)))
        if refusal is not None
    }
    arrays = []
    for column in entity.columns:
        values = _values(documents, _paths(entity, column))
        if not set(map(type, values)) <= _FITTING[column.type, column.required]:
            values = _checked(column, values, misfits)
        arrays.append((column, values))
    for place, version in enumerate(_values(documents, ("schema_version",))):
        if version is not None and not 1 <= version <= entity.schema_version:
            reason = f"schema_version {version} is none of 1 to {entity.schema_version}"
            misfits.setdefault(place, MisfitError("unknown_schema_version", reason))
    for place in misfits:
        for column, values in arrays:
            # The key stays known: a document that no longer fits has not been deleted.
            if column.name not in entity.key:
                values[place] = None
    notes: list[tuple[str | None, str | None, str | None]] = [(None, None, None)] * len(documents)
    wanted = fields_of(entity)
    for place, misfit in misfits.items():
        document = {name: documents[place][name] for name in wanted if name in documents[place]}
        notes[place] = (misfit.rule, str(misfit), json_util.dumps(document, json_options=_OPTIONS))
    return pa.Table.from_arrays(
        [
            *(pa.array(values, _STAGED[column.type][1]) for column, values in arrays),
            *(pa.array(note, pa.string()) for note in zip(*notes, strict=True)),
        ],
        [*entity.column_names, "_rule", "_reason", "_document"],
    )


def _values(documents: list[dict[str, Any]], paths: tuple[str, ...]) -> list[Any]:
    if len(paths) == 1 and "." not in paths[0]:
        (name,) = paths
        return [document.get(name) for document in documents]
    return [_value(document, paths) for document in documents]


def _checked(column: Column, values: list[Any], misfits: dict[int, MisfitError]) -> list[Any]:
    """Return values as the column takes them, None for what does not fit; the first misfit of a document stands."""
    found: list[Any] = []
    for place, value in enumerate(values):
        try:
            found.append(_cell(column, value))
        except MisfitError as misfit:
            found.append(None)
            misfits.setdefault(place, misfit)
    return found


def _paths(entity: Entity, column: Column) -> tuple[str, ...]:
    return ("_id",) if column.name in entity.key else column.paths or (column.name,)


def _value(document: dict[str, Any], paths: tuple[str, ...]) -> Any:
    """Return what stands at the first path that leads to something."""
    for path in paths:
        found: Any = document
        for field in path.split("."):
            found = found.get(field) if isinstance(found, dict) else None
        if found is not None:
            return found
    return None


def _cell(column: Column, value: Any) -> Any:
    if value is None and column.required:
        raise MisfitError("missing_value", f"{column.name} is missing")
    if value is None or type(value) in _PLAIN[column.type]:
        return value
    if column.is_json and isinstance(value, dict | list):
        return _json(column, value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if column.type == "double precision" and is_number and math.isfinite(value):
        return float(value)
    raise _wrong(column, value)


def _wrong(column: Column, value: Any) -> MisfitError:
    return MisfitError("wrong_type", f"{column.name} is {type(value).__name__}, not {column.type}")


def _json(column: Column, value: Any) -> str:
    """Return a nested value as canonical JSON text."""

    def plain(nested: Any) -> str:
        if isinstance(nested, datetime):
            return nested.astimezone(UTC).isoformat()
        if isinstance(nested, bytes):
            raise _wrong(column, nested)
        return str(nested)

    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=plain)


# How a column is staged: its type in DuckDB and in Arrow. The landing writer narrows integers, or refuses them.
_STAGED: dict[str, tuple[str, pa.DataType]] = {
    "text": ("varchar", pa.string()),
    "bigint": ("bigint", pa.int64()),
    "integer": ("bigint", pa.int64()),
    "double precision": ("double", pa.float64()),
    "boolean": ("boolean", pa.bool_()),
    "timestamptz": ("timestamptz", pa.timestamp("us", "UTC")),
}

# The types whose values fit a column as they are, so that a batch is looked at as a whole; anything else is looked at
# one by one (a number may not be finite, so doubles always are).
_PLAIN: dict[str, set[type]] = {
    "text": {str},
    "bigint": {int, Int64},
    "integer": {int, Int64},
    "double precision": set(),
    "boolean": {bool},
    "timestamptz": {datetime},
}
_FITTING = {
    (kind, is_required): found | (set() if is_required else {type(None)})
    for kind, found in _PLAIN.items()
    for is_required in (False, True)
}

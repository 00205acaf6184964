"""The document collections, landed in batches of documents; nested values become canonical JSON text.

Only the fields of the contract are asked for: text that a person wrote (``text_encrypted``) never leaves the store. A
document in which its writer has left a ``refusal`` (rule and reason) goes to quarantine with that.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

import duckdb
import pyarrow as pa
from bson import json_util
from pymongo.errors import PyMongoError

from ingestion.contracts import Column, Entity, entities
from ingestion.landing import Landing, LandingReport, Staged, landing
from ingestion.raw_zone import text_literal
from payments.errors import UsageError
from payments.systems.documents.client import database

SOURCE = "documents"
DOCUMENTS_A_BATCH = 5_000

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


def land_documents(collections: Sequence[str] | None = None) -> LandingReport:
    """Land collections (all of the contract by default), each read as a whole; absent documents become deletions.

    Raises ``UsageError`` for a collection that the contract does not name, or when the store cannot be reached.
    """
    known = entities(SOURCE)
    if unknown := sorted(set(collections or ()) - set(known)):
        raise UsageError(f"No such collection: {', '.join(unknown)} (there are {', '.join(known)}).")
    with landing(SOURCE, "snapshot", origin="") as batch:
        store = database()
        host, port = store.client.address or ("", 0)
        batch.origin = f"mongodb://{host}:{port}/{store.name}"
        batch.source_at = datetime.now(UTC)
        for name in collections or known:
            entity = known[name]
            projection = {path.partition(".")[0]: True for column in entity.columns for path in _paths(entity, column)}
            projection["refusal"] = True
            try:
                stage(batch, entity, store[name].find({}, projection, batch_size=DOCUMENTS_A_BATCH))
            except PyMongoError as error:
                reason = str(error).splitlines()[0]
                raise UsageError(f"Collection {name} cannot be read ({reason}): check the document store.") from error
            batch.land(Staged(entity, "staged", is_complete=True))
        return batch.commit()


def stage(batch: Landing, entity: Entity, documents: Iterable[dict[str, Any]]) -> None:
    """Create the view ``staged`` from documents, a few thousand at a time."""
    names = [*entity.column_names, "_rule", "_reason", "_document"]
    con = batch.con
    con.execute("drop view if exists staged")
    con.execute(f"create or replace temp table read ({', '.join(f'{name} varchar' for name in names)})")
    readers = [(column, _paths(entity, column), _READERS[column.type]) for column in entity.columns]
    for cells in _batches(map(partial(_cells, entity, readers), documents)):
        _insert(con, names, cells)
    record = ", ".join(f"{text_literal(name)}, {name}" for name in entity.column_names)
    con.execute(
        f"""
        create temp view staged as
        select
            rowid as _ordinal,
            * exclude (_document),
            coalesce(_document, cast(json_object({record}) as varchar)) as _record,
        from read
        """
    )


def is_document(record: str) -> bool:
    """Return whether a quarantined record is a document as it was read, not its columns."""
    return '"_id":' in record


def document_of(record: str) -> dict[str, Any]:
    """Return the document that a quarantined record holds (extended JSON)."""
    document: dict[str, Any] = json_util.loads(record, json_options=_OPTIONS)
    return document


def _insert(con: duckdb.DuckDBPyConnection, names: list[str], cells: list[list[str | None]]) -> None:
    arrow = pa.Table.from_arrays([pa.array(column, pa.string()) for column in zip(*cells, strict=True)], names)
    con.register("incoming", arrow)
    con.execute("insert into read select * from incoming")
    con.unregister("incoming")


def _batches(rows: Iterator[list[str | None]]) -> Iterator[list[list[str | None]]]:
    while batch := list(islice(rows, DOCUMENTS_A_BATCH)):
        yield batch


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


_Reader = Callable[[Column, Any], str]


def _cells(
    entity: Entity, readers: list[tuple[Column, tuple[str, ...], _Reader]], document: dict[str, Any]
) -> list[str | None]:
    """Return a document as the texts of its columns, or as what is wrong with it."""
    try:
        if refusal := document.get("refusal"):
            raise MisfitError(refusal["rule"], refusal["reason"])
        found = [_cell(column, _value(document, paths), reader) for column, paths, reader in readers]
        version = document.get("schema_version", 1)
        if not 1 <= version <= entity.schema_version:
            raise MisfitError(
                "unknown_schema_version", f"schema_version {version} is none of 1 to {entity.schema_version}"
            )
    except MisfitError as misfit:
        blank: list[str | None] = [None] * len(readers)
        # The key stays known: a document that no longer fits has not been deleted.
        for place, (column, _, _) in enumerate(readers):
            if column.name in entity.key and isinstance(document.get("_id"), str):
                blank[place] = document["_id"]
        return [*blank, misfit.rule, str(misfit), json_util.dumps(document, json_options=_OPTIONS)]
    return [*found, None, None, None]


def _cell(column: Column, value: Any, reader: _Reader) -> str | None:
    if value is None:
        if column.required:
            raise MisfitError("missing_value", f"{column.name} is missing")
        return None
    return reader(column, value)


def _wrong(column: Column, value: Any) -> MisfitError:
    return MisfitError("wrong_type", f"{column.name} is {type(value).__name__}, not {column.type}")


def _text(column: Column, value: Any) -> str:
    if isinstance(value, str):
        return value
    if column.is_json and isinstance(value, dict | list):
        return json.dumps(
            value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=partial(_nested, column)
        )
    raise _wrong(column, value)


def _nested(column: Column, value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, bytes):
        raise _wrong(column, value)
    return str(value)


def _integer(column: Column, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    raise _wrong(column, value)


def _double(column: Column, value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return repr(float(value))
    raise _wrong(column, value)


def _boolean(column: Column, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    raise _wrong(column, value)


def _moment(column: Column, value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise _wrong(column, value)


_READERS: dict[str, _Reader] = {
    "text": _text,
    "bigint": _integer,
    "integer": _integer,
    "double precision": _double,
    "boolean": _boolean,
    "timestamptz": _moment,
}

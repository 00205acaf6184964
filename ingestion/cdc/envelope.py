"""The envelope: how a change, an event and a barrier look on a topic.

A change is a JSON object with the fields of the raw zone's envelope: source, entity, op, key, before, after, unchanged
columns, position, moment of the commit, transaction, schema version. Values are text, as PostgreSQL writes them. Its
key is ``tenant|entity|primary key``; a tenant is a merchant, and what belongs to none has its own key in that place.
All changes of a tenant go to one partition, so that it has them in their order; a truncation goes to every partition.

After the changes of a batch, a barrier goes to every partition. It says between which places of the log the batch
stands, and how many of its changes the partition got: so a reader knows whether all of them have come.
"""

import io
import json
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json
from pydantic import BaseModel, ConfigDict

from ingestion.cdc.batches import LogBatch, change_schema, json_text
from ingestion.contracts import Entity
from ingestion.landing import record_of
from ingestion.raw_zone import text_literal

TENANT = "merchant_id"
BARRIER = b"barrier"
"""The header ``op`` of a barrier."""
_ROWS_A_PIECE = 10_000
_POSITION = "^[0-9a-f]{8}/[0-9a-f]{16}/[0-9a-f]{16}/[0-9a-f]{8}$"
_NOT_IN_A_NAME = re.compile("[^a-z0-9_]")
# Columns of a batch of the log, and the fields of the envelope that hold their text.
_TEXTS = {
    "_op": "op",
    "_position": "position",
    "_changed_at": "source_at",
    "_transaction_id": "transaction_id",
    "_rule": "rule",
    "_reason": "reason",
}


class Barrier(BaseModel):
    """The end of a batch in one partition.

    ``batch`` is the name that its changes bear, ``stream`` the log that they come from; ``rows`` is how many of them
    this partition got, and ``partitions`` how many partitions have a barrier.
    """

    model_config = ConfigDict(frozen=True)

    batch: str
    stream: str
    epoch: int
    start_lsn: int
    end_lsn: int
    committed_at: datetime
    transactions: int
    partitions: int
    rows: int


HEADERS = ("entity", "op", "schema_version", "position")
"""What the headers of a change say besides ``batch``, the batch that it came in."""


class Message(NamedTuple):
    """A message to be sent, with its headers by name."""

    partition: int
    key: str
    value: str
    headers: list[tuple[str, str | bytes | None]]


def change_messages(
    con: duckdb.DuckDBPyConnection, batch: LogBatch, contract: Mapping[str, Entity], name: str, partitions: int
) -> Iterator[Message]:
    """Return the changes of a batch as messages, in the order of their positions; each bears the name of the batch."""
    parts = []
    for entity_name, table in batch.changes.items():
        con.register(f"changes_{entity_name}", table)
        parts.append(_messages_of(contract[entity_name], f"changes_{entity_name}", partitions))
    if not parts:
        return
    query = f"select * from ({' union all by name '.join(parts)}) order by position"
    for piece in con.execute(query).to_arrow_reader(_ROWS_A_PIECE):
        columns = [column.to_pylist() for column in piece.columns]
        for partition, key, value, *headers in zip(*columns, strict=True):
            yield Message(partition, key, value, [*zip(HEADERS, headers, strict=True), ("batch", name)])
    for entity_name in batch.changes:
        con.unregister(f"changes_{entity_name}")


def _messages_of(entity: Entity, relation: str, partitions: int) -> str:
    key = f"json_array({', '.join(_quoted(entity.key))})::varchar"
    tenant = f'"{TENANT}"' if TENANT in entity.key else key
    # The JSON texts are joined as text: an object of objects would be written twice.
    fields = {
        "source": f"to_json({text_literal(entity.source)})",
        "entity": f"to_json({text_literal(entity.name)})",
        "op": "to_json(_op)",
        "key": key,
        "before": "_before",
        "after": f"case when _op in ('c', 'u') then {record_of(entity)} end",
        "unchanged_columns": "_unchanged_columns",
        "position": "to_json(_position)",
        "source_at": "to_json(_changed_at)",
        "transaction_id": "to_json(_transaction_id)",
        "schema_version": f"'{entity.schema_version}'",
        "rule": "to_json(_rule)",
        "reason": "to_json(_reason)",
    }
    value = " || ',' || ".join(f"""'"{name}":' || coalesce({text}, 'null')""" for name, text in fields.items())
    # A truncation is the business of every tenant.
    return f"""
        select
            unnest(
                case
                    when _op = 't' then range({partitions})
                    else [(md5_number_lower({tenant}) % {partitions})::bigint]
                end
            ) as partition,
            concat_ws('|', coalesce({tenant}, ''), {text_literal(entity.name)}, {key}) as key,
            '{{' || {value} || '}}' as value,
            {text_literal(entity.name)} as entity,
            _op as op,
            '{entity.schema_version}' as schema_version,
            _position as position,
        from {relation}
    """


def new_batch_name() -> str:
    """Return a name that no batch has: a batch that is published again is another one."""
    return secrets.token_hex(8)


def barriers(batch: LogBatch, name: str, stream: str, rows: Sequence[int]) -> Iterator[Message]:
    """Return the barriers of a batch; ``rows`` are the changes that each partition got."""
    for partition, count in enumerate(rows):
        barrier = Barrier(
            batch=name,
            stream=stream,
            epoch=batch.epoch,
            start_lsn=batch.start_lsn,
            end_lsn=batch.end_lsn,
            committed_at=batch.committed_at,
            transactions=batch.transactions,
            partitions=len(rows),
            rows=count,
        )
        yield Message(partition, "", barrier.model_dump_json(), [("op", BARRIER), ("batch", name)])


def event_messages(events: pa.Table, partitions: int) -> Iterator[tuple[str, Message]]:
    """Return rows of the outbox as messages, each with the type of object that it tells of (``charge``, ``refund``).

    The key is ``tenant|object``; who reads them knows by the header ``event_id`` what came before.
    """
    for event in events.to_pylist():
        tenant = str(event["merchant_id"])
        position = str(event.pop("_position"))
        payload = event.pop("payload")
        fields = json.dumps(event, ensure_ascii=False)
        value = f'{fields[:-1]}, "payload": {payload or "null"}}}'
        kind = _NOT_IN_A_NAME.sub("_", event["event_type"].partition(".")[0].lower())
        headers: list[tuple[str, str | bytes | None]] = [
            ("event_id", event["event_id"]),
            ("event_type", event["event_type"]),
            ("position", position),
        ]
        partition = zlib.crc32(tenant.encode()) % partitions
        yield kind, Message(partition, f"{tenant}|{event['object_id']}", value, headers)


class Decoded(NamedTuple):
    """What messages of an entity hold: changes, as a batch of the log has them, and values that are no envelope."""

    changes: pa.Table
    broken: list[bytes]


def decoded(entity: Entity, values: Sequence[bytes]) -> Decoded:
    """Return the changes that the values of messages hold, in the order of the values."""
    try:
        return Decoded(_parsed(entity, values), [])
    except _NoEnvelopeError:
        pass  # one of them is none: which?
    sound, broken = [], []
    for value in values:
        try:
            line = json.dumps(json.loads(value), ensure_ascii=False).encode()
            _parsed(entity, [line])
            sound.append(line)
        except (ValueError, RecursionError, _NoEnvelopeError):
            broken.append(value)
    return Decoded(_parsed(entity, sound), broken)


def in_order(changes: pa.Table) -> pa.Table:
    """Return changes in the order of their positions, each position once."""
    positions = changes["_position"].combine_chunks()
    if pc.all(pc.less(positions[:-1], positions[1:])).as_py() is False:
        changes = changes.take(pc.sort_indices(positions))
        positions = changes["_position"].combine_chunks()
        is_new = pc.not_equal(positions[1:], positions[:-1])
        changes = changes.filter(pa.concat_arrays([pa.array([True]), is_new]))
    return changes


class _NoEnvelopeError(Exception):
    """One of several values is no envelope of the entity, or does not stand on one line."""


def _parsed(entity: Entity, values: Sequence[bytes]) -> pa.Table:
    if not values:
        return change_schema(entity).empty_table()
    lines = b"\n".join(values)
    if lines.count(b"\n") != len(values) - 1 or not all(values):
        raise _NoEnvelopeError
    try:
        lines.decode()
        parsed = pa_json.read_json(
            io.BytesIO(lines),
            # One block: no value stands in two, and a large row is a large value.
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
            parse_options=pa_json.ParseOptions(explicit_schema=_schema(entity), unexpected_field_behavior="ignore"),
        ).combine_chunks()
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _NoEnvelopeError from error
    if len(parsed) != len(values) or not _are_sound(entity, parsed):
        raise _NoEnvelopeError
    return _as_logged(entity, parsed, values)


def _schema(entity: Entity) -> pa.Schema:
    texts: list[tuple[str, pa.DataType]] = [(name, pa.string()) for name in ("entity", *_TEXTS.values())]
    return pa.schema(
        [
            *texts,
            ("schema_version", pa.int64()),
            ("key", pa.list_(pa.string())),
            ("before", pa.struct([(name, pa.string()) for name in entity.key])),
            ("after", pa.struct([(name, pa.string()) for name in entity.column_names])),
            ("unchanged_columns", pa.list_(pa.string())),
        ]
    )


def _are_sound(entity: Entity, parsed: pa.Table) -> bool:
    """Return whether every row says what it has to say."""
    checks = [
        pc.equal(parsed["entity"], pa.scalar(entity.name)),
        pc.equal(parsed["schema_version"], pa.scalar(entity.schema_version)),
        pc.equal(pc.list_value_length(parsed["key"]), pa.scalar(len(entity.key))),
        pc.is_in(parsed["op"], pa.array(["c", "u", "d", "t"])),
        pc.or_(pc.is_in(parsed["op"], pa.array(["d", "t"])), pc.is_valid(parsed["after"])),
        pc.match_substring_regex(parsed["position"], _POSITION),
        pc.is_valid(parsed["source_at"]),
    ]
    return all(pc.all(pc.fill_null(check, False)).as_py() for check in checks)


def _as_logged(entity: Entity, parsed: pa.Table, values: Sequence[bytes]) -> pa.Table:
    after = parsed["after"].combine_chunks()
    columns = {name: pc.struct_field(after, name) for name in entity.column_names}
    for place, name in enumerate(entity.key):  # of a deleted row only the key counts
        columns[name] = pc.coalesce(columns[name], pc.list_element(parsed["key"].combine_chunks(), place))
    has_before = parsed["before"].is_valid().to_pylist()
    texts = {
        "_before": [
            json_text(json.loads(value)["before"]) if is_there else None
            for value, is_there in zip(values, has_before, strict=True)
        ]
        if any(has_before)
        else [None] * len(values),
        "_unchanged_columns": [
            None if names is None else json_text(names) for names in parsed["unchanged_columns"].to_pylist()
        ],
    }
    columns |= {name: pa.array(column, pa.string()) for name, column in texts.items()}
    columns |= {name: parsed[field].combine_chunks() for name, field in _TEXTS.items()}
    schema = change_schema(entity)
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _quoted(names: Sequence[str]) -> list[str]:
    return [f'"{name}"' for name in names]

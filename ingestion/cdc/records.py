"""Changes as records of the landing writer: every row whole, also where the log does not repeat a large value."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from ingestion.cdc.changes import Change, RowValues, Transaction
from ingestion.contracts import Entity
from ingestion.landing import Landing
from ingestion.raw_zone import parquet

Key = tuple[str | None, ...]
_LOG = ("_op", "_before", "_unchanged_columns", "_position", "_changed_at", "_transaction_id")


@dataclass(frozen=True)
class _Record:
    """A change as it lands; ``rule`` and ``reason`` say why it cannot."""

    values: RowValues
    change: Change
    transaction: Transaction
    rule: str | None = None
    reason: str | None = None


def stage_log(batch: Landing, entity: Entity, table: tuple[str, str], transactions: Iterable[Transaction]) -> bool:
    """Create the view ``staged`` from the changes of one table, and return whether there are any."""
    changes = [
        (transaction, change)
        for transaction in transactions
        for change in transaction.changes
        if (change.schema, change.table) == table
    ]
    if not changes:
        return False
    records = list(_Replay(batch, entity, [change for _, change in changes]).records(changes))
    names = [*entity.column_names, *_LOG, "_rule", "_reason"]
    rows = [_cells(entity, record) for record in records]
    arrays = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    con = batch.con
    con.execute("drop view if exists staged")
    columns = ", ".join(f'"{name}" varchar' for name in names)
    con.execute(f"create or replace temp table logged ({columns})")
    con.register("incoming", pa.Table.from_arrays(arrays, names))
    con.execute("insert into logged select * from incoming")
    con.unregister("incoming")
    record = ", ".join(f"'{name}', \"{name}\"" for name in entity.column_names)
    con.execute(
        f"""
        create temp view staged as
        select
            rowid as _ordinal,
            * replace (cast(_changed_at as timestamptz) as _changed_at),
            cast(json_object({record}) as varchar) as _record,
        from logged
        """
    )
    return True


def _cells(entity: Entity, record: _Record) -> list[str | None]:
    change = record.change
    return [
        *(record.values.get(name) for name in entity.column_names),
        change.op,
        json.dumps(change.before, sort_keys=True, ensure_ascii=False) if change.before else None,
        json.dumps(change.unchanged) if change.unchanged else None,
        str(change.position),
        record.transaction.committed_at.isoformat(),
        str(record.transaction.xid),
        record.rule,
        record.reason,
    ]


class _Replay:
    """The changes of one table in their order, beside what had landed of the rows that they leave in part."""

    def __init__(self, batch: Landing, entity: Entity, changes: list[Change]) -> None:
        self._entity = entity
        self._texts = [column for column in entity.text_columns if column not in entity.key]
        is_truncated = any(change.op == "t" for change in changes)
        in_part = {self._former_key(change) for change in changes if change.unchanged}
        self._rows = (
            _landed(batch, entity, self._texts, None if is_truncated else in_part) if (is_truncated or in_part) else {}
        )

    def records(self, changes: Iterable[tuple[Transaction, Change]]) -> Iterator[_Record]:
        for transaction, change in changes:
            match change.op:
                case "t":
                    yield from self._emptied(transaction, change)
                case "d":
                    yield self._deleted(transaction, change)
                case _:
                    yield self._written(transaction, change)

    def _emptied(self, transaction: Transaction, change: Change) -> Iterator[_Record]:
        for place, key in enumerate(sorted(self._rows, key=str)):
            position = replace(change.position, n=change.position.n + place)
            before = dict(zip(self._entity.key, key, strict=True))
            yield _Record(before, replace(change, op="d", before=before, position=position), transaction)
        self._rows.clear()

    def _deleted(self, transaction: Transaction, change: Change) -> _Record:
        values = {name: change.before.get(name) for name in self._entity.key}
        # Kept until the row under its new key was made of it, when the deletion is one half of a change of key.
        return _Record(values, change, transaction)

    def _written(self, transaction: Transaction, change: Change) -> _Record:
        values = dict(change.after)
        if change.unchanged:
            former = self._rows.get(self._former_key(change))
            wanted = [name for name in change.unchanged if name in self._entity.column_names]
            if former is None and wanted:
                reason = f"{wanted[0]} kept a value that never landed"
                return _Record(values, change, transaction, "incomplete", reason)
            values |= {name: (former or {}).get(name) for name in wanted}
        if missing := [name for name in self._entity.column_names if name not in values]:
            return _Record(values, change, transaction, "missing_column", f"the table has no column {missing[0]}")
        self._rows[self._key(values)] = {name: values[name] for name in self._texts}
        return _Record(values, change, transaction)

    def _key(self, values: RowValues) -> Key:
        return tuple(values.get(name) for name in self._entity.key)

    def _former_key(self, change: Change) -> Key:
        """Return the key under which the row stood before."""
        return self._key(change.after | {name: value for name, value in change.before.items() if value is not None})


def _landed(batch: Landing, entity: Entity, columns: list[str], keys: set[Key] | None) -> dict[Key, RowValues]:
    """Return the latest landed text columns of rows by key: of these keys, or (None) of all that are not gone."""
    files = batch.pin.files(entity.source, entity.name)
    if not files:
        return {}
    key = ", ".join(f'cast("{name}" as varchar)' for name in entity.key)
    wanted = "true" if keys is None else "_key in (select unnest(?::varchar[]))"
    asked = (
        [] if keys is None else [[json.dumps(list(found), separators=(",", ":"), ensure_ascii=False) for found in keys]]
    )
    texts = "".join(f', "{name}"' for name in columns)
    rows = batch.con.execute(
        f"""
        select {key}{texts}
        from {parquet(files)}
        where {wanted}
        qualify row_number() over (partition by _key order by _position desc, _sequence desc) = 1
            and _op not in ('d', 'x')
        """,
        asked,
    ).fetchall()
    width = len(entity.key)
    return {tuple(row[:width]): dict(zip(columns, row[width:], strict=True)) for row in rows}

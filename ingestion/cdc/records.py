"""Changes as records of the landing writer: every row whole, also where the log does not repeat a large value."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from ingestion.cdc.changes import Change, RowValues, Transaction
from ingestion.contracts import Entity
from ingestion.landing import Landing, record_of

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


def stage_log(batch: Landing, entity: Entity, changes: Sequence[tuple[Transaction, Change]]) -> None:
    """Create the view ``staged`` from the changes of one table, in their order."""
    records = list(_Replay(batch, entity, [change for _, change in changes]).records(changes))
    names = [*entity.column_names, *_LOG, "_rule", "_reason"]
    rows = [_cells(entity, record) for record in records]
    # No rows at all when a table was emptied that held none.
    arrays = [pa.array([row[place] for row in rows], pa.string()) for place in range(len(names))]
    con = batch.con
    con.execute("drop view if exists staged")
    columns = ", ".join(f'"{name}" varchar' for name in names)
    con.execute(f"create or replace temp table logged ({columns})")
    con.register("incoming", pa.Table.from_arrays(arrays, names))
    con.execute("insert into logged select * from incoming")
    con.unregister("incoming")
    con.execute(
        f"""
        create temp view staged as
        select
            rowid as _ordinal,
            * replace (cast(_changed_at as timestamptz) as _changed_at),
            {record_of(entity)} as _record,
        from logged
        """
    )


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
        wanted = None if is_truncated else in_part
        self._rows = {} if wanted == set() else _landed(batch, entity, self._texts, wanted)
        # What was deleted stays known: a row whose key changes is deleted first, and made of what it kept afterwards.
        self._gone: dict[Key, RowValues] = {}

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
        key = self._key(values)
        if key in self._rows:
            self._gone[key] = self._rows.pop(key)
        return _Record(values, change, transaction)

    def _written(self, transaction: Transaction, change: Change) -> _Record:
        values = dict(change.after)
        if change.unchanged:
            key = self._former_key(change)
            former = self._rows.get(key, self._gone.get(key))
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
    key = ", ".join(f'cast("{name}" as varchar)' for name in entity.key)
    is_asked_for = "true" if keys is None else f"concat_ws(chr(31), {key}) in (select unnest(?::varchar[]))"
    landed = batch.latest(entity, is_asked_for)
    if landed is None:
        return {}
    asked = [] if keys is None else [["\x1f".join(part or "" for part in found) for found in keys]]
    texts = "".join(f', "{name}"' for name in columns)
    rows = batch.con.execute(f"select {key}{texts} from ({landed}) where _op not in ('d', 'x')", asked).fetchall()
    width = len(entity.key)
    return {tuple(row[:width]): dict(zip(columns, row[width:], strict=True)) for row in rows}

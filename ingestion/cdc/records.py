"""Changes as records of the landing writer: every row whole, also where the log does not repeat a large value."""

import json
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import pyarrow as pa

from ingestion.cdc.batches import LOG_COLUMNS, change_schema, json_text
from ingestion.cdc.snapshot import snapshots_after
from ingestion.contracts import Entity
from ingestion.landing import Landing, record_of
from ingestion.raw_zone import Position

Key = tuple[str | None, ...]
Row = dict[str, Any]
Values = dict[str, str | None]


def stage_log(batch: Landing, entity: Entity, changes: pa.Table) -> None:
    """Create the view ``staged`` from a table of changes of one entity (see ``LogBatch``)."""
    con = batch.con
    con.execute("drop view if exists staged")
    con.register("incoming", changes)
    in_part = con.execute(
        "select count(*) filter (_unchanged_columns is not null), count(*) filter (_op = 't') from incoming"
    ).fetchone()
    if in_part is not None and any(in_part):
        con.register("incoming", _whole(batch, entity, changes, is_emptied=bool(in_part[1])))
    columns = ", ".join(f'"{name}" varchar' for name in (*entity.column_names, *LOG_COLUMNS))
    con.execute(f"create or replace temp table logged ({columns})")
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


def _whole(batch: Landing, entity: Entity, changes: pa.Table, *, is_emptied: bool) -> pa.Table:
    rows = changes.to_pylist()
    return pa.Table.from_pylist(list(_Replay(batch, entity, rows, is_emptied).records(rows)), change_schema(entity))


class _Replay:
    """The changes of one table in their order, beside what had landed of the rows that they leave in part."""

    def __init__(self, batch: Landing, entity: Entity, changes: list[Row], is_emptied: bool) -> None:
        self._entity = entity
        self._texts = [column for column in entity.text_columns if column not in entity.key]
        in_part = {self._former_key(change) for change in changes if change["_unchanged_columns"]}
        asked = None if is_emptied else in_part
        self._rows = _landed(batch, entity, self._texts, asked, "true")
        # What was deleted stays known: a row whose key changes is deleted first, and made of what it kept afterwards.
        self._gone: dict[Key, Values] = {}
        # Rows that a snapshot found only after the first change: its place, key, and values (None: no such row).
        self._coming: list[tuple[str, Key, Values | None]] = []
        first = str(changes[0]["_position"])
        self._snapshots = snapshots_after(batch.pin, entity, first)
        if self._snapshots.places:
            in_log = f"_position < '{first}' and _sequence >= {self._snapshots.since}"
            self._begin_before_snapshots(first, _landed(batch, entity, self._texts, asked, in_log))

    def _begin_before_snapshots(self, first: str, in_log: dict[Key, Values]) -> None:
        """Let what a snapshot found wait for its place; until then only what the log told before counts."""
        for key in self._rows.keys() | in_log.keys():
            place = self._snapshots.place(key)
            if first < place:
                self._coming.append((place, key, self._rows.pop(key, None)))
                if key in in_log:
                    self._rows[key] = in_log[key]
        self._coming.sort(key=itemgetter(0), reverse=True)

    def _pass_snapshots(self, position: str) -> None:
        while self._coming and self._coming[-1][0] <= position:
            _, key, values = self._coming.pop()
            self._gone.pop(key, None)
            self._rows.pop(key, None)
            if values is not None:
                self._rows[key] = values

    def records(self, changes: list[Row]) -> Iterator[Row]:
        """Give the changes whole.

        One that keeps a value of which the log told nothing is left out where a snapshot found its row later: nobody
        knows the row as it was, and the snapshot tells what became of it.
        """
        for change in changes:
            self._pass_snapshots(str(change["_position"]))
            match change["_op"]:
                case "t":
                    yield from self._emptied(change)
                case "d":
                    self._end(self._key(change))
                    yield change
                case _:
                    if (written := self._written(change)) is not None:
                        yield written

    def _end(self, key: Key) -> None:
        """Let a row be gone; one that nobody knows leaves nothing behind, also not of an earlier life of its key."""
        former = self._rows.pop(key, None)
        if former is None:
            self._gone.pop(key, None)
        else:
            self._gone[key] = former

    def _emptied(self, change: Row) -> Iterator[Row]:
        position = Position.parse(change["_position"])
        for place, key in enumerate(sorted(self._rows, key=str)):
            values = dict(zip(self._entity.key, key, strict=True))
            at = Position(position.epoch, position.commit_lsn, position.change_lsn, position.n + place)
            before = json_text(values)
            yield {**change, **values, "_op": "d", "_before": before, "_position": str(at)}
        self._rows.clear()

    def _written(self, change: Row) -> Row | None:
        unchanged = json.loads(change["_unchanged_columns"] or "[]")
        whole = change
        if unchanged:
            key = self._former_key(change)
            former = self._rows.get(key, self._gone.get(key))
            if former is None:
                if str(change["_position"]) < self._snapshots.place(self._key(change)):
                    # What it holds now, nobody knows.
                    self._rows.pop(self._key(change), None)
                    self._gone.pop(self._key(change), None)
                    return None
                return {**change, "_rule": "incomplete", "_reason": f"{unchanged[0]} kept a value that never landed"}
            whole = {**change, **{name: former.get(name) for name in unchanged}}
        self._rows[self._key(whole)] = {name: whole[name] for name in self._texts}
        return whole

    def _key(self, values: Row) -> Key:
        return tuple(values.get(name) for name in self._entity.key)

    def _former_key(self, change: Row) -> Key:
        """Return the key under which the row stood before."""
        before = json.loads(change["_before"] or "{}")
        return tuple(before.get(name) or change[name] for name in self._entity.key)


def _landed(batch: Landing, entity: Entity, columns: list[str], keys: set[Key] | None, where: str) -> dict[Key, Values]:
    """Return the text columns of rows by key as they landed last under a condition: of these keys, or (None) of all."""
    key = ", ".join(f'cast("{name}" as varchar)' for name in entity.key)
    is_asked_for = "true" if keys is None else f"concat_ws(chr(31), {key}) in (select unnest(?::varchar[]))"
    landed = batch.latest(entity, f"{where} and {is_asked_for}")
    if landed is None or keys == set():
        return {}
    asked = [] if keys is None else [["\x1f".join(part or "" for part in found) for found in keys]]
    texts = "".join(f', "{name}"' for name in columns)
    rows = batch.con.execute(f"select {key}{texts} from ({landed}) where _op not in ('d', 'x')", asked).fetchall()
    width = len(entity.key)
    return {tuple(row[:width]): dict(zip(columns, row[width:], strict=True)) for row in rows}

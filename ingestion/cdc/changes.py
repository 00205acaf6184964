"""Tables of changes from the messages of rows: each change at a position that a replay gives again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.cdc.batches import change_schema, json_text
from ingestion.cdc.pgoutput import Begin
from ingestion.cdc.rows import Bytes, Cells, Flags, Ints, Rows, text_array
from ingestion.cdc.schemas import TableView
from ingestion.contracts import Entity
from ingestion.raw_zone import Position

_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


@dataclass(frozen=True)
class Transactions:
    """The transactions that messages belong to: where among the messages each begins, and the epoch of the log."""

    epoch: int
    begins: Sequence[Begin]
    starts: Sequence[int]

    def of(self, places: Ints) -> Ints:
        """Return the number of the transaction of each message."""
        return np.searchsorted(np.asarray(self.starts, np.int64), places, side="right") - 1


def change_table(entity: Entity, view: TableView, rows: Rows, turns: Ints, transactions: Transactions) -> pa.Table:
    """Return the changes that rows of a table tell, in the order of their positions.

    ``turns`` counts, for each row, the messages before it that share its LSN. A change stands at ``n`` twice its turn:
    an update that changes the key of its row is the deletion of the old key there and the creation of the new one at
    the next ``n``; ``_before`` of the creation names the old one, since what the row kept stands there.
    """
    is_insert, is_delete = rows.ops == ord("I"), rows.ops == ord("D")
    index = {column.name: place for place, column in enumerate(rows.relation.columns)}
    new = [_told(new, old) for new, old in zip(rows.new, rows.old, strict=True)]
    key_places = [index[name] for source in entity.key if (name := view.sources[source]) is not None]
    is_moved = ~is_insert & ~is_delete & rows.has_old & _any_differs(rows, new, key_places)

    def columns(cells: Sequence[Cells]) -> "list[pa.Array[Any]]":
        found = []
        for name in entity.column_names:
            source = view.sources[name]
            found.append(
                pa.nulls(len(rows.ops), pa.string()) if source is None else cells[index[source]].text(rows.buffer)
            )
        return found

    of = transactions.of(rows.places)
    commits = np.array([begin.commit_lsn for begin in transactions.begins], np.int64)[of]
    moments = pa.array([begin.committed_at.isoformat() for begin in transactions.begins], pa.string()).take(of)
    xids = pa.array([str(begin.xid) for begin in transactions.begins], pa.string()).take(of)
    befores = _befores(entity, view, rows, index)
    rule = pa.scalar(None if view.stopped is None else "stopped_table", pa.string())
    reason = pa.scalar(view.stopped, pa.string())

    def table(values: "list[pa.Array[Any]]", ops: "pa.Array[Any]", unchanged: "pa.Array[Any]", n: Ints) -> pa.Table:
        position = positions(transactions.epoch, commits, rows.lsns, n)
        told = [pa.repeat(value, len(n)) for value in (rule, reason)]
        arrays = [*values, ops, befores, unchanged, position, moments, xids, *told]
        return pa.Table.from_arrays(arrays, schema=change_schema(entity))

    # Of a deleted row the log tells the key.
    after = [
        cells.where(~is_delete, _only(old, is_delete, place in key_places))
        for place, (cells, old) in enumerate(zip(new, rows.old, strict=True))
    ]
    ops = np.where(is_insert | is_moved, 0, np.where(is_delete, 2, 1)).astype(np.int8)
    letters = pa.array(["c", "u", "d"]).take(pa.array(ops.tolist(), pa.int8()))
    changes = table(columns(after), letters, _unchanged(entity, view, new, index), 2 * turns + is_moved)
    if not is_moved.any():
        return changes
    former = [_only(old, is_moved, place in key_places) for place, old in enumerate(rows.old)]
    nothing = pa.nulls(len(turns), pa.string())
    deletions = table(columns(former), pa.repeat("d", len(turns)), nothing, 2 * turns).filter(pa.array(is_moved))
    return pa.concat_tables([changes, deletions]).sort_by("_position")


def truncation(entity: Entity, position: Position, begin: Begin) -> pa.Table:
    """Return the one change that empties a table."""
    told = {
        "_op": "t",
        "_position": str(position),
        "_changed_at": begin.committed_at.isoformat(),
        "_transaction_id": str(begin.xid),
    }
    return pa.Table.from_pylist([told], schema=change_schema(entity))


def positions(epoch: int, commit_lsns: Ints, change_lsns: Ints, ns: Ints) -> "pa.Array[Any]":
    """Return positions as text, as :class:`Position` writes them."""
    parts = [_hexadecimal(np.full(len(ns), epoch, np.int64), 8), _hexadecimal(commit_lsns, 16)]
    parts += [_hexadecimal(change_lsns, 16), _hexadecimal(ns, 8)]
    slash = np.full((len(ns), 1), ord("/"), np.uint8)
    text = np.hstack([parts[0], slash, parts[1], slash, parts[2], slash, parts[3]])
    offsets = np.arange(len(ns) + 1, dtype=np.int32) * text.shape[1]
    return text_array(len(ns), None, offsets, text)


def _hexadecimal(values: Ints, width: int) -> Bytes:
    shifts = 4 * np.arange(width - 1, -1, -1)
    digits: Bytes = _DIGITS[(values[:, None] >> shifts) & 15]
    return digits


def _told(new: Cells, old: Cells) -> Cells:
    """Take from the old row what the new one kept and does not repeat: under a full replica identity it is there."""
    return old.where((new.kinds == ord("u")) & (old.kinds == ord("t")), new)


def _only(cells: Cells, chosen: Flags, is_key: bool) -> Cells:
    kinds = np.where(chosen & is_key, cells.kinds, ord("n")).astype(np.uint8)
    return Cells(kinds, cells.starts, cells.lengths)


def _any_differs(rows: Rows, new: Sequence[Cells], places: Sequence[int]) -> Flags:
    differs = np.zeros(len(rows.ops), bool)
    if rows.has_old.any():
        for place in places:
            found = pc.not_equal(new[place].text(rows.buffer), rows.old[place].text(rows.buffer))
            differs |= np.array([is_other is not False for is_other in found.to_pylist()], bool)
    return differs


def _befores(entity: Entity, view: TableView, rows: Rows, index: Mapping[str, int]) -> "pa.Array[Any]":
    """Return what the log tells of the old rows, as JSON: their keys, or all of them."""
    if not rows.has_old.any():
        return pa.nulls(len(rows.ops), pa.string())
    told = {
        name: rows.old[index[source]].text(rows.buffer).to_pylist()
        for name in entity.column_names
        if (source := view.sources[name]) is not None and (name in entity.key or rows.is_whole.any())
    }
    keys = set(entity.key)
    befores: list[str | None] = [None] * len(rows.ops)
    for row in np.flatnonzero(rows.has_old):
        is_whole = bool(rows.is_whole[row])
        befores[row] = json_text({name: values[row] for name, values in told.items() if is_whole or name in keys})
    return pa.array(befores, pa.string())


def _unchanged(entity: Entity, view: TableView, new: Sequence[Cells], index: Mapping[str, int]) -> "pa.Array[Any]":
    kept = {
        name: new[index[source]].kinds == ord("u")
        for name in entity.column_names
        if (source := view.sources[name]) is not None
    }
    is_any = np.logical_or.reduce(list(kept.values()))
    names: list[str | None] = [None] * len(is_any)
    for row in np.flatnonzero(is_any):
        names[row] = json_text([name for name, flags in kept.items() if flags[row]])
    return pa.array(names, pa.string())

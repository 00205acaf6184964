"""Changes of rows, from the messages of a transaction; a replay gives every change its position again."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from ingestion.cdc.pgoutput import UNCHANGED, Delete, Insert, Relation, Row, Truncate, Update
from ingestion.raw_zone import Position

RowValues = dict[str, str | None]


@dataclass(frozen=True)
class Change:
    """What happened to a row: created (c), updated (u), deleted (d), or to all rows of its table, truncated (t).

    ``after`` lacks the columns in ``unchanged``, whose values the row kept and the log does not repeat. ``before`` is
    what the log tells of the old row: nothing, its key, or all of it.
    """

    schema: str
    table: str
    op: str
    position: Position
    after: RowValues
    before: RowValues
    unchanged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transaction:
    """The changes of one transaction, in their order; ``end_lsn`` is where the log goes on after its commit."""

    xid: int
    commit_lsn: int
    end_lsn: int
    committed_at: datetime
    changes: tuple[Change, ...]


RowMessage = Insert | Update | Delete | Truncate
Keys = Mapping[tuple[str, str], tuple[str, ...]]
"""The columns of the key of each table, by its schema and name."""


def changes_of(
    epoch: int,
    commit_lsn: int,
    messages: Iterable[tuple[int, RowMessage]],
    relations: Mapping[int, Relation],
    keys: Keys,
) -> list[Change]:
    """Return the changes of a transaction from its messages, each with the LSN at which it stands.

    Tables without an entry in ``keys`` are left out. An update that changes the key of its row becomes the deletion of
    the old key and the creation of the new one, whose ``before`` names the old one: what the row kept stands there.
    """
    found: list[Change] = []
    last_lsn, n = -1, 0
    for lsn, message in messages:
        n = n + 1 if lsn == last_lsn else 0
        last_lsn = lsn
        for change in _changes(message, relations, keys):
            found.append(replace(change, position=Position(epoch, commit_lsn, lsn, n)))
            n += 1
        n = max(n - 1, 0)
    return found


_NOWHERE = Position(0, 0, 0, 0)


def _changes(message: RowMessage, relations: Mapping[int, Relation], keys: Keys) -> Iterator[Change]:
    oids = message.relation_oids if isinstance(message, Truncate) else (message.relation_oid,)
    for oid in oids:
        relation = relations[oid]
        key = keys.get((relation.schema, relation.table))
        if key is None:
            continue
        empty = Change(relation.schema, relation.table, "t", _NOWHERE, {}, {})
        match message:
            case Insert(_, new):
                yield replace(empty, op="c", after=_named(relation, new))
            case Update(_, old, _, new):
                yield from _update(empty, relation, old, new, key)
            case Delete(_, old, _):
                yield replace(empty, op="d", before=_named(relation, old))
            case Truncate():
                yield empty


def _update(empty: Change, relation: Relation, old: Row | None, new: Row, key: tuple[str, ...]) -> Iterator[Change]:
    before = {} if old is None else _named(relation, old)
    kept = [column.name for column, value in zip(relation.columns, new, strict=True) if value is UNCHANGED]
    # Under a full replica identity the old row tells what the new one kept. A large value is never null.
    told = {name: before[name] for name in kept if before.get(name) is not None}
    after = _named(relation, new) | told
    unchanged = tuple(name for name in kept if name not in told)
    update = replace(empty, op="u", after=after, before=before, unchanged=unchanged)
    if before and any(before[name] != after.get(name) for name in key):
        yield replace(empty, op="d", before=before)
        yield replace(update, op="c")
    else:
        yield update


def _named(relation: Relation, row: Row) -> RowValues:
    return {column.name: value for column, value in zip(relation.columns, row, strict=True) if value is not UNCHANGED}

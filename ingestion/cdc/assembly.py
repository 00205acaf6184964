"""Batches of the log, put together again from the messages of a topic, or the proof that something is missing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from ingestion.cdc.batches import ChangeTables, LogBatch
from ingestion.cdc.envelope import BARRIER, Barrier, decoded, in_order
from ingestion.contracts import Entity
from ingestion.raw_zone import Position

_BYTES_IN_TEXT = 32 * 1024 * 1024


class Refill(NamedTuple):
    """What has to land next is not on the topic: the log has to be read again from what has landed, and published."""

    reason: str


class Stranger(NamedTuple):
    """A message that is no envelope."""

    key: bytes
    value: bytes
    reason: str


@dataclass
class _Pending:
    """What has come of one batch so far, by partition."""

    tables: ChangeTables
    firsts: dict[int, int] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)
    last: dict[int, bytes] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    values: dict[str, list[bytes]] = field(default_factory=dict)
    size: int = 0
    is_whole: bool = True


@dataclass
class Assembly:
    """Takes messages in the order of each partition, and gives whole batches in the order of the log.

    A batch is whole when each partition has shown its barrier and as many changes as the barrier counts. It comes next
    when it begins at or before the place up to which all has ``landed`` (epoch and LSN), and ends beyond it; the caller
    moves that. What ``stream`` it is says which log the barriers have to be of: a topic may have served another.
    """

    stream: str
    contract: Mapping[str, Entity]
    folder: Path
    landed: tuple[int, int]
    ends: dict[int, int] = field(default_factory=dict)
    """The offset after the newest batch that came next, by partition."""
    strangers: list[Stranger] = field(default_factory=list)
    """What was no envelope, for the caller to take."""
    _pending: dict[bytes, _Pending] = field(default_factory=dict)
    _known: dict[bytes, tuple[str, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        # As the headers of a message write it: this is looked at for every change.
        self._known = {name.encode(): (name, b"%d" % entity.schema_version) for name, entity in self.contract.items()}

    def take(
        self, partition: int, offset: int, key: bytes, headers: Mapping[str, bytes], value: bytes
    ) -> LogBatch | Refill | None:
        """Take a message; return the batch that it completes, if it comes next, or what it proves to be missing."""
        try:
            if headers["op"] == BARRIER:
                return self._barrier(partition, offset, Barrier.model_validate_json(value))
            self._change(partition, offset, headers, value)
        except (ValidationError, KeyError, TypeError) as error:
            self.strangers.append(Stranger(key, value, f"no change and no barrier: {type(error).__name__} {error}"))
        return None

    def hints(self) -> dict[int, int]:
        """Return where another loader may begin, by partition: nothing that stands before is of any use any more."""
        return {
            partition: min([end, *(pending.firsts.get(partition, end) for pending in self._pending.values())])
            for partition, end in self.ends.items()
        }

    def _change(self, partition: int, offset: int, headers: Mapping[str, bytes], value: bytes) -> None:
        entity, schema_version = self._known[headers["entity"]]
        position, name = headers["position"], headers["batch"]
        pending = self._pending.get(name) or self._begun(name)
        pending.firsts.setdefault(partition, offset)
        if position <= pending.last.get(partition, b""):
            return  # it came before: the broker, or we, went back
        pending.last[partition] = position
        pending.rows[partition] = pending.rows.get(partition, 0) + 1
        if headers["schema_version"] != schema_version:
            pending.is_whole = False  # published before the contract changed
            return
        pending.values.setdefault(entity, []).append(value)
        pending.size += len(value)
        if pending.size > _BYTES_IN_TEXT:
            self._read(pending)

    def _barrier(self, partition: int, offset: int, barrier: Barrier) -> LogBatch | Refill | None:
        name = barrier.batch.encode()
        if barrier.stream != self.stream:
            self._pending.pop(name, None)
            return None
        pending = self._begun(name)
        pending.firsts.setdefault(partition, offset)
        pending.ends[partition] = offset + 1
        pending.is_whole &= pending.rows.get(partition, 0) == barrier.rows
        if len(pending.ends) < barrier.partitions:
            return None
        del self._pending[name]
        self._forget_older(pending)
        return self._ended(barrier, pending)

    def _ended(self, barrier: Barrier, pending: _Pending) -> LogBatch | Refill | None:
        epoch, lsn = self.landed
        if (barrier.epoch, barrier.end_lsn) <= self.landed:
            return None
        between = f"between {max(lsn, barrier.start_lsn):X} and {barrier.end_lsn:X}"
        if barrier.epoch > epoch:
            return Refill(f"epoch {barrier.epoch} begins with a snapshot, which has not landed")
        if barrier.start_lsn > lsn:
            return Refill(f"the broker has nothing between {lsn:X} and {barrier.start_lsn:X}")
        self._read(pending)
        if not pending.is_whole:
            return Refill(f"the broker has only a part of what changed {between}")
        self.ends = pending.ends
        since = str(Position(epoch, lsn, 0, 0))
        changes = {
            name: found
            for name, table in pending.tables.take().items()
            if len(found := in_order(table.filter(pc.greater_equal(table["_position"], pa.scalar(since)))))
        }
        return LogBatch(epoch, lsn, barrier.end_lsn, barrier.committed_at, barrier.transactions, changes)

    def _begun(self, name: bytes) -> _Pending:
        return self._pending.setdefault(name, _Pending(ChangeTables(self.folder)))

    def _read(self, pending: _Pending) -> None:
        """Turn the values that have come into rows; what is no envelope makes the batch incomplete."""
        for name, values in pending.values.items():
            changes, broken = decoded(self.contract[name], values)
            pending.tables.add(name, changes)
            pending.is_whole &= not broken
            self.strangers += [Stranger(b"", value, f"no envelope of {name}") for value in broken]
        pending.values, pending.size = {}, 0

    def _forget_older(self, ended: _Pending) -> None:
        """Forget what began before the barriers of this batch: its sender died, and what it held was sent again."""
        for name, pending in list(self._pending.items()):
            if all(first < ended.ends.get(partition, 0) for partition, first in pending.firsts.items()):
                self._read(self._pending.pop(name))

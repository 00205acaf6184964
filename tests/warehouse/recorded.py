"""A random history of merchants: what a database went through, what was recorded of it, and its versions.

Transactions overlap, write in one order and commit in another, change a record several times, change nothing, roll
back. Snapshots look while transactions commit, repeat what the log told, and bridge what was never recorded: a lost
slot, or the failover to a server whose clock is behind.
"""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.warehouse.raw_by_hand import Row, commit_records, content_hash

START = datetime(2026, 3, 1, tzinfo=UTC)
ROWS_A_BATCH = 2_000
Content = tuple[str, str, int, int]
State = Content | None
"""Name, status, fixed fee and creation (seconds after the start); None where the merchant is gone."""


@dataclass(frozen=True)
class Told:
    """What became known of a merchant: its state after a transaction, or as a snapshot found it."""

    at: datetime
    position: str
    state: State


@dataclass
class Open:
    """A transaction under way: what it wrote, in order, and the state in which it leaves each merchant."""

    xid: int
    writes: list[tuple[str, str, str, State]] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)


class Recorded:
    """Makes the history, in memory; :meth:`write` commits the records to a raw zone."""

    def __init__(self, changes: int, seed: int) -> None:
        self._draw = random.Random(seed)  # noqa: S311 - a repeatable sample, no secret
        self._changes = changes
        self._now = START
        self._lsn = 1_000
        self._committed = 0
        self._epoch = 1
        self._xid = 700
        self._open: list[Open] = []
        self._stored: dict[str, State] = {}
        self._names: list[str] = []
        self.records: list[Row] = []
        self.told: dict[str, list[Told]] = {}
        """What was recorded of each merchant, in the order of the log."""
        self._run()

    def write(self, raw: Path) -> None:
        """Commit the records to a raw zone, in batches; some of the log lands twice, as no landing would."""
        rows = list(self.records)
        log = [row for row in rows if row["_transaction_id"] is not None]
        rows += self._draw.sample(log, len(log) // 50)
        for number, first in enumerate(range(0, len(rows), ROWS_A_BATCH), start=1):
            commit_records(raw, number, "merchants", rows[first : first + ROWS_A_BATCH], self._now)

    def versions(self) -> list[tuple[Any, ...]]:
        """Return the versions of every merchant by brute force.

        Each is its id, number, position, name, status, fee, beginning, end, whether it is current, and whether a
        deletion ended it.
        """
        return [version for name in sorted(self.told) for version in _versions(name, self.told[name])]

    def _run(self) -> None:
        self._write_some(self._changes // 50, is_recorded=False)  # there before anybody looked
        self._snapshot(is_first=True)
        while len(self.records) < self._changes:
            self._write_some(self._draw.randrange(self._changes // 20, self._changes // 5), is_recorded=True)
            if self._draw.random() < 0.6:
                self._lose()
            self._snapshot(is_first=False)
        self._write_some(self._changes // 50, is_recorded=True)

    def _lose(self) -> None:
        """Let transactions commit that nobody records, then maybe go on with another server."""
        self._write_some(self._changes // 100, is_recorded=False)
        if self._draw.random() < 0.5:
            self._epoch += 1
            self._open.clear()
            self._lsn -= 500
            self._now -= timedelta(minutes=10)

    def _write_some(self, count: int, *, is_recorded: bool) -> None:
        for _ in range(count):
            self._step(is_recorded=is_recorded)
        while self._open and not is_recorded:  # what is lost ends before the log is read again
            self._end(is_recorded=False)

    def _step(self, *, is_recorded: bool) -> None:
        if len(self._open) < 4 and self._draw.random() < 0.5:
            self._begin()
        for transaction in self._open:
            for _ in range(self._draw.choice([0, 1, 1, 2])):
                self._change(transaction)
        if self._open and self._draw.random() < 0.5:
            self._end(is_recorded=is_recorded)

    def _begin(self) -> Open:
        self._xid += 1
        self._open.append(Open(self._xid))
        return self._open[-1]

    def _change(self, transaction: Open) -> None:
        locked = {name for other in self._open if other is not transaction for name in other.states}
        if not self._names or self._draw.random() < 0.12:
            name = f"acct_{len(self._names):06d}"
            self._names.append(name)
        else:
            recent = self._names[-200:] if self._draw.random() < 0.5 else self._names
            name = self._draw.choice([*transaction.states, self._draw.choice(recent)])
        if name in locked:
            return
        before = transaction.states.get(name, self._stored.get(name))
        after = self._next(before)
        op = "d" if after is None else "c" if before is None else "u"
        self._lsn += self._draw.choice([0, 1, 8, 8])  # rows of one COPY share a place
        transaction.states[name] = after
        transaction.writes.append((f"{self._lsn:016x}/{len(transaction.writes):08x}", op, name, after))

    def _next(self, before: State) -> State:
        if before is None:
            made = int((self._now - START).total_seconds()) - self._draw.choice([0, 1, 3_600])
            return (self._draw.choice("ABC"), "active", self._draw.choice([30, 35]), made)
        kind = self._draw.random()
        if kind < 0.1:
            return None
        if kind < 0.25:
            return before
        status = self._draw.choice(["active", "restricted", "closed"])
        return (self._draw.choice("ABC"), status, before[2], before[3])

    def _end(self, *, is_recorded: bool) -> None:
        transaction = self._open.pop(self._draw.randrange(len(self._open)))
        if self._draw.random() < 0.1 or not transaction.writes:
            return  # rolled back
        # The first commit after a snapshot may stand at its very place.
        self._lsn += 8 if self._lsn == self._committed else self._draw.choice([0, 8])
        self._committed = self._lsn
        self._now += timedelta(microseconds=self._draw.choice([0, 1, 900, 2_000_000]))
        self._stored.update(transaction.states)
        if not is_recorded:
            return
        prefix = f"{self._epoch:08x}/{self._lsn:016x}/"
        for place, op, name, state in transaction.writes:
            self._record(name, op, prefix + place, state, str(transaction.xid))
        last = {name: prefix + place for place, _, name, _ in transaction.writes}
        for name, state in transaction.states.items():
            self.told.setdefault(name, []).append(Told(self._now, last[name], state))

    def _record(self, name: str, op: str, position: str, state: State, xid: str | None) -> None:
        content: Row = {"business_name": None, "status": None, "fee_fixed_minor": None, "created_at": None}
        if state is not None:
            made = START + timedelta(seconds=state[3])
            content = {"business_name": state[0], "status": state[1], "fee_fixed_minor": state[2], "created_at": made}
        self.records.append(
            {
                "merchant_id": name,
                **content,
                "_op": op,
                "_key": f'["{name}"]',
                "_position": position,
                "_source_at": self._now,
                "_transaction_id": xid,
                "_content_hash": content_hash(content) if state is not None else content_hash({}),
            }
        )

    def _snapshot(self, *, is_first: bool) -> None:
        """Take the place in the log first and look later: what commits between is seen, and told by the log as well."""
        begun = self._begin()
        for _ in range(10):
            self._change(begun)
        self._lsn += 8
        prefix = f"{self._epoch:08x}/{self._lsn:016x}/{0:016x}/"
        known = {name: told[-1].state for name, told in self.told.items()}
        told_before = {name: len(told) for name, told in self.told.items()}
        # The records of the log come behind those of the snapshot, as they land; only the positions say the order.
        self._write_some(self._draw.choice([0, self._changes // 200]), is_recorded=True)
        is_complete = is_first or self._draw.random() < 0.5
        for number, name in enumerate(sorted(self._stored)):
            found, position = self._stored[name], f"{prefix}{number:08x}"
            op = "d" if found is None else "r"
            before = known.get(name)
            if found != before or (is_complete and found is not None):
                self._record(name, op, position, found, None)
            if found != before and len(self.told.get(name, ())) == told_before.get(name, 0):
                self.told.setdefault(name, []).append(Told(self._now, position, found))
        self._now += timedelta(microseconds=1)
        while self._open:  # they wrote before
            self._end(is_recorded=True)


def _versions(name: str, told: list[Told]) -> list[tuple[Any, ...]]:
    found: list[list[Any]] = []
    state: State = None
    since = datetime.min.replace(tzinfo=UTC)
    for each in sorted(told, key=lambda each: each.position):
        if each.state == state:
            continue
        since = max(since, each.at)
        if state is not None:
            found[-1][7:] = [since, False, each.state is None]
        state = each.state
        if state is not None:
            begins = since if found else min(since, START + timedelta(seconds=state[3]))
            found.append([name, len(found) + 1, each.position, *state[:3], begins, None, True, False])
    return [tuple(version) for version in found]

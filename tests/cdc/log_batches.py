"""A log made by hand: transactions with changes of some tables, cut into batches at will."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import pyarrow as pa

from ingestion.cdc.batches import EVENT_COLUMNS, LogBatch, change_schema
from ingestion.contracts import entities
from ingestion.raw_zone import Position

CONTRACT = entities("oltp")
Values = dict[str, str | None]
FIRST = 0x1000
AT = datetime(2026, 3, 10, 12, tzinfo=UTC)
ODD_TEXTS = ("", "null", 'a "quote"', "a\\nb", "two\nlines", "\u2028 é 😀", "0", "{}", ",", "|")


@dataclass(frozen=True)
class Transaction:
    """The rows of a transaction by entity: each as a table of changes has it."""

    commit_lsn: int
    rows: tuple[tuple[str, Values], ...]

    @property
    def end_lsn(self) -> int:
        return self.commit_lsn + 8


@dataclass
class Log:
    """A log that grows; place 0 is where it stood before everything."""

    draw: Random
    transactions: list[Transaction] = field(default_factory=list)

    @property
    def start(self) -> int:
        return FIRST

    @property
    def end(self) -> int:
        return self.transactions[-1].end_lsn if self.transactions else FIRST

    def commit(self, *changes: tuple[str, str, Values]) -> Transaction:
        """Write a transaction: entity, operation and values of each change, what else it tells among the values."""
        # A transaction may write before another commits, and commit right after it.
        commit_lsn = self.end + self.draw.choice([0, 16])
        rows = []
        for number, (name, op, values) in enumerate(changes):
            entity = CONTRACT[name]
            position = Position(1, commit_lsn, self.end - 8 + number // 2, number % 2)
            log = {
                "_op": op,
                "_position": str(position),
                "_changed_at": AT.isoformat(),
                "_transaction_id": str(commit_lsn),
            }
            rows.append((name, {**dict.fromkeys(change_schema(entity).names), **log, **values}))
        self.transactions.append(Transaction(commit_lsn, tuple(rows)))
        return self.transactions[-1]

    def grow(self, transactions: int, tenants: int = 5) -> "Log":
        """Write transactions of some tenants: a charge, its customer, sometimes their end."""
        for _ in range(transactions):
            merchant, number = f"acct_{self.draw.randrange(tenants)}", str(self.draw.randrange(1_000))
            charge: Values = {
                "merchant_id": merchant,
                "charge_id": f"ch_{number}",
                "status": self.draw.choice(ODD_TEXTS),
            }
            customer: Values = {
                "merchant_id": merchant,
                "customer_id": f"cus_{number}",
                "city": self.draw.choice(ODD_TEXTS),
            }
            changes: list[tuple[str, str, Values]] = [
                ("charges", "c", charge),
                ("customers", "u", customer),
                ("charges", "u", charge),
            ]
            if self.draw.random() < 0.2:
                changes.append(("customers", "d", {name: customer[name] for name in ("merchant_id", "customer_id")}))
            if self.draw.random() < 0.05:
                changes.append(("coupons", "t", {}))
            self.commit(*changes)
        return self

    def batch(self, start: int, end: int) -> LogBatch:
        """Return what stands between two places."""
        found = [transaction for transaction in self.transactions if start <= transaction.commit_lsn < end]
        rows = [row for transaction in found for row in transaction.rows]
        names = dict.fromkeys(name for name, _ in rows)
        changes = {
            name: pa.Table.from_pylist([row for of, row in rows if of == name], change_schema(CONTRACT[name]))
            for name in names
        }
        at = AT + timedelta(microseconds=end)
        return LogBatch(1, start, end, at, len(found), changes)

    def batches(self, start: int, most: int = 5) -> Iterator[LogBatch]:
        """Cut what stands after a place into batches of a few transactions each."""
        ends = [transaction.end_lsn for transaction in self.transactions if transaction.end_lsn > start]
        while ends:
            count = self.draw.randint(1, most)
            yield self.batch(start, ends[:count][-1])
            start, ends = ends[:count][-1], ends[count:]


def changes_in(batches: Iterable[LogBatch]) -> list[tuple[str, str, tuple[tuple[str, str | None], ...]]]:
    """Return every change: position, entity and values, in the order of the batches."""
    return [
        (row["_position"], name, tuple(row.items()))
        for batch in batches
        for row, name in sorted(
            ((row, name) for name, table in batch.changes.items() for row in table.to_pylist()),
            key=lambda found: found[0]["_position"],
        )
    ]


def events(rows: Sequence[dict[str, str]]) -> pa.Table:
    """Return rows of the outbox."""
    return pa.Table.from_pylist(list(rows), pa.schema([(name, pa.string()) for name in (*EVENT_COLUMNS, "_position")]))

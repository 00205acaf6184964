"""What the tests of landing read back: rows of the raw zone, as its pinned readers see them."""

from pathlib import Path
from typing import Any

import duckdb

from ingestion.oltp import land_oltp
from ingestion.raw_zone import Pin, RawZone, parquet
from payments.settings import settings

Row = dict[str, Any]


def pin() -> Pin:
    return RawZone(settings().raw_zone).pin()


def rows(source: str, entity: str, columns: str = "*", order: str = "_sequence, _position") -> list[Row]:
    """Every landed row of an entity."""
    return _read(pin().files(source, entity), columns, order)


def latest(source: str, entity: str, columns: str = "*") -> list[Row]:
    """The latest row of each key that is not deleted, by key."""
    files = pin().files(source, entity)
    if not files:
        return []
    newest = "qualify row_number() over (partition by _key order by _position desc) = 1"
    found = _query(f"select * from (select * from {parquet(files)} {newest}) where _op <> 'd' order by _key")
    return [{name: row[name] for name in (columns.split(", ") if columns != "*" else row)} for row in found]


def refused(source: str, entity: str) -> list[Row]:
    """Every row of the quarantine files of an entity."""
    return _read(pin().files(source, entity, "quarantine"), "*", "sequence, rule, record")


def assert_nothing_lost_or_twice() -> int:
    """Compare what a stream landed with the operational store; return how many changes were looked at one by one."""
    differing = [counts for counts in land_oltp().entities if counts.accepted or counts.deleted or counts.quarantined]
    assert differing == [], "a snapshot finds what the log did not bring"
    changes = 0
    for entity in ("ledger_entries", "charges", "customers", "payment_intents", "balance_transactions"):
        positions = [row["_position"] for row in rows("oltp", entity)]
        changes += len(positions)
        assert len(set(positions)) == len(positions), f"a change of {entity} landed twice"
    return changes


def _read(files: list[Path], columns: str, order: str) -> list[Row]:
    return _query(f"select {columns} from {parquet(files)} order by {order}") if files else []


def _query(query: str) -> list[Row]:
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        found = con.execute(query)
        names = [column[0] for column in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

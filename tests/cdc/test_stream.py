"""Change data capture without a broker: what is committed lands once, in order, whatever dies in between."""

import psycopg
import pytest

from ingestion.cdc.stream import NAME, drain
from tests.ingestion.raw import latest, pin, rows
from tests.systems.shop import MERCHANT, Shop

pytestmark = pytest.mark.usefixtures("platform_home")


@pytest.fixture(autouse=True)
def without_slot(oltp: psycopg.Connection) -> None:
    oltp.execute(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", (NAME,)
    )
    oltp.execute(f"drop publication if exists {NAME}")


def stored(oltp: psycopg.Connection, table: str, columns: str) -> list[dict[str, object]]:
    names = columns.split(", ")
    found = oltp.execute(f"select {columns} from {table} order by 1, 2".encode()).fetchall()
    return [dict(zip(names, row, strict=True)) for row in found]


def test_a_snapshot_first_then_every_change_once(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    (snapshot,) = drain()
    assert pin().commits[-1].kind == "snapshot"
    assert {counts.entity: counts.accepted for counts in snapshot.entities}["merchants"] == 1
    assert drain() == []

    oltp.execute("update core.customers set city = 'Paris' where merchant_id = %s", (MERCHANT,))
    oltp.execute("update core.customers set city = 'Nice' where merchant_id = %s", (MERCHANT,))
    shop.pay(1_000)
    (report,) = drain()
    assert pin().commits[-1].kind == "log"
    customers = [(row["_op"], row["city"], row["version"]) for row in rows("oltp", "customers")]
    assert customers == [("r", "Lyon", 1), ("u", "Paris", 2), ("u", "Nice", 3)]
    columns = "merchant_id, charge_id, amount_minor, status, version"
    assert latest("oltp", "charges", columns) == stored(oltp, "core.charges", columns)
    entries = [row["_position"] for row in rows("oltp", "ledger_entries")]
    assert len(set(entries)) == len(entries)
    assert drain() == []

"""The load into the PostgreSQL warehouse: what is new, once, whole."""

import shutil
from pathlib import Path

import psycopg
import pytest

from ingestion.compaction import compact
from ingestion.files import land_transactions
from ingestion.oltp import land_oltp
from ingestion.warehouse import load_postgres
from payments.errors import UsageError
from payments.settings import settings
from tests.conftest import Servers
from tests.ingestion.raw import pin, rows
from tests.systems.shop import Shop

pytestmark = pytest.mark.usefixtures("platform_home")

HEADER = "transaction_id,merchant_id,amount,currency,transaction_at\n"


def land_file(path: Path, *lines: str) -> None:
    path.write_text(HEADER + "\n".join(lines) + "\n")
    land_transactions(path)


def total(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(f"select count(*) from {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_an_empty_raw_zone_makes_typed_tables(warehouse: psycopg.Connection) -> None:
    assert set(load_postgres().values()) == {0}
    types = warehouse.execute(
        """
        select column_name, data_type from information_schema.columns
        where table_schema = 'raw_oltp' and table_name = 'charges'
        """
    ).fetchall()
    assert (
        dict(types).items()
        >= {
            "amount_minor": "bigint",
            "anomaly_score": "numeric",
            "created_at": "timestamp with time zone",
            "_sequence": "bigint",
        }.items()
    )


def test_new_batches_are_appended_once(oltp: psycopg.Connection, warehouse: psycopg.Connection, tmp_path: Path) -> None:
    shop = Shop(oltp).open()
    shop.confirm(shop.intend(1_000))
    land_oltp()
    land_file(tmp_path / "a.csv", "a,m,1.00,EUR,2026-01-01", "b,mä,2.00,EUR,2026-01-02", "c,m,x,EUR,2026-01-01")
    loaded = load_postgres()
    assert (loaded["raw_oltp.charges"], loaded["raw_files.transactions"], loaded["raw_platform.quarantine"]) == (
        1,
        2,
        1,
    )
    assert loaded["raw_platform.batches"] == len(pin().commits[0].entities) + 1
    assert set(load_postgres().values()) == {0}

    land_file(tmp_path / "b.csv", "b,mä,2.00,EUR,2026-01-02", "d,m,4.00,EUR,2026-01-01")
    compact()  # a merged file holds what was loaded as well
    loaded = load_postgres()
    assert {name: count for name, count in loaded.items() if count} == {
        "raw_files.transactions": 1,
        "raw_platform.batches": 1,
    }
    names = "transaction_id, merchant_id, amount_minor, transaction_at, _op, _key, _position, _source_at, _content_hash"
    found = warehouse.execute(f"select {names} from raw_files.transactions order by _position".encode()).fetchall()
    landed = rows("files", "transactions", names, order="_position")
    assert [tuple(row.values()) for row in landed] == found
    batch = warehouse.execute(
        "select read_count, accepted_count, unchanged_count, kind from raw_platform.batches where sequence = 3"
    ).fetchall()
    assert batch == [(2, 1, 1, "file")]


def test_a_failing_load_leaves_nothing(warehouse: psycopg.Connection, tmp_path: Path) -> None:
    land_file(tmp_path / "a.csv", "a,m,1.00,EUR,2026-01-01")
    load_postgres()
    land_file(tmp_path / "b.csv", "b,m,1.00,EUR,2026-01-01", "c,m,x,EUR,2026-01-01")
    warehouse.execute("alter table raw_platform.batches add constraint full_up check (sequence < 2)")
    with pytest.raises(Exception, match="full_up"):
        load_postgres()
    assert (total(warehouse, "raw_files.transactions"), total(warehouse, "raw_platform.quarantine")) == (1, 0)
    warehouse.execute("alter table raw_platform.batches drop constraint full_up")
    load_postgres()
    assert (total(warehouse, "raw_files.transactions"), total(warehouse, "raw_platform.quarantine")) == (2, 1)


def test_another_raw_zone_replaces_what_was_loaded(warehouse: psycopg.Connection, tmp_path: Path) -> None:
    land_file(tmp_path / "a.csv", "a,m,1.00,EUR,2026-01-01", "b,m,1.00,EUR,2026-01-01")
    load_postgres()
    shutil.rmtree(settings().raw_zone)
    land_file(tmp_path / "c.csv", "c,m,1.00,EUR,2026-01-01")
    assert load_postgres()["raw_files.transactions"] == 1
    assert warehouse.execute("select transaction_id from raw_files.transactions").fetchall() == [("c",)]


def test_a_column_that_the_contract_gained_is_added(warehouse: psycopg.Connection, tmp_path: Path) -> None:
    load_postgres()
    warehouse.execute("alter table raw_files.transactions drop column device_type")
    land_file(tmp_path / "a.csv", "a,m,1.00,EUR,2026-01-01")
    assert load_postgres()["raw_files.transactions"] == 1
    assert warehouse.execute("select device_type from raw_files.transactions").fetchall() == [(None,)]


def test_a_warehouse_out_of_reach_is_one_line_without_the_password(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYMENTS_WAREHOUSE_PASSWORD", "very secret'word")
    settings.cache_clear()
    with pytest.raises(UsageError, match=f"127.0.0.1:{servers.oltp_port}/warehouse cannot be reached") as caught:
        load_postgres()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)

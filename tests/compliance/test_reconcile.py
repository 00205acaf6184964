"""All stores compared at a barrier; what was tampered with anywhere turns its own entity red and names the keys."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import psycopg
import pytest

from ingestion.cdc.stream import NAME, drain, follow
from ingestion.contracts import entities
from ingestion.documents import land_documents
from ingestion.files import land_transactions
from ingestion.oltp import land_oltp
from ingestion.raw_zone import RawZone, parquet, text_literal
from payments.compliance import barrier as barriers
from payments.compliance.barrier import barrier
from payments.compliance.content import Content, content_of, content_query
from payments.compliance.readings import Comparison
from payments.compliance.reconcile import Reconciliation, reconcile
from payments.errors import UsageError
from payments.settings import settings
from payments.simulation.history import simulate
from payments.simulation.traffic import run_traffic
from payments.systems.documents.client import database
from payments.systems.oltp.connection import connect
from tests.conftest import Servers, empty_oltp
from tests.dbt_command import run_dbt

FILE = """transaction_id,merchant_id,amount,currency,transaction_at,status
t1,m1,12.34,USD,2026-05-01T10:00:00Z,succeeded
t2,m1,1.00,USD,2026-05-01T11:00:00Z,failed
t3,m2,500,JPY,2026-05-02T10:00:00Z,
t4,m2,0.00,USD,2026-05-02T10:00:00Z,refunded
"""
MODELS = (
    *(f"stg_oltp__{name}" for name in entities("oltp")),
    "stg_documents__feedback",
    "+fct_payments",
    "+fct_refunds",
    "+fct_ledger_entries",
)


@pytest.fixture(scope="module")
def platform(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small business that landed and was built, with all of its stores; every test leaves it as it was."""
    home = tmp_path_factory.mktemp("reconcile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAYMENTS_RAW", str(home / "raw"))
        patch.setenv("PAYMENTS_WAREHOUSE", str(home / "warehouse.duckdb"))
        patch.setenv("PAYMENTS_KEY_RING", str(home / "keys" / "ring.json"))
        settings.cache_clear()
        with connect(autocommit=True) as connection:
            assert connection.info.port == servers.oltp_port
            empty_oltp(connection)
            drop_slot(connection)
        store = database()
        for name in store.list_collection_names():
            store[name].delete_many({})
        simulate(transactions=300, days=30, seed=5)
        land_oltp()
        land_documents()
        (home / "transactions.csv").write_text(FILE)
        land_transactions(home / "transactions.csv")
        run_dbt(home, "build", "--select", *MODELS, "--exclude-resource-type", "test", "unit_test")
        yield home
    settings.cache_clear()


def drop_slot(connection: psycopg.Connection) -> None:
    connection.execute(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", (NAME,)
    )
    connection.execute(f"drop publication if exists {NAME}".encode())


def red(result: Reconciliation) -> set[str]:
    return {comparison.entity for comparison in result.comparisons if not comparison.agrees}


def asked(query: str) -> tuple[str, ...]:
    with duckdb.connect(str(settings().warehouse_path), read_only=True) as warehouse:
        return tuple(str(value) for value in warehouse.execute(query).fetchall()[0])


@contextmanager
def tampered(*statements: str) -> Iterator[None]:
    """Change a table of the warehouse, and put it back."""
    table = statements[0].split("dev_")[1].split()[0]
    with duckdb.connect(str(settings().warehouse_path)) as warehouse:
        warehouse.execute(f"create table kept as from dev_{table}")
        for statement in statements:
            warehouse.execute(statement)
    yield
    with duckdb.connect(str(settings().warehouse_path)) as warehouse:
        warehouse.execute(f"delete from dev_{table}; insert into dev_{table} from kept; drop table kept")


def test_all_stores_agree_and_are_counted(platform: Path) -> None:
    assert platform.exists()
    result = reconcile()
    assert result.differences == ()
    assert not any("doubt" in note or "exact" in note for note in result.notes)
    rows = {row[0]: dict(zip(result.header(), row, strict=True)) for row in result.matrix()}
    assert {name for name in rows if name.startswith("oltp.")} == {f"oltp.{name}" for name in entities("oltp")}
    assert rows["oltp.charges"]["PostgreSQL"] == rows["oltp.charges"]["marts"] == 300
    assert rows["oltp.ledger_entries"]["marts"] == rows["oltp.ledger_entries"]["PostgreSQL"] > 600
    assert rows["files.transactions"]["PostgreSQL"] is None
    assert rows["files.transactions"]["marts"] == 4
    feedback = database()["feedback"].count_documents({})
    assert rows["documents.feedback"]["document store"] == rows["documents.feedback"]["staging"] == feedback > 0
    assert {row["equal"] for row in rows.values()} == {"yes"}
    money = {row[0]: dict(zip(result.header(), row, strict=True)) for row in result.captured()}
    with connect() as connection:
        total = connection.execute("select sum(amount_captured_minor) from core.charges where currency = 'EUR'")
        (euros,) = total.fetchone() or (0,)
    assert {money["oltp.charges EUR"][store] for store in ("PostgreSQL", "raw zone", "staging", "marts")} == {euros}
    assert money["files.transactions USD"]["marts"] == money["files.transactions USD"]["raw zone"] == 1234
    assert any("fct_disputes" in note for note in result.notes), "what is not built is said"
    assert '"equal": true' in result.as_json()


def test_a_changed_amount_in_the_raw_zone(platform: Path) -> None:
    (file,) = RawZone(platform / "raw").pin().files("oltp", "charges")
    kept = file.read_bytes()
    merchant, charge = asked(
        "select merchant_id, min(charge_id) from dev_staging.stg_oltp__charges group by 1 order by 1"
    )
    change = f"amount_minor + (charge_id = '{charge}' and merchant_id = '{merchant}')::int as amount_minor"
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(f"create table rows as select * replace ({change}) from {parquet([file])}")
        con.execute(f"copy rows to {text_literal(str(file))} (format parquet)")
    try:
        result = reconcile()
    finally:
        file.write_bytes(kept)
    assert red(result) == {"oltp.charges"}
    # PostgreSQL beside the raw zone, and the raw zone beside staging.
    amounts, first, staged_amounts, staged_first = result.differences
    assert amounts.startswith("oltp.charges amount_minor ")
    assert first == f"oltp.charges other content in raw zone than in PostgreSQL: {merchant}/{charge}"
    assert staged_amounts.startswith("oltp.charges amount_minor ")
    assert staged_first == f"oltp.charges other content in staging than in raw zone: {merchant}/{charge}"


def test_rows_missing_in_staging_and_changed_there(platform: Path) -> None:
    assert platform.exists()
    merchant, customer = asked("select merchant_id, customer_id from dev_staging.stg_oltp__customers order by 1, 2")
    key = f"merchant_id = '{merchant}' and customer_id = '{customer}'"
    with tampered(f"delete from dev_staging.stg_oltp__customers where {key}"):
        result = reconcile()
    assert red(result) == {"oltp.customers"}
    counted, named = result.differences
    assert counted.startswith("oltp.customers rows: raw zone ")
    assert named == f"oltp.customers only in raw zone: {merchant}/{customer}"
    with tampered(f"update dev_staging.stg_oltp__customers set city = 'Elsewhere' where {key}"):
        result = reconcile()
    content, named = result.differences
    assert content.startswith("oltp.customers content: raw zone ")
    assert named == f"oltp.customers other content in staging than in raw zone: {merchant}/{customer}"


def test_a_changed_and_a_repeated_row_in_a_mart(platform: Path) -> None:
    assert platform.exists()
    charge, currency, captured = asked(
        "select merchant_id || '/' || payment_id, currency, captured_amount_minor from dev_marts.fct_payments "
        "where source = 'oltp' order by 1"
    )
    with tampered(
        "update dev_marts.fct_payments set captured_amount_minor = captured_amount_minor + 1 "
        f"where source = 'oltp' and merchant_id || '/' || payment_id = '{charge}'"
    ):
        result = reconcile()
    assert captured.isdigit()
    assert red(result) == {"oltp.charges"}
    amount, named = result.differences
    assert amount.startswith(f"oltp.charges amount_captured_minor {currency}: staging ")
    assert named == f"oltp.charges other content in fct_payments than in staging: {charge}"
    assert [row[-1] for row in result.captured() if row[0] == f"oltp.charges {currency}"] == ["NO"]
    with tampered("insert into dev_marts.fct_ledger_entries from dev_marts.fct_ledger_entries order by all limit 1"):
        result = reconcile()
    assert red(result) == {"oltp.ledger_entries"}
    assert "1 times in staging, 2 times in fct_ledger_entries: " in result.differences[-1]


def test_a_document_that_is_gone_and_one_that_is_only_late(platform: Path) -> None:
    assert platform.exists()
    feedback = database()["feedback"]
    (one,) = feedback.find().sort("_id", 1).limit(1)
    late = one | {"_id": "zz_late", "written_at": datetime.now(UTC)}
    feedback.insert_one(late)
    try:
        result = reconcile()
        assert result.differences == ()
        assert any(note.startswith("documents.feedback: 1 documents changed since") for note in result.notes)
        feedback.delete_one({"_id": one["_id"]})
        result = reconcile()
    finally:
        feedback.delete_one({"_id": "zz_late"})
        feedback.insert_one(one)
    assert red(result) == {"documents.feedback"}
    counted, named = result.differences
    assert counted.startswith("documents.feedback rows: raw zone ")
    assert named == f"documents.feedback only in raw zone: {one['_id']}"


def test_a_profile_without_its_customer(platform: Path) -> None:
    (file,) = RawZone(platform / "raw").pin().files("oltp", "customers")
    kept = file.read_bytes()
    (profile,) = database()["customer_profiles"].find().sort("_id", 1).limit(1)
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(f"create table rows as from {parquet([file])} where customer_id <> '{profile['_id']}'")
        con.execute(f"copy rows to {text_literal(str(file))} (format parquet)")
    try:
        result = reconcile()
    finally:
        file.write_bytes(kept)
    assert red(result) == {"oltp.customers", "copies.customer_profiles"}
    assert f"copies.customer_profiles without its row in customers: {profile['_id']}" in result.differences


def test_what_never_landed_is_red_until_a_stream_brings_it(platform: Path) -> None:
    assert platform.exists()
    with connect(autocommit=True) as connection:
        change = (
            "update core.charges set device_type = %s where (merchant_id, charge_id) = "
            "(select merchant_id, charge_id from core.charges order by merchant_id, charge_id limit 1) returning charge_id"
        )
        was = connection.execute(
            "select device_type from core.charges order by merchant_id, charge_id limit 1"
        ).fetchone()
        connection.execute("set session_replication_role = replica")
        row = connection.execute(change, ("changed",)).fetchone()
        assert was is not None
        assert row is not None
        result = reconcile()
        assert red(result) == {"oltp.charges"}
        assert result.differences[-1].endswith(f"/{row[0]}")
        connection.execute(change, was)
        assert reconcile().differences == ()

"""All stores compared at a barrier; what was tampered with anywhere turns its own entity red and names the keys."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import psycopg
import pytest

from ingestion.cdc.copies import advance_copies
from ingestion.cdc.stream import drain, follow
from ingestion.contracts import entities
from ingestion.documents import land_documents
from ingestion.files import land_transactions
from ingestion.oltp import land_oltp
from ingestion.raw_zone import RawZone, parquet, text_literal
from payments.compliance.barrier import barrier
from payments.compliance.built import CAPTURED, FILE_CAPTURED, MARTS
from payments.compliance.readings import Comparison, latest
from payments.compliance.reconcile import Reconciliation, reconcile
from payments.errors import UsageError
from payments.settings import settings
from payments.simulation.history import simulate
from payments.simulation.traffic import run_traffic
from payments.systems.documents.client import database
from payments.systems.oltp import exported
from payments.systems.oltp.connection import connect
from payments.systems.stream import server as broker
from tests.conftest import Servers, drop_slot, empty_oltp
from tests.systems.brokers import own_broker
from tests.systems.shop import Shop

FILE = """transaction_id,merchant_id,amount,currency,transaction_at,status
t1,m1,12.34,USD,2026-05-01T10:00:00Z,succeeded
t2,m1,1.00,USD,2026-05-01T11:00:00Z,failed
t3,m2,500,JPY,2026-05-02T10:00:00Z,
t4,m2,0.00,USD,2026-05-02T10:00:00Z,refunded
"""


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
        assert advance_copies().failure is None
        land_documents(["feedback", "customer_profiles", "fraud_decisions"])
        (home / "transactions.csv").write_text(FILE)
        land_transactions(home / "transactions.csv")
        _build(home / "warehouse.duckdb")
        yield home
    settings.cache_clear()


def _build(warehouse: Path) -> None:
    """Build staging and marts as dbt does it, as far as they are compared; the demo builds the true ones."""
    pin = RawZone(settings().raw_zone).pin()
    others = [entities("files")["transactions"], entities("documents")["feedback"]]
    staged = [*others, *entities("oltp").values()]
    with duckdb.connect(str(warehouse)) as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute("create schema raw_platform; create schema dev_staging; create schema dev_marts")
        con.execute(f"create table raw_platform.recent_batches as select {pin.sequence} as sequence")
        con.execute("create view raw_platform.batches as from raw_platform.recent_batches")
        for entity in staged:
            con.execute(
                f"create table dev_staging.stg_{entity.source}__{entity.name} as "
                f"select *, false as is_deleted from ({latest(con, pin, entity, 'true')})"
            )
        for mart in (mart for mart in MARTS if mart.model != "fct_disputes"):
            columns = ", ".join(
                f"{FILE_CAPTURED if mart.source == 'files' and ours == CAPTURED else ours} as {theirs}"
                for ours, theirs in mart.columns.items()
            )
            rows = f"select {columns}, '{mart.source}' as source from dev_staging.stg_{mart.source}__{mart.entity}"
            known = con.execute("select count(*) from duckdb_tables() where table_name = ?", [mart.model]).fetchone()
            verb = "insert into" if known == (1,) else "create table"
            con.execute(f"{verb} dev_marts.{mart.model} {'by name' if known == (1,) else 'as'} {rows}")


def red(result: Reconciliation) -> set[str]:
    return {comparison.entity for comparison in result.comparisons if not comparison.agrees}


@contextmanager
def rewritten(entity: str, change: str) -> Iterator[None]:
    """Change the rows of the newest file of an entity in the raw zone, hashes left as they are; put it back."""
    *_, file = RawZone(settings().raw_zone).pin().files("oltp", entity)
    kept = file.read_bytes()
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(f"create table rows as {change.format(rows=parquet([file]))}")
        con.execute(f"copy rows to {text_literal(str(file))} (format parquet)")
    try:
        yield
    finally:
        file.write_bytes(kept)


@contextmanager
def tampered(*statements: str) -> Iterator[None]:
    """Change the warehouse, and put it back."""
    path = settings().warehouse_path
    kept = path.read_bytes()
    try:
        with duckdb.connect(str(path)) as warehouse:
            for statement in statements:
                warehouse.execute(statement)
        yield
    finally:
        path.write_bytes(kept)


def first_key(table: str, key: str) -> str:
    with duckdb.connect(str(settings().warehouse_path), read_only=True) as warehouse:
        return str(warehouse.execute(f"select min(merchant_id || '/' || {key}) from {table}").fetchall()[0][0])


def test_all_stores_agree_and_are_counted(platform: Path) -> None:
    assert platform.exists()
    result = reconcile()
    assert result.differences == ()
    rows = {str(row[0]): dict(zip(result.header(), row, strict=True)) for row in result.matrix()}
    assert {name for name in rows if name.startswith("oltp.")} == {f"oltp.{name}" for name in entities("oltp")}
    assert rows["oltp.charges"]["PostgreSQL"] == rows["oltp.charges"]["marts"] == 300
    assert rows["oltp.ledger_entries"]["marts"] == rows["oltp.ledger_entries"]["PostgreSQL"]
    assert rows["files.transactions"]["PostgreSQL"] is None
    assert rows["files.transactions"]["marts"] == 4
    feedback = database()["feedback"].count_documents({})
    assert rows["documents.feedback"]["document store"] == rows["documents.feedback"]["staging"] == feedback
    assert {row["equal"] for row in rows.values()} == {"yes"}
    money = {row[0]: dict(zip(result.header(), row, strict=True)) for row in result.captured()}
    with connect() as connection:
        total = connection.execute("select sum(amount_captured_minor) from core.charges where currency = 'EUR'")
        (euros,) = total.fetchone() or (0,)
    assert {money["oltp.charges EUR"][store] for store in ("PostgreSQL", "raw zone", "staging", "marts")} == {euros}
    spent = money["copies.customer_profiles.spent EUR"]
    assert spent["raw zone"] == spent["document store"] not in (0, None)
    assert money["files.transactions USD"]["marts"] == money["files.transactions USD"]["raw zone"] == 1234
    assert json.loads(result.as_json())["equal"] is True
    assert any(note.startswith("PostgreSQL and raw zone are compared at the barrier") for note in result.notes)
    assert not any("exact" in note for note in result.notes)
    assert any("dev_marts.fct_disputes" in note for note in result.notes), "what is not built is said"


def test_each_planted_difference_is_red_and_names_its_keys(platform: Path) -> None:
    assert platform.exists()
    charge = first_key("dev_staging.stg_oltp__charges", "charge_id")
    method = first_key("dev_staging.stg_oltp__payment_methods", "payment_method_id")
    refund = first_key("dev_marts.fct_refunds", "refund_id")
    feedback = database()["feedback"]
    (one,) = feedback.find().sort("_id", 1).limit(1)
    late = one | {"_id": "fb_zzzzzzzz", "written_at": datetime.now(UTC)}
    (profile,) = database()["customer_profiles"].find().sort("_id", 1).limit(1)
    (risk,) = database()["merchant_risk"].find().sort("_id", 1).limit(1)
    (spender,) = database()["customer_profiles"].find({"spent": {"$ne": []}}).sort("_id", -1).limit(1)
    customer = f"{profile['merchant_id']}/{profile['_id']}"
    is_charge = f"merchant_id || '/' || charge_id = '{charge}'"
    with (
        rewritten(
            "charges",
            f"select * replace (amount_minor + ({is_charge})::int as amount_minor) from {{rows}}",
        ),
        rewritten("customers", f"from {{rows}} where customer_id <> '{profile['_id']}'"),
        tampered(
            "delete from dev_staging.stg_oltp__payment_methods "
            f"where merchant_id || '/' || payment_method_id = '{method}'",
            "update dev_staging.stg_oltp__ledger_accounts set code = 'bank' where ledger_account_id = "
            "(select min(ledger_account_id) from dev_staging.stg_oltp__ledger_accounts where code <> 'bank')",
            "update dev_marts.fct_refunds set amount_minor = amount_minor + 1 "
            f"where merchant_id || '/' || refund_id = '{refund}'",
            "insert into dev_marts.fct_ledger_entries from dev_marts.fct_ledger_entries order by all limit 1",
        ),
    ):
        feedback.insert_one(late)
        feedback.delete_one({"_id": one["_id"]})
        database()["merchant_risk"].delete_one({"_id": risk["_id"]})
        database()["customer_profiles"].update_one({"_id": spender["_id"]}, {"$inc": {"spent.0.amount_minor": 1}})
        try:
            result = reconcile()
        finally:
            feedback.delete_one({"_id": late["_id"]})
            feedback.insert_one(one)
            database()["merchant_risk"].insert_one(risk)
            database()["customer_profiles"].replace_one({"_id": spender["_id"]}, spender)
    found = {
        name: [line.removeprefix(f"{name} ") for line in result.differences if line.startswith(f"{name} ")]
        for name in red(result)
    }
    assert found.keys() == {
        "oltp.charges",
        "oltp.customers",
        "oltp.payment_methods",
        "oltp.ledger_accounts",
        "oltp.refunds",
        "oltp.ledger_entries",
        "documents.feedback",
        "copies.customer_profiles",
        "copies.customer_profiles.spent",
        "copies.merchant_risk",
    }
    # PostgreSQL beside the raw zone, then the raw zone beside staging.
    assert [line.split(" ")[0] for line in found["oltp.charges"]] == ["amount_minor", "other"] * 2
    assert found["oltp.charges"][1] == f"other content in raw zone than in PostgreSQL: {charge}"
    assert found["oltp.charges"][3] == f"other content in staging than in raw zone: {charge}"
    assert found["oltp.customers"][1::2] == [f"only in PostgreSQL: {customer}", f"only in staging: {customer}"]
    counted, named = found["oltp.payment_methods"]
    assert counted.startswith("rows: raw zone ")
    assert named == f"only in raw zone: {method}"
    content, named = found["oltp.ledger_accounts"]
    assert content.startswith("content: raw zone ")
    assert named.startswith("other content in staging than in raw zone: ")
    amount, named = found["oltp.refunds"]
    assert amount.startswith("amount_minor ")
    assert named == f"other content in fct_refunds than in staging: {refund}"
    assert found["oltp.ledger_entries"][-1].startswith("1 times in staging, 2 times in fct_ledger_entries: ")
    assert found["documents.feedback"][-1] == f"only in raw zone: {one['_id']}"
    assert any(note.startswith("documents.feedback: 1 documents changed since") for note in result.notes)
    assert found["copies.customer_profiles"][-1] == f"without its row in customers: {profile['_id']}"
    currency = spender["spent"][0]["currency"]
    money, named = found["copies.customer_profiles.spent"]
    assert money.startswith(f"{CAPTURED} {currency}: raw zone ")
    assert named == f"other content in document store than in raw zone: {spender['_id']}/{currency}"
    assert found["copies.merchant_risk"][-1] == f"without a copy: {risk['_id']}"
    assert [row[0] for row in result.matrix() if row[-1] == "NO"] == sorted(found, key=list(_order(result)).index)


def _order(result: Reconciliation) -> Iterator[str]:
    yield from (str(row[0]) for row in result.matrix())


def test_red_until_a_stream_brings_it_and_green_under_traffic(platform: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert platform.exists()
    with connect(autocommit=True) as connection:
        # A change that no landing brought: everything behind PostgreSQL lacks it.
        row = connection.execute(
            "update core.customers set city = 'Elsewhere', version = version + 1 where (merchant_id, customer_id) = "
            "(select merchant_id, customer_id from core.customers order by 1, 2 limit 1) "
            "returning merchant_id || '/' || customer_id"
        ).fetchone()
        assert row is not None
        result = reconcile()
        assert red(result) == {"oltp.customers"}
        assert result.differences[-1] == f"oltp.customers other content in raw zone than in PostgreSQL: {row[0]}"
        drain()
        try:
            with ThreadPoolExecutor(2) as pool:
                traffic = pool.submit(run_traffic, tps=30, seconds=3, clients=2, seed=3)
                ours = reconcile()  # nobody streams: it lands by itself
                is_over = threading.Event()
                stream = pool.submit(lambda: [step for step in follow(is_over.is_set) if step.changes])
                try:
                    theirs = reconcile()  # somebody streams
                finally:
                    is_over.set()
                assert traffic.result().acknowledged
                assert stream.result() is not None
            assert ours.differences == theirs.differences == ()
            rows = {row[0]: dict(zip(ours.header(), row, strict=True)) for row in ours.matrix()}
            # As built, whether or not a payment came in time to be told apart.
            assert rows["oltp.charges"]["staging"] == 300
            assert any("landed since" in note for note in ours.notes)
            after = {row[0]: dict(zip(theirs.header(), row, strict=True)) for row in theirs.matrix()}
            assert after["oltp.charges"]["PostgreSQL"] == after["oltp.charges"]["raw zone"] != 300
            # From here on over a broker: its topic is one store more.
            with own_broker(monkeypatch, settings().home):
                broker.start()
                connection.execute("update core.customers set version = version + 1")
                result = reconcile()
                assert result.differences == ()
                after = {row[0]: dict(zip(result.header(), row, strict=True)) for row in result.matrix()}
                customers = after["oltp.customers"]["PostgreSQL"]
                assert after["changes.customers"]["topics"] == after["changes.customers"]["raw zone"] == customers
                with rewritten("customers", "from {rows} order by _position offset 1"):
                    assert red(reconcile()) >= {"changes.customers", "oltp.customers"}
        finally:
            drop_slot(connection)


def test_a_barrier_shows_what_was_committed_before_it(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    city = "select city from core.customers"
    with barrier() as found:
        oltp.execute("update core.customers set city = 'Nice', version = version + 1")
        (after,) = oltp.execute("select (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone() or (0,)
        assert found.connection.execute(city).fetchone() == ("Lyon",)
        assert found.doubt is None
        assert found.point.lsn < after
    assert oltp.execute("select count(*) from pg_replication_slots where temporary").fetchone() == (0,)


def test_a_barrier_that_has_to_do_without_a_slot_says_so(
    oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shop(oltp).open()
    monkeypatch.setattr(exported, "_WAIT", "50ms")
    with connect() as other:
        other.execute("update core.customers set city = 'Nice', version = version + 1")
        with barrier() as found:
            assert found.connection.execute("select city from core.customers").fetchone() == ("Lyon",)
            assert found.doubt is not None
            assert "lock timeout" in found.doubt


def test_what_cannot_be_compared_is_no_agreement() -> None:
    stopped = Comparison("oltp.charges", {}, ("cannot be compared: amount_minor is text",))
    result = Reconciliation((stopped,))
    assert result.differences == ("oltp.charges cannot be compared: amount_minor is text",)
    assert [row[-1] for row in result.matrix()] == ["NO"]


def test_without_a_warehouse_there_is_nothing_to_compare(platform_home: Path) -> None:
    assert platform_home.exists()
    with pytest.raises(UsageError, match="run dbt build"):
        reconcile()


def test_a_warehouse_without_models_says_what_to_run(platform_home: Path) -> None:
    duckdb.connect(str(platform_home / "warehouse.duckdb")).close()
    with pytest.raises(UsageError, match="run dbt build"):
        reconcile()

"""DuckDB and PostgreSQL build the same marts and features from a simulated business, and history as it was."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymongo.database import Database

from ingestion.cdc.stream import drain
from ingestion.compaction import compact
from ingestion.contracts import entities
from ingestion.documents import land_documents
from ingestion.oltp import land_oltp
from ingestion.warehouse import load_postgres
from payments.digest import NOT_BUILT, Digest, compare, digest
from payments.errors import UsageError
from payments.settings import settings
from payments.simulation.history import simulate
from tests.conftest import Servers
from tests.dbt_project import NO_UNIT_TESTS, Dbt
from tests.ingestion.raw import pin
from tests.systems.shop import Shop, busy_market
from tests.warehouse.analyses import RECOMPUTED
from tests.warehouse.analyses.landed import Answer, Landed
from tests.warehouse.documents import Document, write_documents
from tests.warehouse.recorded import Recorded
from tests.warehouse.traces import faults_of_traces

VERSIONS = """
    select
        merchant_id, version_number, _position, business_name, status, fee_fixed_minor,
        valid_from, valid_to, is_current, is_deleted_at_end
    from dev_history.hist_merchants
    order by merchant_id, version_number
"""


def test_both_engines_hold_the_same_rows(
    oltp: psycopg.Connection, documents: Database[Document], platform_home: Path, dbt: Dbt, full_size: bool
) -> None:
    assert platform_home.is_dir()
    simulate(20_000 if full_size else 1_500, days=45, seed=5)
    shop = busy_market(oltp)
    ((merchant, charge),) = oltp.execute("select merchant_id, charge_id from core.charges limit 1").fetchall()
    write_documents(documents, merchant, charge)
    land_oltp()
    land_documents()
    # A customer is seen to move to another country, and then pays.
    oltp.execute("update core.customers set country = 'DE' where customer_id = %s", (shop.customer_id,))
    land_oltp()
    Shop(oltp, at=datetime.now(UTC)).pay(1_000)
    land_oltp()
    load_postgres()

    # What equals tables that passed the tests passes them.
    for target, options in (("postgres", ()), ("duckdb", ("--exclude-resource-type", "test", "unit_test"))):
        outcome = dbt("build", *options, target=target)
        assert outcome.succeeded, outcome.output

    manifest = dbt.manifest("duckdb")
    comparisons = compare(manifest)
    assert {c.model: (c.duckdb, c.postgres) for c in comparisons if not c.equal} == {}
    rows = {c.model: c.duckdb.rows for c in comparisons}
    assert {"dim_merchant", "fct_payments", "fct_refunds", "fct_disputes", "fct_ledger_entries"} <= set(rows)
    assert rows["fct_payments"] == oltp.execute("select count(*) from core.charges").fetchall()[0][0]
    facts = ("sessions", "page_events", "feedback", "api_requests", "webhook_deliveries", "fraud_decisions")
    assert all(rows[f"fct_{fact}"] > 0 for fact in facts), rows
    assert rows["agg_api_reliability_daily"] > 0
    assert rows["agg_customer_360"] > 0
    staged = digest("duckdb", manifest, layer="staging")
    assert staged == digest("postgres", manifest, layer="staging")
    for entity in entities("oltp"):
        schema, table = ("ledger", entity[7:]) if entity.startswith("ledger_") else ("core", entity)
        ((there,),) = oltp.execute(f"select count(*) from {schema}.{table}".encode()).fetchall()
        assert (entity, staged[f"stg_oltp__{entity}"].rows) == (entity, there)
    features = digest("duckdb", manifest, layer="features")
    assert features == digest("postgres", manifest, layer="features")
    assert features["feat_payments"].rows == rows["fct_payments"]

    # Every figure of a mart is found again in the raw zone; PostgreSQL's is told by the same steps.
    assert faults_of_traces("duckdb", manifest, [mart for mart in rows if rows[mart]]) == []
    assert (
        faults_of_traces("postgres", manifest, ["agg_revenue_daily", "fct_mrr_movements", "agg_compliance_daily"]) == []
    )

    # Every analysis gives the answer of plain Python, on both engines.
    landed = Landed()
    expected = {name: recomputed(landed) for name, recomputed in RECOMPUTED.items()}
    assert [name for name, rows in expected.items() if not rows] == []
    for target in ("duckdb", "postgres"):
        assert wrong_answers(target, dbt.analyses(target), expected) == {}

    # One cent in one row of one engine is seen.
    with duckdb.connect(str(settings().warehouse_path)) as con:
        outcomes = {row[0] for row in con.execute("from dev_marts.fct_payout_reconciliation select outcome").fetchall()}
        assert {"matched", "late", "different_amount", "missing_at_bank", "unexplained"} <= outcomes
        con.execute(
            "update dev_marts.fct_payments set amount_minor = amount_minor + 1 where payment_key = ("
            "select min(payment_key) from dev_marts.fct_payments)"
        )
    assert [c.model for c in compare(manifest) if not c.equal] == ["fct_payments"]


def test_versions_are_those_of_brute_force_in_both_engines(
    servers: Servers, platform_home: Path, dbt: Dbt, full_size: bool
) -> None:
    history = Recorded(100_000 if full_size else 5_000, seed=1)
    history.write(settings().raw_zone)
    load_postgres()
    for target in ("duckdb", "postgres"):
        outcome = dbt("build", "--select", "models/history", *NO_UNIT_TESTS, target=target)
        assert outcome.succeeded, outcome.output

    expected = history.versions()
    for target in ("duckdb", "postgres"):
        assert asked(target, VERSIONS) == expected

    # The history holds what is hard about it.
    ops = Counter(row["_op"] for row in history.records)
    assert min(ops[op] for op in "rcud") > len(history.records) // 100, ops
    assert any(version[6] == version[7] for version in expected), "a version that held for no time"
    assert any(
        first[0] == second[0] and first[7] < second[6] for first, second in pairwise(expected) if first[7] is not None
    ), "a gap between two lives"
    assert len({row["_position"][:8] for row in history.records}) > 1, "several epochs"


PAYMENTS = "select * from dev_{}.fct_payments{} order by payment_key"
REVENUE = """
    select
        sum(payment_count), sum(failed_count), sum(captured_amount_minor), sum(refunded_amount_minor),
        sum(reporting_captured_amount_minor)
    from dev_live.agg_revenue_by_minute
"""
FRAUD = """
    select sum(payment_count), sum(risky_count), sum(fraud_dispute_count), sum(fraud_disputed_amount_minor)
    from dev_live.agg_fraud_by_minute
"""


def asked(target: str, query: str) -> list[tuple[Any, ...]]:
    """The answer of a warehouse as somebody gets it who only reads."""
    return answers(target, {"": query})[""][1]


def answers(target: str, queries: Mapping[str, str]) -> dict[str, tuple[list[str], list[tuple[Any, ...]]]]:
    """The columns and rows that a warehouse gives to queries, by their names."""
    if target == "duckdb":
        with duckdb.connect(str(settings().warehouse_path), read_only=True) as con:
            con.execute("set TimeZone = 'UTC'")
            relations = ((name, con.execute(query)) for name, query in queries.items())
            return {
                name: ([column[0] for column in found.description or []], found.fetchall()) for name, found in relations
            }
    with psycopg.connect(
        host="127.0.0.1", port=settings().oltp_port, user="warehouse", password="warehouse", dbname="warehouse"
    ) as warehouse:
        warehouse.execute("set timezone = 'UTC'")
        cursors = ((name, warehouse.execute(query.encode())) for name, query in queries.items())
        return {
            name: ([column.name for column in found.description or []], found.fetchall()) for name, found in cursors
        }


def wrong_answers(target: str, queries: Mapping[str, str], expected: Mapping[str, Answer]) -> dict[str, list[Any]]:
    """The analyses that a target answers otherwise than expected, or that nothing is expected of: where they differ."""
    found = {
        name: [dict(zip(columns, row, strict=True)) for row in rows]
        for name, (columns, rows) in answers(target, queries).items()
    }
    return {
        name: [pair for pair in zip_longest(found.get(name, []), expected.get(name, [])) if pair[0] != pair[1]][:1]
        for name in found.keys() | expected.keys()
        if found.get(name) != expected.get(name)
    }


@pytest.mark.usefixtures("without_slot")
def test_what_landed_since_the_build_is_in_the_star_at_once(
    oltp: psycopg.Connection, platform_home: Path, dbt: Dbt
) -> None:
    shop = Shop(oltp, at=datetime.now(UTC) - timedelta(minutes=50)).open()
    first, disputed = shop.pay(1_000), shop.pay(2_000)
    long_ago = Shop(oltp).pay(70_000)
    drain()
    load_postgres()
    models = ("--select", "+models/live", "--exclude-resource-type", "test", "unit_test")
    for target in ("duckdb", "postgres"):
        assert (outcome := dbt("build", *models, target=target)).succeeded, outcome.output
        assert asked(target, PAYMENTS.format("live", "_live")) == asked(target, PAYMENTS.format("marts", ""))

    shop = shop.later(minutes=30)
    shop.pay(4_000)
    shop.confirm(shop.intend(8_000), failure_code="card_declined")
    shop.refund(first, 300)
    shop.refund(long_ago, 500)
    shop.dispute(disputed)
    drain()
    load_postgres()
    live = {target: asked(target, PAYMENTS.format("live", "_live")) for target in ("duckdb", "postgres")}
    for target, rows in live.items():
        assert len(rows) == len(asked(target, PAYMENTS.format("marts", ""))) + 2
        ((*revenue, reporting),) = asked(target, REVENUE)
        assert revenue == [4, 1, 7_000, 800]
        assert reporting > 0
        assert asked(target, FRAUD) == [(4, 0, 1, 2_000)]

    # A batch that died before its commit record, behind the newest: it does not exist, until it is committed.
    newest = max((settings().raw_zone / "data" / "oltp" / "charges").glob("*.parquet"))
    sequence = pin().sequence + 1
    (row, *_) = pq.read_table(newest).to_pylist()
    row |= {"charge_id": "ch_unseen", "_key": '["unseen"]', "_sequence": sequence}
    unseen = newest.with_name(f"{sequence:012d}-{sequence:012d}.parquet")
    pq.write_table(pa.Table.from_pylist([row], schema=pq.read_schema(newest)), unseen)
    assert asked("duckdb", PAYMENTS.format("live", "_live")) == live["duckdb"]
    record = settings().raw_zone / "commits" / f"{sequence:012d}.json"
    record.touch()
    assert len(asked("duckdb", PAYMENTS.format("live", "_live"))) == len(live["duckdb"]) + 1
    record.unlink()
    unseen.unlink()
    compact()
    assert asked("duckdb", PAYMENTS.format("live", "_live")) == live["duckdb"]

    for target, rows in live.items():
        assert (outcome := dbt("build", *models, target=target)).succeeded, outcome.output
        assert asked(target, PAYMENTS.format("marts", "")) == rows
        assert asked(target, PAYMENTS.format("live", "_live")) == rows


def test_a_digest_does_not_depend_on_order_and_counts_rows_twice_that_stand_twice(platform_home: Path) -> None:
    manifest = platform_home / "manifest.json"
    manifest.write_text(
        '{"nodes": {"a": {"resource_type": "model", "fqn": ["payments", "marts", "m"],'
        ' "name": "m", "schema": "main", "alias": "m"}}}',
        encoding="utf-8",
    )

    def digest_of(values: str) -> Digest:
        path = settings().warehouse_path
        path.unlink(missing_ok=True)
        with duckdb.connect(str(path)) as con:
            con.execute(f"create table m as select * from (values {values}) as v (a, b)")
        return digest("duckdb", manifest)["m"]

    one = digest_of("(1, 'x'), (2, null)")
    assert one == digest_of("(2, null), (1, 'x')")
    assert one != digest_of("(1, 'x'), (2, '')")
    assert one != digest_of("(1, 'x'), (2, null), (2, null)")
    assert digest_of("(3, 'y'), (3, 'y')") != digest_of("(4, 'z'), (4, 'z')")


def test_what_is_missing_is_said(platform_home: Path) -> None:
    with pytest.raises(UsageError, match="run dbt build"):
        digest("duckdb", platform_home / "manifest.json")
    manifest = platform_home / "manifest.json"
    manifest.write_text(
        '{"nodes": {"a": {"resource_type": "model", "fqn": ["payments", "marts", "m"],'
        ' "name": "m", "schema": "main", "alias": "m"}}}',
        encoding="utf-8",
    )
    with pytest.raises(UsageError, match="run dbt build"):
        digest("duckdb", manifest)
    duckdb.connect(str(settings().warehouse_path)).close()
    assert digest("duckdb", manifest) == {"m": NOT_BUILT}

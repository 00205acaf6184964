"""DuckDB and PostgreSQL build the same marts and features from a simulated business, and history as it was."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import duckdb
import psycopg
import pytest
from pymongo.database import Database

from ingestion.contracts import entities
from ingestion.documents import land_documents
from ingestion.oltp import land_oltp
from ingestion.warehouse import load_postgres
from payments.digest import NOT_BUILT, Digest, compare, digest
from payments.errors import UsageError
from payments.settings import settings
from payments.simulation.history import simulate
from tests.conftest import Servers
from tests.systems.shop import busy_market
from tests.warehouse.dbt import NO_UNIT_TESTS, Dbt
from tests.warehouse.documents import Document, write_documents
from tests.warehouse.recorded import Recorded

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
    busy_market(oltp)
    ((merchant, charge),) = oltp.execute("select merchant_id, charge_id from core.charges limit 1").fetchall()
    write_documents(documents, merchant, charge)
    land_oltp()
    land_documents()
    load_postgres()

    for target, options in (("duckdb", NO_UNIT_TESTS), ("postgres", ())):
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
    with duckdb.connect(str(settings().warehouse_path), read_only=True) as con:
        con.execute("set TimeZone = 'UTC'")
        assert con.execute(VERSIONS).fetchall() == expected
    with psycopg.connect(
        host="127.0.0.1", port=servers.oltp_port, user="warehouse", password="warehouse", dbname="warehouse"
    ) as warehouse:
        warehouse.execute("set timezone = 'UTC'")
        assert warehouse.execute(VERSIONS).fetchall() == expected

    # The history holds what is hard about it.
    ops = Counter(row["_op"] for row in history.records)
    assert min(ops[op] for op in "rcud") > len(history.records) // 100, ops
    assert any(version[6] == version[7] for version in expected), "a version that held for no time"
    assert any(
        first[0] == second[0] and first[7] < second[6] for first, second in pairwise(expected) if first[7] is not None
    ), "a gap between two lives"
    assert len({row["_position"][:8] for row in history.records}) > 1, "several epochs"


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

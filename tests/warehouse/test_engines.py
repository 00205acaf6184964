"""DuckDB and PostgreSQL build the same marts and features from a simulated business."""

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
from tests.systems.shop import busy_market
from tests.warehouse.dbt import NO_UNIT_TESTS, Dbt
from tests.warehouse.documents import Document, write_documents


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

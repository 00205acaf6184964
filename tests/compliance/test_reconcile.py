"""Captured money compared across the stores; a figure that was tampered with anywhere is named."""

from pathlib import Path

import duckdb
import psycopg
import pytest

from ingestion.files import land_transactions
from ingestion.oltp import land_oltp
from payments.compliance.reconcile import Line, Reconciliation, reconcile
from payments.errors import UsageError
from payments.settings import settings
from payments.simulation.history import simulate
from tests.dbt_command import run_dbt

FILE = """transaction_id,merchant_id,amount,currency,transaction_at,status
t1,m1,12.34,USD,2026-05-01T10:00:00Z,succeeded
t2,m1,1.00,USD,2026-05-01T11:00:00Z,failed
t3,m2,500,JPY,2026-05-02T10:00:00Z,
t4,m2,0.00,USD,2026-05-02T10:00:00Z,refunded
"""


def _tamper(statement: str) -> None:
    with duckdb.connect(str(settings().warehouse_path)) as warehouse:
        warehouse.execute(statement)


@pytest.mark.usefixtures("documents")
def test_the_stores_agree_until_one_is_tampered_with(oltp: psycopg.Connection, platform_home: Path) -> None:
    simulate(transactions=400, days=30, seed=5)
    land_oltp()
    file = platform_home / "transactions.csv"
    file.write_text(FILE)
    land_transactions(file)
    run_dbt(platform_home, "build", "--select", "+fct_payments", "--exclude-resource-type", "test", "unit_test")

    result = reconcile()
    assert result.differences == ()
    by_line = {(line.source, line.currency, line.measure): line.values for line in result.lines}
    assert by_line["files", "USD", "captured"] == (None, 1234, 1234, 1234)
    assert by_line["files", "USD", "payments"] == (None, 3, 3, 3)
    assert by_line["files", "JPY", "captured"] == (None, 500, 500, 500)
    charges = oltp.execute("select sum(amount_captured_minor), count(*) from core.charges where currency = 'EUR'")
    assert [int(value) for value in charges.fetchone() or ()] == [
        by_line["oltp", "EUR", "captured"][0],
        by_line["oltp", "EUR", "payments"][0],
    ]
    assert [row[-1] for row in result.table()] == ["yes"] * len(result.lines)
    assert len(result.header()) == len(next(iter(result.table())))

    # One minor unit more in the mart, in one currency.
    euros = by_line["oltp", "EUR", "captured"][0]
    assert euros is not None
    change = (
        "update dev_marts.fct_payments set captured_amount_minor = captured_amount_minor {} 1 where payment_key = ({})"
    )
    one = "select min(payment_key) from dev_marts.fct_payments where source = 'oltp' and currency = 'EUR'"
    _tamper(change.format("+", one))
    assert reconcile().differences == (
        f"oltp EUR captured: PostgreSQL {euros}, raw zone {euros}, staging {euros}, fct_payments {euros + 1}",
    )
    _tamper(change.format("-", one))

    # A transaction lost in staging: money and count differ.
    _tamper("update dev_staging.stg_files__transactions set is_deleted = true where transaction_id = 't1'")
    assert reconcile().differences == (
        "files USD captured: raw zone 1234, staging 0, fct_payments 1234",
        "files USD payments: raw zone 3, staging 2, fct_payments 3",
    )
    _tamper("update dev_staging.stg_files__transactions set is_deleted = false where transaction_id = 't1'")

    # A payment in PostgreSQL after the landing: everything downstream is behind.
    oltp.execute("set session_replication_role = replica")
    oltp.execute(
        "update core.charges set amount_captured_minor = amount_captured_minor - 1 where charge_id = "
        "(select min(charge_id) from core.charges where currency = 'EUR' and amount_captured_minor > 0)"
    )
    assert reconcile().differences == (
        f"oltp EUR captured: PostgreSQL {euros - 1}, raw zone {euros}, staging {euros}, fct_payments {euros}",
    )


def test_a_source_that_skips_a_store_is_compared_in_the_others() -> None:
    agreeing = Line("files", "USD", "captured", (None, 5, 5, 5))
    differing = Line("files", "USD", "payments", (None, 5, 4, 5))
    result = Reconciliation((agreeing, differing))
    assert agreeing.agrees
    assert result.differences == ("files USD payments: raw zone 5, staging 4, fct_payments 5",)
    assert [row[-1] for row in result.table()] == ["yes", "NO"]


def test_without_a_warehouse_there_is_nothing_to_compare(platform_home: Path) -> None:
    assert platform_home.exists()
    with pytest.raises(UsageError, match="run dbt build"):
        reconcile()


def test_a_warehouse_without_models_says_what_to_run(oltp: psycopg.Connection, platform_home: Path) -> None:
    assert not oltp.closed
    duckdb.connect(str(platform_home / "warehouse.duckdb")).close()
    with pytest.raises(UsageError, match="run dbt build"):
        reconcile()

"""``mf query`` answers from the marts: what the metrics say is what a plain count of the file says."""

import csv
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from payments.settings import PROJECT_ROOT
from tests.dbt_project import Dbt
from tests.warehouse.conftest import Built


@pytest.fixture
def project(dbt: Dbt, tmp_path: Path) -> Path:
    """The dbt project as it stands, parsed: MetricFlow reads the folder ``target`` of the project and no other."""
    for path in PROJECT_ROOT.iterdir():
        if path.name not in {"target", "logs", ".payments"}:
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "target").symlink_to(dbt.manifest().parent)
    return tmp_path


def answer(project: Path, built: Built, *query: str) -> list[dict[str, str]]:
    """The rows that MetricFlow gives to a query of the built warehouse."""
    out = project / "answer.csv"
    mf = str(Path(sys.executable).with_name("mf"))
    ran = subprocess.run(
        [mf, "query", *query, "--csv", str(out)],
        cwd=project,
        env=os.environ | {"PAYMENTS_WAREHOUSE": str(built.warehouse), "PAYMENTS_RAW": str(built.raw)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    with out.open(encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def test_metrics_are_what_a_plain_count_says(built: Built, project: Path) -> None:
    metrics = (
        "payment_count",
        "captured_count",
        "declined_count",
        "authorization_rate",
        "gross_revenue",
        "fraud_count",
    )
    query = ("--metrics", ",".join(metrics), "--group-by", "metric_time__month,payment__currency")
    found = answer(project, built, *query)

    expected: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in built.rows:
        is_captured = row["status"] not in {"failed", "pending"} and row["amount_minor"] > 0
        counts = expected[row["transaction_at"][:7], row["currency"]]
        counts[0] += 1
        counts[1] += is_captured
        counts[2] += row["status"] == "failed"
        counts[3] += row["is_fraud"] == "true" and is_captured
    assert {
        (row["metric_time__month"][:7], row["payment__currency"]): [
            int(row[name]) for name in ("payment_count", "captured_count", "declined_count", "fraud_count")
        ]
        for row in found
    } == expected
    for row in found:
        assert float(row["authorization_rate"]) == pytest.approx(int(row["captured_count"]) / int(row["payment_count"]))
    with built.connect() as con:
        ((revenue,),) = con.execute(
            "select sum(reporting_captured_amount_minor)::bigint from dev_marts.fct_payments"
        ).fetchall()
    assert sum(int(row["gross_revenue"] or 0) for row in found) == revenue


# Two merchants, in the order of COLUMNS: what stood at the end of the month before, what moved it, what stands.
COLUMNS = """
    mrr_monthly_key, month_start_on, reporting_opening_mrr_minor, reporting_new_mrr_minor,
    reporting_reactivation_mrr_minor, reporting_expansion_mrr_minor, reporting_contraction_mrr_minor,
    reporting_churn_mrr_minor, reporting_closing_mrr_minor,
    opening_customer_count, churn_customer_count, closing_customer_count
"""
MONTHS = """
    ('a1', date '2031-01-01', 1000, 500,   0, 100, -50, -200, 1350, 4, 1, 5),
    ('a2', date '2031-02-01', 1350,   0, 200,   0,   0,    0, 1550, 5, 0, 6),
    ('b1', date '2031-01-01',  300,   0,   0,   0,   0,    0,  300, 1, 0, 1),
    ('b2', date '2031-02-01',  300,   0,   0,   0,   0, -300,    0, 1, 1, 0)
"""
FEES = "('x', date '2031-01-15', 30), ('y', date '2031-03-31', 12), ('z', date '2031-02-01', null)"


def test_recurring_revenue_stands_at_a_time_and_moves_over_it(built: Built, project: Path, tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.duckdb"
    shutil.copy(built.warehouse, warehouse)
    with duckdb.connect(str(warehouse)) as con:
        con.execute(f"insert into dev_marts.agg_mrr_monthly ({COLUMNS}) values {MONTHS}")
        fees = "balance_transaction_key, created_on, reporting_fee_minor"
        con.execute(f"insert into dev_marts.fct_balance_transactions ({fees}) values {FEES}")
        con.execute(
            "update dev_marts.fct_payments set paid_on = date '2031-01-01', reporting_captured_amount_minor = 1"
        )
    metrics = (
        "opening_mrr",
        "new_mrr",
        "reactivation_mrr",
        "expansion_mrr",
        "contraction_mrr",
        "churn_mrr",
        "mrr",
        "opening_subscriber_count",
        "churned_subscriber_count",
        "subscriber_count",
        "customer_churn_rate",
        "net_revenue_retention",
        "fee_revenue",
        "take_rate",
    )
    query = ("--metrics", ",".join(metrics), "--group-by", "metric_time__quarter")
    rows = answer(project, replace(built, warehouse=warehouse), *query)

    (quarter,) = (row for row in rows if row["metric_time__quarter"].startswith("2031-01"))
    found = {name: float(quarter[name]) for name in metrics}
    assert found["opening_mrr"] + sum(found[name] for name in metrics[1:6]) == found["mrr"]
    assert found == pytest.approx(
        {
            "opening_mrr": 1300,
            "new_mrr": 500,
            "reactivation_mrr": 200,
            "expansion_mrr": 100,
            "contraction_mrr": -50,
            "churn_mrr": -500,
            "mrr": 1550,
            "opening_subscriber_count": 5,
            "churned_subscriber_count": 2,
            "subscriber_count": 6,
            "customer_churn_rate": 2 / 5,
            "net_revenue_retention": (1300 + 100 - 50 - 500) / 1300,
            "fee_revenue": 42,
            "take_rate": 42 / len(built.rows),
        }
    )

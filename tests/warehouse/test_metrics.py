"""``mf query`` answers from the marts: what the metrics say is what a plain count of the file says."""

import csv
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

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

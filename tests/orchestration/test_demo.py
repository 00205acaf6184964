"""The main job on a bare machine: stores of its own, in a folder with a space in its name, twice in a row."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from payments.settings import PROJECT_ROOT
from tests.conftest import free_port

Run = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def home(reachable_folder: Path) -> Path:
    return reachable_folder / "demo home"


@pytest.fixture(scope="module")
def environment(home: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PAYMENTS_", "DAGSTER_"))}
    return own | {
        "PAYMENTS_HOME": str(home),
        "PAYMENTS_RAW": str(home / "raw"),
        "PAYMENTS_WAREHOUSE": str(home / "warehouse.duckdb"),
        "PAYMENTS_OLTP_PORT": str(free_port()),
        "PAYMENTS_DOCUMENTS_PORT": str(free_port()),
    }


@pytest.fixture(scope="module")
def runs(environment: dict[str, str], full_size: bool) -> Iterator[list[Run]]:
    size = ["--transactions", "30000" if full_size else "5000", "--days", "180", "--seed", "11"]
    yield [_run(environment, "-m", "orchestration.demo", *size) for _ in range(2)]
    _run(environment, "-m", "payments", "down", "--delete")


def _run(environment: dict[str, str], *arguments: str) -> Run:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=PROJECT_ROOT, check=False
    )


def test_demo_ends_with_the_tables(runs: list[Run]) -> None:
    for run in runs:
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
        for line in ("Rows in each layer", "Captured by currency", "average precision", "open: every rule holds"):
            assert line in run.stdout


def test_second_run_adds_nothing(runs: list[Run]) -> None:
    first, second = (_results(run.stdout) for run in runs)
    assert any(line.startswith("│ marts") for line in first)
    assert any(line.startswith("│ USD") for line in first)
    assert first == second


def _results(output: str) -> list[str]:
    """Return the rows of the result tables; the raw zone and staging grow by the counts of the batches landed again."""
    results = output.split("Time of each step", maxsplit=1)[0].splitlines()
    return [line for line in results if line.startswith("│") and not line.startswith(("│ raw zone", "│ staging"))]


def test_money_is_the_same_everywhere(runs: list[Run], environment: dict[str, str]) -> None:
    reconciled = _run(environment, "-m", "payments", "reconcile")
    assert reconciled.returncode == 0, reconciled.stdout + reconciled.stderr
    assert "USD" in reconciled.stdout


def test_every_payment_of_the_test_period_has_a_score(runs: list[Run], home: Path) -> None:
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as warehouse:
        row = warehouse.execute("""
            select count(*), count(distinct scores.payment_key), count(payments.payment_key)
            from dev_marts.fct_fraud_scores as scores
            left join dev_marts.fct_payments as payments on scores.payment_key = payments.payment_key
        """).fetchone()
    assert row is not None
    scores, distinct_payments, known_payments = row
    assert scores > 0
    assert scores == distinct_payments == known_payments

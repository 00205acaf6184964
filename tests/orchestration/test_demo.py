"""The main job on a bare machine: stores of its own, in a folder with a space in its name, twice in a row."""

import duckdb
import pytest

from tests.orchestration.conftest import Machine, Run


@pytest.fixture(scope="module")
def runs(machine: Machine, first_run: Run, full_size: bool) -> list[Run]:
    return [first_run, machine.demo(full_size, stream_seconds=3)]


def test_demo_ends_with_the_tables(runs: list[Run]) -> None:
    for run in runs:
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
        for line in ("Rows in each layer", "Captured by currency", "average precision", "open: every rule holds"):
            assert line in run.stdout
    assert "Live traffic" not in runs[0].stdout
    for line in ("Live traffic, streamed over the broker", "changes landed", " 0 differences"):
        assert line in runs[1].stdout


def test_second_run_adds_nothing(runs: list[Run]) -> None:
    first, second = (_results(run.stdout) for run in runs)
    assert any(line.startswith("│ marts") for line in first)
    assert any(line.startswith("│ USD") for line in first)
    assert first == second


def _results(output: str) -> list[str]:
    """Return the rows of the result tables; the raw zone and staging grow by the counts of the batches landed again."""
    results = output.split("Time of each step", maxsplit=1)[0].splitlines()
    return [line for line in results if line.startswith("│") and not line.startswith(("│ raw zone", "│ staging"))]


def test_money_is_the_same_everywhere(runs: list[Run], machine: Machine) -> None:
    reconciled = machine.run("-m", "payments", "reconcile")
    assert reconciled.returncode == 0, reconciled.stdout + reconciled.stderr
    assert "USD" in reconciled.stdout


def test_every_payment_of_the_test_period_has_a_score(runs: list[Run], machine: Machine) -> None:
    with duckdb.connect(str(machine.home / "warehouse.duckdb"), read_only=True) as warehouse:
        row = warehouse.execute("""
            select count(*), count(distinct scores.payment_key), count(payments.payment_key)
            from dev_marts.fct_fraud_scores as scores
            left join dev_marts.fct_payments as payments on scores.payment_key = payments.payment_key
        """).fetchone()
    assert row is not None
    scores, distinct_payments, known_payments = row
    assert scores > 0
    assert scores == distinct_payments == known_payments

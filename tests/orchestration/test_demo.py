"""The main job on a bare machine: stores of its own, in a folder with a space in its name, twice in a row."""

import duckdb
import pytest

from tests.orchestration.conftest import Machine, Run

GROWING_LAYERS = ("│ raw zone", "│ staging", "│ marts")
LANDING_MARTS = {"agg_compliance_daily", "dim_date"}
"""Marts with a row for each day on which something landed; scores that the first run gave land in the second."""


@pytest.fixture(scope="module")
def mart_rows(machine: Machine, first_run: Run) -> dict[str, int]:
    """Rows of each mart after the first run."""
    assert first_run.returncode == 0, first_run.stdout[-3000:] + first_run.stderr[-3000:]
    return _mart_rows(machine)


@pytest.fixture(scope="module")
def runs(machine: Machine, first_run: Run, mart_rows: dict[str, int], full_size: bool) -> list[Run]:
    # The first run has run the data tests; that the second changes nothing is looked at mart by mart below.
    left_out = "unit_test" if full_size else "unit_test test"
    again = Machine(machine.home, machine.environment | {"DBT_EXCLUDE_RESOURCE_TYPES": left_out})
    return [first_run, again.demo(full_size, stream_seconds=3)]


def test_demo_ends_with_the_tables(runs: list[Run]) -> None:
    for run in runs:
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
        for line in ("Rows in each layer", "Captured by currency", "average precision", "open: every rule holds"):
            assert line in run.stdout
    assert "Live traffic" not in runs[0].stdout
    for line in ("Live traffic, streamed over the broker", "changes landed", " 0 differences"):
        assert line in runs[1].stdout


def test_second_run_adds_nothing(runs: list[Run], machine: Machine, mart_rows: dict[str, int]) -> None:
    first, second = (_results(run.stdout) for run in runs)
    assert any(line.startswith("│ features") for line in first)
    assert any(line.startswith("│ USD") for line in first)
    assert first == second
    assert _mart_rows(machine) == mart_rows


def _results(output: str) -> list[str]:
    """Return the rows of the result tables, without the layers that count what was landed when: it is landed again."""
    results = output.split("Time of each step", maxsplit=1)[0].splitlines()
    return [line for line in results if line.startswith("│") and not line.startswith(GROWING_LAYERS)]


def _mart_rows(machine: Machine) -> dict[str, int]:
    with duckdb.connect(str(machine.home / "warehouse.duckdb"), read_only=True) as warehouse:
        names = warehouse.execute("select table_name from duckdb_tables() where schema_name = 'dev_marts'").fetchall()
        counts = [warehouse.execute(f"select count(*) from dev_marts.{name}").fetchone() for (name,) in names]
    assert len(names) > len(LANDING_MARTS)
    return {name: count[0] for (name,), count in zip(names, counts, strict=True) if count and name not in LANDING_MARTS}


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

"""The command line: a wrong command or setting gives one line that says what to do, and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from payments.settings import PROJECT_ROOT


def _payments(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "payments", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        cwd=PROJECT_ROOT,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "hint"),
    [
        (["land", "transactions", "no-such-file.csv"], {}, "no-such-file.csv"),
        (["land", "transactions", "README.md"], {}, ".csv"),
        (["quarantine", "show", "nothing"], {}, "payments quarantine list"),
        (["check"], {"PAYMENTS_OLTP_DSN": "postgresql://127.0.0.1:1/nowhere"}, "PAYMENTS_OLTP_DSN"),
        (["restore", "--to", "noon"], {}, "--to takes a moment"),
        (["failover"], {"PAYMENTS_OLTP_DSN": "postgresql://127.0.0.1:1/nowhere"}, "operator"),
        (["drill"], {"PAYMENTS_OLTP_DSN": "postgresql://127.0.0.1:1/nowhere"}, "operator"),
        (["gate"], {"PAYMENTS_WAREHOUSE": "/nonexistent/warehouse.duckdb"}, "dbt build"),
        (["trace", "fct_payments", "paid_on"], {}, "paid_on=..."),
        (["reconcile"], {"PAYMENTS_WAREHOUSE": "/nonexistent/warehouse.duckdb"}, "dbt build"),
    ],
)
def test_a_wrong_setting_is_one_line(
    arguments: list[str], environment: dict[str, str], hint: str, tmp_path: Path
) -> None:
    run = _payments(*arguments, **({"PAYMENTS_RAW": str(tmp_path / "raw")} | environment))
    assert run.returncode == 2, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert hint in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [["simulate", "--transactions", "0"], ["nonsense"], ["land", "transactions"]])
def test_a_wrong_command_exits_with_2(arguments: list[str]) -> None:
    run = _payments(*arguments)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr


def test_a_wrong_setting_names_its_variable() -> None:
    run = _payments("status", PAYMENTS_OLTP_PORT="many")
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert "PAYMENTS_OLTP_PORT" in run.stderr

"""What must stop the job, stops it: a broken compliance rule, and a failed data test."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from orchestration.definitions import defs
from payments.settings import settings
from tests.orchestration.conftest import Machine, Run


@pytest.fixture
def sound(machine: Machine, first_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The warehouse that the main job built, and a copy of it that the settings lead to."""
    assert first_run.returncode == 0, first_run.stdout[-3000:] + first_run.stderr[-3000:]
    copied = {"PAYMENTS_HOME": str(tmp_path), "PAYMENTS_WAREHOUSE": str(tmp_path / "warehouse.duckdb")}
    for name, value in (machine.environment | copied).items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    built = machine.home / "warehouse.duckdb"
    shutil.copy(built, settings().warehouse_path)
    yield built
    monkeypatch.undo()
    settings.cache_clear()


def _run(*names: str) -> dg.ExecuteInProcessResult:
    """Run the named steps of the graph with the steps' own order, and let failures stand."""
    job = dg.define_asset_job("partial", dg.AssetSelection.groups(*names))
    code_location = dg.Definitions.merge(defs(), dg.Definitions(jobs=[job]))
    return code_location.resolve_job_def("partial").execute_in_process(raise_on_error=False)


def _steps(result: dg.ExecuteInProcessResult) -> tuple[set[str], set[str]]:
    succeeded = {event.step_key for event in result.all_events if event.is_step_success}
    failed = {event.step_key for event in result.all_events if event.is_step_failure}
    return {str(step) for step in succeeded}, {str(step) for step in failed}


def _tamper(sql: str) -> None:
    with duckdb.connect(str(settings().warehouse_path)) as warehouse:
        warehouse.execute(sql)


def test_a_broken_rule_closes_the_gate_and_a_failed_data_test_stops_training(sound: Path) -> None:
    _tamper("update dev_staging.stg_documents__click_events set page = '/thanks?card=4242424242424242' where true")
    succeeded, failed = _steps(_run("compliance", "intermediate", "marts", "features", "fraud"))
    assert {step for step in failed if "gate" in step}
    assert "dbt_marts" not in succeeded | failed
    assert "fraud_model" not in succeeded | failed

    shutil.copy(sound, settings().warehouse_path)
    _tamper("update dev_staging.stg_oltp__charges set currency = 'XXQ' where true")
    succeeded, failed = _steps(_run("intermediate", "marts", "features", "fraud"))
    assert "dbt_marts" in failed
    assert "fraud_model" not in succeeded | failed

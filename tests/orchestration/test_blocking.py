"""What must stop the job, stops it: a broken compliance rule, and a failed data test."""

import shutil
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from ingestion.documents import land_documents
from ingestion.oltp import land_oltp
from orchestration.definitions import defs
from payments.settings import settings
from payments.simulation.history import simulate


@pytest.fixture
def landed(oltp: object, documents: object, platform_home: Path) -> None:
    simulate(transactions=1_500, days=60, seed=3)
    land_oltp()
    land_documents()


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


@pytest.mark.usefixtures("landed")
def test_a_broken_rule_closes_the_gate_and_a_failed_data_test_stops_training(tmp_path: Path) -> None:
    assert _run("reference", "staging").success
    sound = shutil.copy(settings().warehouse_path, tmp_path / "sound.duckdb")
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

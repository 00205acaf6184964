"""What Great Expectations needs to run on DuckDB, and whether it still does."""

from pathlib import Path

import duckdb
import great_expectations as gx
import pytest
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.execution_engine import sqlalchemy_execution_engine as engine
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet

from payments.compliance.validation import keep_duckdb_connections


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("create table numbers as select 1 as one")
    return path


def _validates(path: Path) -> bool:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_sql("plain", connection_string=f"duckdb:///{path}", create_temp_table=False)
    batch = (
        source.add_query_asset("numbers", query="select * from numbers")
        .add_batch_definition_whole_table("all")
        .get_batch()
    )
    return bool(batch.validate(ExpectColumnValuesToBeInSet(column="one", value_set=[1])).success)


def test_duckdb_still_has_to_be_listed_among_the_dialects_that_keep_their_connection(
    numbers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # When this fails, Great Expectations reads results from DuckDB by itself: remove keep_duckdb_connections.
    listed = tuple(name for name in engine._PERSISTED_CONNECTION_DIALECTS if name != "duckdb")
    monkeypatch.setattr(engine, "_PERSISTED_CONNECTION_DIALECTS", listed)
    assert not _validates(numbers)


def test_with_the_dialect_listed_results_are_read(numbers: Path) -> None:
    keep_duckdb_connections()
    assert _validates(numbers)


def test_the_dialect_is_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_PERSISTED_CONNECTION_DIALECTS", engine._PERSISTED_CONNECTION_DIALECTS)
    keep_duckdb_connections()
    keep_duckdb_connections()
    assert [name for name in engine._PERSISTED_CONNECTION_DIALECTS if name == "duckdb"] == ["duckdb"]

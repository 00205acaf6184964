"""Great Expectations on DuckDB: everything that is particular to the pair stands in this file.

- Great Expectations closes the connection before it reads a result, for every dialect it does not list as keeping its
  connection. DuckDB keeps its result in the connection, so it has to be listed (upstream issues 10738 and 11579).
- Results hold counts only: no value that breaks a rule leaves the warehouse.
- The card screening of the landing writer is a function of the connection, so both use the same code.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from payments.compliance.rules import CARD_FUNCTION, Between, InSet, NoRow, Rule
from payments.vault.cards import find_card_numbers

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

if TYPE_CHECKING:
    from great_expectations.datasource.fluent.sql_datasource import SQLDatasource
    from great_expectations.expectations.expectation import Expectation

COUNTS_ONLY = {"result_format": "BASIC", "partial_unexpected_count": 0}


class _DuckDbDialect(str):
    """The name of the dialect; Great Expectations compares entries of its list as texts and reads their value."""

    __slots__ = ()

    @property
    def value(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Outcome:
    """What one expectation found: whether it holds, how many rows break it, and why it could not be evaluated."""

    passed: bool
    unexpected_count: int
    error: str = ""


def keep_duckdb_connections() -> None:
    """Add DuckDB to the dialects whose connection Great Expectations keeps open while it reads a result."""
    from great_expectations.execution_engine import sqlalchemy_execution_engine as engine

    if "duckdb" not in engine._PERSISTED_CONNECTION_DIALECTS:
        persisted: Any = (*engine._PERSISTED_CONNECTION_DIALECTS, _DuckDbDialect("duckdb"))
        engine._PERSISTED_CONNECTION_DIALECTS = persisted


@contextmanager
def open_warehouse(path: Path) -> Iterator["SQLDatasource"]:
    """Open a DuckDB file read-only as a data source of an ephemeral context, and close it completely afterwards."""
    import great_expectations as gx
    import sqlalchemy
    from great_expectations.data_context.types.base import ProgressBarsConfig

    keep_duckdb_connections()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    url = sqlalchemy.URL.create("duckdb", database=str(path), query={"access_mode": "read_only"})
    source = context.data_sources.add_sql(
        "warehouse", connection_string=url.render_as_string(hide_password=False), create_temp_table=False
    )
    execution_engine: Any = source.get_execution_engine()
    sqlalchemy.event.listen(execution_engine.engine, "connect", _register_card_screening)
    try:
        yield source
    finally:
        # The source has one pool and its execution engine another, with the connection that stays open between
        # queries: all must go, or the file stays locked.
        with execution_engine.get_connection() as connection:
            connection.close()
        execution_engine.engine.dispose()
        source.get_engine().dispose()


def _register_card_screening(connection: Any, _: object) -> None:
    connection.create_function(CARD_FUNCTION, _has_card_number, ["VARCHAR"], "BOOLEAN")


def _has_card_number(text: str) -> bool:
    return bool(find_card_numbers(text))


def expectation_of(rule: Rule) -> "Expectation":
    """Return a rule as an expectation."""
    from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
    from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
    from great_expectations.expectations.core.unexpected_rows_expectation import UnexpectedRowsExpectation

    match rule.condition:
        case InSet(values):
            return ExpectColumnValuesToBeInSet(column=rule.columns[0], value_set=list(values))
        case Between(lowest, highest):
            return ExpectColumnValuesToBeBetween(column=rule.columns[0], min_value=lowest, max_value=highest)
        case NoRow(condition):
            # The query is a format string; one column of ones, so that no value of a row is read.
            braced = condition.replace("{", "{{").replace("}", "}}")
            return UnexpectedRowsExpectation(unexpected_rows_query=f"select 1 as broken from {{batch}} where {braced}")


def validate(source: "SQLDatasource", schema: str, relation: str, rules: Sequence[Rule]) -> list[Outcome]:
    """Run the rules of one relation as a suite and return their outcomes in order."""
    import great_expectations as gx

    suite = gx.ExpectationSuite(name=relation)
    for place, rule in enumerate(rules):
        expectation = expectation_of(rule)
        expectation.meta = {"place": place, "rule": rule.name}
        suite.add_expectation(expectation)
    asset = source.add_query_asset(f"{relation} {len(source.assets)}", query=f'select * from {schema}."{relation}"')
    batch = asset.add_batch_definition_whole_table("all").get_batch()
    found: list[Any] = batch.validate(suite, result_format=COUNTS_ONLY).results
    by_place = {result.expectation_config.meta["place"]: result for result in found}
    return [_outcome(by_place[place]) for place in range(len(rules))]


def _outcome(result: Any) -> Outcome:
    error = _error(result.exception_info)
    if error:
        return Outcome(passed=False, unexpected_count=0, error=error)
    counts = result.result
    broken = counts.get("unexpected_count", counts.get("observed_value")) or 0
    return Outcome(passed=bool(result.success), unexpected_count=int(broken))


def _error(exception_info: Any) -> str:
    """Return the first message of an expectation that could not be evaluated: one record, or one for each metric."""
    if not exception_info:
        return ""
    records = [exception_info] if "raised_exception" in exception_info else list(exception_info.values())
    return next((str(record["exception_message"]) for record in records if record["raised_exception"]), "")

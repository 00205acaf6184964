"""The gate between staging and everything built from it: rules that protect publication, run by Great Expectations."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
from pydantic import TypeAdapter

from payments.compliance.rules import (
    REQUIRED_RELATIONS,
    NoRow,
    Relation,
    Rule,
    card_condition,
    rules_for,
)
from payments.compliance.validation import open_warehouse, validate
from payments.errors import UsageError
from payments.settings import settings

STAGING_SCHEMA = "dev_staging"
REFERENCE_SCHEMA = "dev_reference"
CARD_RULE = "no_card_number"


@dataclass(frozen=True)
class GateCheck:
    """One rule on one relation: whether it holds, how many of its rows break it, which columns it read.

    For a card number that was found, ``columns`` names the columns that hold it. ``error`` says why a rule could not be
    evaluated, which closes the gate too.
    """

    name: str
    relation: str
    passed: bool
    unexpected_count: int
    rows: int
    columns: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class GateResult:
    """The answer of the gate: open when every check holds."""

    passed: bool
    checks: list[GateCheck]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data: counts and names, never a value of a row."""
        return asdict(self)


def run_gate() -> GateResult:
    """Run every rule on the staging models of the DuckDB warehouse and write the result to home/compliance/gate.json.

    Raises ``UsageError`` when there is no warehouse, or it holds no staging model or no reference data.
    """
    path = settings().warehouse_path
    relations, currencies, countries = _read_catalogue(path)
    missing = [
        GateCheck("relation_built", name, passed=False, unexpected_count=0, rows=0, error="the model is not built")
        for name in sorted(REQUIRED_RELATIONS - relations.keys())
    ]
    rules = [rule for relation in relations.values() for rule in rules_for(relation, currencies, countries)]
    checks = [*missing, *_run(path, relations, rules)]
    result = GateResult(passed=all(check.passed for check in checks), checks=checks)
    _write(result)
    return result


def _read_catalogue(path: Path) -> tuple[dict[str, Relation], tuple[str, ...], tuple[str, ...]]:
    if not path.exists():
        raise UsageError(f"there is no warehouse at {path}: run dbt build")
    with duckdb.connect(str(path), read_only=True) as warehouse:
        columns: dict[str, dict[str, str]] = {}
        for relation, column, kind in warehouse.execute(
            """
            select table_name, column_name, data_type
            from information_schema.columns
            where table_schema = ? and table_name like 'stg\\_%' escape '\\'
            order by table_name, ordinal_position
            """,
            [STAGING_SCHEMA],
        ).fetchall():
            columns.setdefault(relation, {})[column] = kind
        if not columns:
            raise UsageError(f"the warehouse has no staging model in {STAGING_SCHEMA}: run dbt build")
        relations = {
            name: Relation(name, found, _single(warehouse, f'select count(*) from {STAGING_SCHEMA}."{name}"'))
            for name, found in columns.items()
        }
        currencies = _codes(warehouse, "currencies", "currency")
        countries = _codes(warehouse, "countries", "country")
    return relations, currencies, countries


def _single(warehouse: duckdb.DuckDBPyConnection, query: str) -> int:
    row = warehouse.execute(query).fetchone()
    return 0 if row is None else int(row[0])


def _codes(warehouse: duckdb.DuckDBPyConnection, seed: str, column: str) -> tuple[str, ...]:
    try:
        rows = warehouse.execute(f"select {column} from {REFERENCE_SCHEMA}.{seed} order by 1").fetchall()
    except duckdb.CatalogException as error:
        raise UsageError(f"the warehouse has no {REFERENCE_SCHEMA}.{seed}: run dbt seed") from error
    return tuple(row[0] for row in rows)


def _run(path: Path, relations: dict[str, Relation], rules: list[Rule]) -> Iterator[GateCheck]:
    with open_warehouse(path) as source:
        for name, grouped in groupby(rules, key=lambda rule: rule.relation):
            of_relation = list(grouped)
            outcomes = validate(source, STAGING_SCHEMA, name, of_relation)
            for rule, outcome in zip(of_relation, outcomes, strict=True):
                columns = rule.columns
                if rule.name == CARD_RULE and outcome.unexpected_count:
                    by_column = [replace(rule, columns=(one,), condition=NoRow(card_condition(one))) for one in columns]
                    found = validate(source, STAGING_SCHEMA, name, by_column)
                    columns = tuple(one for one, hits in zip(columns, found, strict=True) if hits.unexpected_count)
                yield GateCheck(
                    name=rule.name,
                    relation=name,
                    passed=outcome.passed,
                    unexpected_count=outcome.unexpected_count,
                    rows=relations[name].rows,
                    columns=columns,
                    error=outcome.error,
                )


def _result_path() -> Path:
    return settings().home / "compliance" / "gate.json"


def _write(result: GateResult) -> None:
    path = _result_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".json.new")
    aside.write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    aside.replace(path)


def last_result() -> GateResult:
    """Return the result of the last run here; raises ``UsageError`` when the gate has not run."""
    path = _result_path()
    if not path.exists():
        raise UsageError("the gate has not run here yet: payments gate")
    return TypeAdapter(GateResult).validate_json(path.read_text())

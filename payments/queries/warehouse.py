"""The analyses of the warehouse: ``analyses/*.sql``, compiled by dbt and asked of the DuckDB warehouse."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import duckdb

from payments.errors import UsageError
from payments.queries.answers import Access, Answer, Given, Plan, Query, refuse_strangers
from payments.settings import PROJECT_ROOT, settings

STORE = "warehouse"
FOLDER = PROJECT_ROOT / "analyses"


def queries() -> list[Query]:
    """Return the analyses; the first line of each is its question."""
    return [
        Query(path.stem, _question(path), STORE, (), partial(_answer, path.stem), partial(_plan, path.stem))
        for path in sorted(FOLDER.glob("*.sql"))
    ]


def _question(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("--").strip()


def _answer(name: str, given: Given, limit: int) -> Answer:
    with _asking(name, given) as (con, text):
        relation = con.execute(text)
        columns = [str(column[0]) for column in relation.description or ()]
        rows = [list(row) for row in relation.fetchmany(limit + 1)]
    return Answer(columns, rows[:limit], {}, len(rows) > limit)


def _plan(name: str, given: Given) -> Plan:
    with _asking(name, given) as (con, text):
        found = dict(con.execute(f"explain {text}").fetchall())
        as_json = dict(con.execute(f"explain (format json) {text}").fetchall())
    tree = json.loads(as_json["physical_plan"])
    return Plan([access for node in tree for access in _accesses(node)], found["physical_plan"])


def _accesses(node: dict[str, Any]) -> Iterator[Access]:
    table = node.get("extra_info", {}).get("Table")
    if table is not None:
        kind = str(node["name"]).strip().lower().replace("_", " ")
        yield Access(str(table), f"{kind} of the columns named", "by index" if "index" in kind else None)
    for child in node.get("children", ()):
        yield from _accesses(child)


@contextmanager
def _asking(name: str, given: Given) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """Give the warehouse, opened for reading, and the SQL of an analysis."""
    refuse_strangers(name, given, ())
    path = settings().warehouse_path
    if not path.is_file():
        raise UsageError(f"There is no warehouse at {path}: run dbt build.")
    text = compiled(path)[name]
    with duckdb.connect(str(path), read_only=True) as con:
        con.execute("set TimeZone = 'UTC'")
        try:
            yield con, text
        except duckdb.CatalogException as error:
            raise UsageError(
                f"The warehouse cannot answer {name} ({str(error).splitlines()[0]}): run dbt build."
            ) from None


@cache
def compiled(warehouse: Path) -> dict[str, str]:
    """Return the SQL of every analysis by name, as dbt compiles it for a warehouse, which it is not asked anything.

    Raises:
        UsageError: dbt refuses the project.
    """
    from dbt.cli.main import dbtRunner

    project = ["--project-dir", str(PROJECT_ROOT), "--profiles-dir", str(PROJECT_ROOT), "--target", "duckdb"]
    quietly = ["--log-level", "none", "--no-introspect", "--no-populate-cache"]
    with _named_in_the_environment(warehouse):
        ran = dbtRunner().invoke(["compile", "--select", "resource_type:analysis", *quietly, *project])
    results: list[Any] = getattr(ran.result, "results", [])
    if not ran.success:
        raise UsageError(f"dbt does not compile the analyses: {ran.exception or 'see dbt compile'}")
    return {result.node.name: result.node.compiled_code for result in results}


@contextmanager
def _named_in_the_environment(warehouse: Path) -> Iterator[None]:
    """Let dbt's profile, which reads the environment only, name the warehouse that the settings name."""
    before = os.environ.get("PAYMENTS_WAREHOUSE")
    os.environ["PAYMENTS_WAREHOUSE"] = str(warehouse)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PAYMENTS_WAREHOUSE"]
        else:
            os.environ["PAYMENTS_WAREHOUSE"] = before

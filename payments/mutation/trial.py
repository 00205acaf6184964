"""Tries the tests of models: each mutant is built in place of its model, and its tests are asked whether they notice.

All of it happens in a warehouse of its own, built from the raw zone with the markers of ``payments.mutation.mutants``.
The statements are those that dbt compiled: of the model, of every data test that reads it, and of its unit tests.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any

import duckdb

from payments.errors import UsageError
from payments.mutation.mutants import Mutant, Template, marked, mutants, template_of, within
from payments.settings import PROJECT_ROOT, settings

_SECONDS = 30.0  # a mutant may join everything with everything
_OWN = {"target", "logs", ".git", ".venv", ".payments"}
_CONTRACT = "the contract"
_ENDLESS = "it does not end"


@dataclass(frozen=True)
class Trial:
    """What became of one mutant: the test that noticed it, or None."""

    model: str
    mutant: Mutant
    caught_by: str | None


@dataclass(frozen=True)
class _Model:
    """A model as built, and the statements of its tests by name."""

    name: str
    relation: str
    template: Template
    data_tests: dict[str, str] = field(default_factory=dict)
    unit_tests: dict[str, Callable[[Mutant], str | None]] = field(default_factory=dict)


def try_tests(names: Sequence[str] = (), sample: int | None = None, seed: int = 0) -> Iterator[Trial]:
    """Build every mutant of the named models (all marts without a name) and yield what became of each.

    ``sample`` takes so many mutants of each model, drawn by ``seed``. A mutant that the engine refuses is none.

    Raises ``UsageError`` when a name is no model, or the models do not build.
    """
    with tempfile.TemporaryDirectory(prefix="payments mutate ") as home:
        folder = Path(home)
        manifest = _build(folder, names)
        with duckdb.connect(str(folder / "warehouse.duckdb")) as con:
            con.execute("set TimeZone = 'UTC'")
            for model in _models(folder, manifest, names):
                found = mutants(model.template)
                if sample is not None and sample < len(found):
                    found = random.Random(f"{seed} {model.name}").sample(found, sample)  # noqa: S311 - no secret
                for mutant in found:
                    with _refused():
                        yield Trial(model.name, mutant, _noticed_by(con, model, mutant))


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except duckdb.Error:
        return


def _build(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Build a marked copy of the dbt project in a folder, and return its manifest."""
    for path in PROJECT_ROOT.iterdir():
        if path.name not in _OWN | {"models"}:
            (folder / path.name).symlink_to(path)
    shutil.copytree(PROJECT_ROOT / "models", folder / "models")
    known = {path.stem: path for path in (folder / "models").rglob("*.sql")}
    if unknown := sorted(set(names) - set(known)):
        raise UsageError(f"There is no model {unknown[0]}: dbt ls --resource-type model lists them.")
    for name, path in known.items():
        if name in names or (not names and path.parent.name == "marts"):
            path.write_text(marked(path.read_text(encoding="utf-8")), encoding="utf-8")
    dbt = [sys.executable, "-c", "from dbt.cli.main import cli; cli()", "--quiet", "build"]
    selected = ["--select", *(f"+{name}" for name in names)] if names else []
    ran = subprocess.run(
        [*dbt, "--target", "duckdb", "--indirect-selection", "buildable", *selected],
        cwd=folder,
        env=os.environ
        | {
            "PAYMENTS_WAREHOUSE": str(folder / "warehouse.duckdb"),
            "PAYMENTS_RAW": str(settings().raw_zone.absolute()),
            "DBT_TARGET_PATH": str(folder / "target"),
            "DBT_LOG_PATH": str(folder / "logs"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise UsageError(f"dbt build fails before anything is changed, so that no test tells anything:\n{ran.stdout}")
    manifest: dict[str, Any] = json.loads((folder / "target" / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def _models(folder: Path, manifest: dict[str, Any], names: Sequence[str]) -> Iterator[_Model]:
    results = json.loads((folder / "target" / "run_results.json").read_text(encoding="utf-8"))["results"]
    compiled = {result["unique_id"]: result["compiled_code"] for result in results if result.get("compiled_code")}
    statements = {path.stem: path for path in (folder / "target" / "run").rglob("*unit_tests.yml/**/*.sql")}
    for key, node in sorted(manifest["nodes"].items()):
        chosen = node["alias"] in names if names else "marts" in node["fqn"]
        if node["resource_type"] != "model" or not chosen or key not in compiled:
            continue
        template = template_of(compiled[key])
        data_tests = {
            test["name"]: compiled[other]
            for other, test in manifest["nodes"].items()
            if test["resource_type"] == "test" and key in test["depends_on"]["nodes"] and other in compiled
        }
        unit_tests = {
            test["name"]: found
            for other, test in manifest["unit_tests"].items()
            if key in test["depends_on"]["nodes"]
            and (found := within(template, statements[other.rpartition(".")[2]].read_text(encoding="utf-8")))
        }
        yield _Model(node["alias"], f'"{node["schema"]}"."{node["alias"]}"', template, data_tests, unit_tests)


def _noticed_by(con: duckdb.DuckDBPyConnection, model: _Model, mutant: Mutant) -> str | None:
    """Return the first test that notices a mutant, or None. Raises ``duckdb.Error`` when the mutant does not run."""
    shape = con.execute(f"describe {model.relation}").fetchall()
    con.begin()
    try:
        if not _ends(con, f"create or replace table {model.relation} as {model.template.mutated(mutant)}"):
            return _ENDLESS
        if con.execute(f"describe {model.relation}").fetchall() != shape:
            return _CONTRACT
        for name, test in model.data_tests.items():
            if not _ends(con, f"select count(*) from (\n{test}\n) as failures") or con.fetchall() != [(0,)]:
                return name
    finally:
        con.rollback()
    for name, unit_test in model.unit_tests.items():
        statement = unit_test(mutant)
        if statement is None:
            continue
        if not _ends(con, statement) or _differs(con):
            return name
    return None


def _ends(con: duckdb.DuckDBPyConnection, statement: str) -> bool:
    """Execute a statement; return False when it was interrupted."""
    watch = Timer(_SECONDS, con.interrupt)
    watch.start()
    try:
        con.execute(statement)
    except duckdb.InterruptException:
        return False
    finally:
        watch.cancel()
    return True


def _differs(con: duckdb.DuckDBPyConnection) -> bool:
    """Say whether the rows that a unit test made of a model are others than it expects."""
    names = [column[0] for column in con.description or []]
    place = names.index("actual_or_expected")
    rows: dict[str, Counter[tuple[Any, ...]]] = {"actual": Counter(), "expected": Counter()}
    for row in con.fetchall():
        rows[row[place]][row[:place] + row[place + 1 :]] += 1
    return rows["actual"] != rows["expected"]

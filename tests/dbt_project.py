"""dbt on the project of the repository, in this process."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.cli.main import dbtRunner
from dbt.constants import PARTIAL_PARSE_FILE_NAME as PARTIAL_PARSE
from dbt.contracts.graph.manifest import Manifest
from dbt.parser.manifest import extended_mashumuro_decoder

from payments.settings import PROJECT_ROOT
from payments.systems.processes import exclusively

DEFAULT_TARGET = "duckdb"
# Rows that the project gives itself prove the same in every build: one build an engine runs them.
NO_UNIT_TESTS = ("--exclude-resource-type", "unit_test")
_PROJECT = ("--project-dir", str(PROJECT_ROOT), "--profiles-dir", str(PROJECT_ROOT))


@dataclass(frozen=True)
class Outcome:
    """How a dbt command ended, what it said, and its results by node."""

    succeeded: bool
    output: str
    results: list[dict[str, Any]]

    def statuses(self) -> dict[str, str]:
        """Status of every node that ran, by name."""
        return {_name(result): result["status"] for result in self.results}

    def compiled(self, name: str) -> str:
        """The SQL that ran for the one model or test whose name starts so."""
        found = [result["compiled_code"] for result in self.results if _name(result).startswith(name)]
        assert len(found) == 1, (name, len(found))
        code: str = found[0]
        return code


class Dbt:
    """Runs dbt with its artefacts in a folder of its own, apart from those of the developer.

    The project is parsed once a target in the folder ``parsed``, for all workers of a test session: that takes a third
    of a build.
    """

    def __init__(self, folder: Path, parsed: Path) -> None:
        self.folder = folder
        self._parsed = parsed
        self._manifests: dict[str, Manifest] = {}

    def manifest(self, target: str = DEFAULT_TARGET) -> Path:
        """The file of the manifest of the project as it stands."""
        folder = self._parsed / target
        with exclusively(folder / "lock"):
            if not (folder / "manifest.json").is_file():
                # What the developer has parsed already (`make lint` does) is not parsed again if it is still the same.
                developers = PROJECT_ROOT / "target" / PARTIAL_PARSE
                if developers.is_file():
                    shutil.copy(developers, folder / PARTIAL_PARSE)
                with pytest.MonkeyPatch.context() as patch:
                    for name in [name for name in os.environ if name.startswith("PAYMENTS_")]:
                        patch.delenv(name)
                    parsed = dbtRunner().invoke(["--quiet", "parse", *_PROJECT, *self._options(target, folder)])
                assert parsed.success, parsed.exception
        return folder / "manifest.json"

    def parsed(self, target: str = DEFAULT_TARGET) -> Manifest:
        """The parsed project, as dbt keeps it for its own next run."""
        if target not in self._manifests:
            kept = self.manifest(target).with_name(PARTIAL_PARSE).read_bytes()
            manifest: Manifest = Manifest.from_msgpack(kept, decoder=extended_mashumuro_decoder)
            manifest.build_flat_graph()
            self._manifests[target] = manifest
        return self._manifests[target]

    def analyses(self, target: str = DEFAULT_TARGET) -> dict[str, str]:
        """The SQL of every analysis by name, as dbt compiles it for a target."""
        compiled = self("compile", "--select", "resource_type:analysis", "--no-introspect", target=target)
        assert compiled.succeeded, compiled.output
        return {_name(result): result["compiled_code"] for result in compiled.results}

    def __call__(self, *arguments: str, target: str = DEFAULT_TARGET) -> Outcome:
        """Run a dbt command in this process on the parsed project: the same as ``dbt`` itself, and much faster."""
        said: list[str] = []

        def hear(event: Any) -> None:  # an event is a generated message without types
            said.append(event.info.msg)

        options = ["--quiet", *arguments, *_PROJECT, *self._options(target, self.folder / target)]
        try:
            ran = dbtRunner(manifest=self.parsed(target), callbacks=[hear]).invoke(options)
        finally:
            # The adapter keeps its file open for the life of a process; the tests read it next.
            DuckDBConnectionManager.close_all_connections()
        return self._outcome(ran.success, "\n".join(said), target)

    def _options(self, target: str, artefacts: Path) -> list[str]:
        chosen = [] if target == DEFAULT_TARGET else ["--target", target]
        return [*chosen, "--target-path", str(artefacts), "--log-path", str(self.folder / "logs"), "--no-use-colors"]

    def _outcome(self, succeeded: bool, output: str, target: str) -> Outcome:
        results = self.folder / target / "run_results.json"
        assert results.is_file(), output
        return Outcome(succeeded, output, json.loads(results.read_text(encoding="utf-8"))["results"])


def _name(result: dict[str, Any]) -> str:
    name: str = result["unique_id"].split(".")[2]
    return name

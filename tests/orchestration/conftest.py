"""The main job, run on a bare machine: stores of its own, in a folder with a space in its name."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from payments.settings import PROJECT_ROOT
from payments.systems.processes import free_port

Run = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Machine:
    """Where the job runs: its home, and the variables that lead there."""

    home: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> Run:
        """Run Python with these arguments from the root of the project, as ``make`` does."""
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=PROJECT_ROOT,
            check=False,
        )

    def demo(self, full_size: bool, stream_seconds: int) -> Run:
        """Run the main job and print its tables, then stream live payments for some seconds."""
        size = ["--transactions", "30000" if full_size else "5000", "--days", "180", "--seed", "11"]
        size += ["--stream-seconds", str(stream_seconds)]
        return self.run("-m", "orchestration.demo", *size)


@pytest.fixture(scope="session")
def machine(reachable_folder: Path) -> Iterator[Machine]:
    """A machine on which nothing has run yet; its servers are stopped and deleted at the end."""
    home = reachable_folder / "demo home"
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PAYMENTS_", "DAGSTER_"))}
    found = Machine(
        home,
        own
        | {
            "PAYMENTS_HOME": str(home),
            "PAYMENTS_RAW": str(home / "raw"),
            "PAYMENTS_WAREHOUSE": str(home / "warehouse.duckdb"),
            "PAYMENTS_OLTP_PORT": str(free_port()),
            "PAYMENTS_DOCUMENTS_PORT": str(free_port()),
            # Rows that the project gives itself prove the same in every build: the tests of the warehouse run them.
            "DBT_EXCLUDE_RESOURCE_TYPES": "unit_test",
        },
    )
    yield found
    found.run("-m", "payments", "down", "--delete")


@pytest.fixture(scope="session")
def first_run(machine: Machine, full_size: bool) -> Run:
    """The main job, run once."""
    return machine.demo(full_size, stream_seconds=0)

"""The dbt command on the project as it stands, with everything it writes in a folder of the test."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from payments.settings import PROJECT_ROOT


def run_dbt(folder: Path, *arguments: str) -> None:
    """Run dbt on an empty raw zone; its target, log and warehouse are in ``folder``. Fails the test when dbt fails."""
    dbt = str(Path(sys.executable).parent / "dbt")
    share_parse(folder)
    environment = os.environ | {
        "PAYMENTS_WAREHOUSE": str(folder / "warehouse.duckdb"),
        "PAYMENTS_RAW": str(folder / "raw"),
    }
    done = subprocess.run(
        [dbt, "--quiet", *arguments, "--target-path", str(folder), "--log-path", str(folder)],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def share_parse(folder: Path) -> None:
    """Give a target folder what dbt has parsed of the project already; dbt reads anew what has changed since.

    dbt takes it only for the same profile and ``--target``: a warehouse of another path, or on another port, is another
    profile, and to name the default target is another target. Then, and where there is nothing yet or another process
    just writes it, dbt parses everything. So it serves a test whose warehouse is that of the developer, and no other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        shutil.copy(PROJECT_ROOT / "target" / "partial_parse.msgpack", folder)

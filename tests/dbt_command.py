"""The dbt command on the project as it stands, with everything it writes in a folder of the test."""

import os
import subprocess
import sys
from pathlib import Path

from payments.settings import PROJECT_ROOT


def run_dbt(folder: Path, *arguments: str) -> None:
    """Run dbt on an empty raw zone; its target, log and warehouse are in ``folder``. Fails the test when dbt fails."""
    dbt = str(Path(sys.executable).parent / "dbt")
    folder.mkdir(parents=True, exist_ok=True)
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

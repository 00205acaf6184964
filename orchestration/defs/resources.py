"""The dbt command line that the assets share."""

import sys
from pathlib import Path

import dagster as dg
from dagster_dbt import DbtCliResource

from orchestration.defs.warehouse import project


@dg.definitions
def resources() -> dg.Definitions:
    """Run the dbt of this environment, whether or not the environment is activated."""
    dbt = DbtCliResource(project_dir=project, dbt_executable=str(Path(sys.executable).parent / "dbt"))
    return dg.Definitions(resources={"dbt": dbt})

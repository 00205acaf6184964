"""The code location: every definition of ``defs/``, run one step at a time in one process.

One process: DuckDB takes one writing process at a time, and each further one would import everything anew.
"""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Gather the definitions of the folder and set the executor of its jobs."""
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
        dg.Definitions(executor=dg.in_process_executor),
    )

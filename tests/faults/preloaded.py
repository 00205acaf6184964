"""Everything that a stream imports or reads once, so that a process forked from one that has it starts at once."""

# ruff: noqa: F401 (imported for those who import it again)

import pandas  # DuckDB imports it when it is first asked
import pyarrow.acero
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet

import ingestion.cdc.supervisor
import ingestion.compaction
import payments.cli
import payments.cli.landing
import tests.faults.stream_process
from ingestion.contracts import entities

entities("oltp")

"""Everything that a stream imports or reads once, so that a process forked from one that has it starts at once."""

import duckdb
import pandas  # noqa: F401 (DuckDB imports it when it is first asked)
import pyarrow.acero
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401

import ingestion.cdc.stream
import payments.cli
import payments.cli.landing
import tests.faults.stream_process  # noqa: F401
from ingestion.contracts import entities

entities("oltp")
assert duckdb.__version__

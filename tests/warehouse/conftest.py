from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from ingestion.files import land_transactions
from payments.settings import settings
from tests.dbt_project import NO_UNIT_TESTS, Dbt, Outcome
from tests.warehouse.history import Row, transactions, write


@dataclass(frozen=True)
class Built:
    """A warehouse built from a transaction file: what went in and how the build ended."""

    rows: list[Row]
    raw: Path
    warehouse: Path
    outcome: Outcome

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect(str(self.warehouse), read_only=True) as con:
            con.execute("set TimeZone = 'UTC'")
            yield con


@pytest.fixture(scope="session")
def built(dbt: Dbt, tmp_path_factory: pytest.TempPathFactory, full_size: bool) -> Built:
    """A warehouse built from a file of transactions alone."""
    # A path with a space and with characters that are patterns to a reader of many files.
    home = tmp_path_factory.mktemp("files") / "raw zones [a] *"
    home.mkdir()
    rows = transactions(5_000 if full_size else 600, seed=11)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAYMENTS_RAW", str(home / "raw"))
        patch.setenv("PAYMENTS_WAREHOUSE", str(home / "warehouse.duckdb"))
        settings.cache_clear()
        refused = {**rows[0], "transaction_id": "bad", "currency": "ZZZ"}
        land_transactions(write([*rows, refused], home / "transactions.csv"))
        outcome = dbt("build", *NO_UNIT_TESTS)
    settings.cache_clear()
    return Built(rows, home / "raw", home / "warehouse.duckdb", outcome)

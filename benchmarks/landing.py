"""Landing rate of a transaction file beside a plain DuckDB COPY of the same rows, as a ratio, in one run.

``python -m benchmarks.landing [ROWS]``. COPY rewrites the file as Parquet; landing also checks every record, screens
its text for card numbers, hashes it, compares it with what landed and makes it durable.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

ROWS = 500_000


def generate(path: Path, rows: int) -> None:
    """Write a Parquet file of transactions, the same for the same number of rows."""
    duckdb.execute(
        f"""
        copy (
            select
                'tx_' || i as transaction_id,
                'acct_' || (hash(i) % 500) as merchant_id,
                'cus_' || (hash(i + 1) % 20_000) as customer_id,
                ((hash(i + 2) % 1_000_000) / 100)::decimal(12, 2) as amount,
                ['EUR', 'USD', 'GBP'][1 + (hash(i + 3) % 3)::integer] as currency,
                timestamp '2026-01-01' + to_seconds(i) as transaction_at,
                ['mobile', 'desktop', 'tablet'][1 + (hash(i + 4) % 3)::integer] as device_type,
            from range({rows}) as numbers (i)
        ) to '{path}' (format parquet)
        """
    )


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    """Generate, copy, land and land again; print the rates."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder) / "transactions.parquet", Path(folder) / "copy.parquet"
        os.environ["PAYMENTS_RAW"] = str(Path(folder) / "raw")
        from ingestion.files import land_transactions

        generate(path, rows)
        with duckdb.connect(config={"threads": 2}) as con:
            statement = f"copy (from read_parquet('{path}')) to '{copy}' (format parquet, compression zstd)"
            copied = seconds(lambda: con.execute(statement))
        landed = seconds(lambda: land_transactions(path))
        again = seconds(lambda: land_transactions(path))
    for name, taken in (("DuckDB COPY", copied), ("landing", landed), ("landing again, nothing new", again)):
        print(f"{name:28} {rows / taken:12,.0f} rows/s   {taken:6.2f} s   {taken / copied:5.1f} x COPY")


if __name__ == "__main__":
    main()

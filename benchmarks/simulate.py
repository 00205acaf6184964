"""Charges per second of a simulated history into PostgreSQL, beside a plain COPY of the same bytes.

    python benchmarks/simulate.py [--transactions N] [--days D] [--seed S]

The history is drawn, encrypted, written, indexed, validated and sealed as `payments simulate` does it. The peer is the
floor that PostgreSQL itself sets: COPY of the very same CSV, made beforehand, into unlogged tables without a key, an
index, a check or a trigger. Both run on an embedded server of their own, in a folder that is deleted afterwards;
nothing of it touches the platform's stores. The command fails when 100,000 charges take 20 seconds or more.
"""

import argparse
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from psycopg import Connection, sql
from rich.console import Console
from rich.table import Table as Grid

from payments.settings import settings
from payments.simulation.business import build_business
from payments.simulation.oltp_writer import csv_text, slices, write_tables
from payments.simulation.plan import Plan
from payments.simulation.tables import Tables
from payments.systems.oltp import server
from payments.systems.oltp.connection import connect
from payments.systems.oltp.ledger import seal
from payments.systems.oltp.migrations import migrate
from payments.vault import KeyRing

SECONDS_PER_CHARGE = 20 / 100_000
"""The promise: 100,000 charges in 20 seconds."""


def main() -> None:
    """Measure both, print the ratio, and exit with 1 when the promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transactions", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=120)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    plan = Plan(arguments.transactions, arguments.days, arguments.seed, date(2026, 6, 30))
    with own_server():
        tables, rows, simulated = simulate(plan)
        size, copied = plain_copy(tables)
    grid = Grid(title=f"{plan.transactions:,} charges, {rows:,} rows, {size / 1e6:,.0f} MB of CSV")
    for column in ("what", "seconds", "charges/s", "ratio"):
        grid.add_column(column, justify="left" if column == "what" else "right")
    for what, seconds in (
        ("simulate: drawn, encrypted, written, indexed, validated, sealed", simulated),
        ("COPY of the same bytes, unlogged, without constraints", copied),
    ):
        grid.add_row(what, f"{seconds:.2f}", f"{plan.transactions / seconds:,.0f}", f"{seconds / copied:.2f}")
    Console().print(grid)
    if simulated >= plan.transactions * SECONDS_PER_CHARGE:
        sys.exit("The promise of 100,000 charges in under 20 seconds is broken.")


@contextmanager
def own_server() -> Iterator[None]:
    """An empty operational store with its schema, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="payments benchmark "))
    folder.chmod(0o755)  # a server started by root runs as another user, who must get in
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.pop("PAYMENTS_OLTP_DSN", None)
    os.environ |= {"PAYMENTS_HOME": str(folder / "home"), "PAYMENTS_OLTP_PORT": str(port)}
    settings.cache_clear()
    try:
        server.start()
        migrate()
        yield
    finally:
        server.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def simulate(plan: Plan) -> tuple[Tables, int, float]:
    """Draw and write the history; return it with its number of rows and the seconds until it was committed."""
    ring = KeyRing.load_or_create(settings().key_ring_path)
    began = time.perf_counter()
    tables = Tables(build_business(plan))
    made = tables.all(ring)
    with connect() as connection:
        write_tables(connection, plan, made, lambda _name, _rows, _total: None)
        connection.commit()
        seal(connection)
    return tables, sum(table.rows for table in made), time.perf_counter() - began


def plain_copy(tables: Tables) -> tuple[int, float]:
    """Copy the same history into bare tables; return the bytes and the seconds until it was committed."""
    made = tables.all(KeyRing.load_or_create(settings().key_ring_path))
    texts = {table.name: [bytes(csv_text(table.batch(rows))) for rows in slices(table)] for table in made}
    with connect() as connection:
        connection.execute("create schema bare")
        for table in made:
            # A bare twin has the columns that are written, without their defaults and partitions.
            connection.execute(
                sql.SQL("create unlogged table {} as select {} from {} with no data").format(
                    bare(table.name),
                    sql.SQL(", ").join(map(sql.Identifier, table.columns)),
                    sql.Identifier(*table.name.split(".")),
                )
            )
        connection.commit()
        began = time.perf_counter()
        for table in made:
            copy_bytes(connection, table.name, list(table.columns), texts[table.name])
        connection.commit()
        seconds = time.perf_counter() - began
    return sum(len(text) for batches in texts.values() for text in batches), seconds


def copy_bytes(connection: Connection, name: str, columns: list[str], texts: list[bytes]) -> None:
    """Copy CSV into a bare table."""
    statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(
        bare(name), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for text in texts:
            copy.write(text)


def bare(name: str) -> sql.Identifier:
    """Return the bare twin of a table."""
    return sql.Identifier("bare", name.replace(".", "_"))


if __name__ == "__main__":
    main()

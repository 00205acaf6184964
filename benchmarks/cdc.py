"""Change data capture beside its limit and a public peer, in one run: the rate of a drain, and the time to queryable.

    python benchmarks/cdc.py [--changes N] [--seconds S] [--per-second R]

The same changes (rows inserted by transactions of ten) wait in a slot for each of the readers, one after the other:

- pg_recvlogical, which writes what it gets to /dev/null: the limit of any reader of a slot;
- payments stream --once, directly: decoded, checked, screened for card numbers, hashed, written as Parquet, synced;
- the same over the embedded broker;
- pypgoutput, a reader of the same protocol from the package index: decoded into Python objects and let go. It is
  installed into a folder of its own by uv; left out, and said so, where there is no uv or no package index.

Then changes come at a steady rate, and the time from the commit of each to the moment at which a reader of the raw zone
sees it is taken on one clock; then at rates that double for as long as the 99th percentile stays below two seconds.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psycopg
from rich.console import Console
from rich.table import Table as Grid

ROWS_A_TRANSACTION = 10
LIMIT_SECONDS = 2.0
PEER = """
import sys, time
import pypgoutput
reader = pypgoutput.LogicalReplicationReader(publication_name="payments", slot_name=sys.argv[2], dsn=sys.argv[1])
began, seen, wanted = time.monotonic(), 0, int(sys.argv[3])
for message in reader:
    seen += 1
    if seen == wanted:
        break
print("seconds", time.monotonic() - began, flush=True)
reader.stop()
"""


@dataclass(frozen=True)
class Drained:
    """How long a reader took for all changes."""

    name: str
    seconds: float
    note: str = ""


def prepare_store() -> None:
    """Start a PostgreSQL of its own, with the schema and one merchant."""
    from payments.systems.oltp import server
    from payments.systems.oltp.connection import connect
    from payments.systems.oltp.migrations import migrate

    server.start()
    migrate()
    with connect(autocommit=True) as connection:
        connection.execute("""
            insert into core.merchants (
                merchant_id, business_name, mcc, country, default_currency, ledger_buckets, fee_basis_points,
                fee_fixed_minor, created_at, updated_at
            )
            values ('acct_bench', 'Bench', '5812', 'FR', 'EUR', 1, 250, 30, now(), now())
        """)


def write(connection: psycopg.Connection, first: int, transactions: int) -> None:
    """Commit transactions of ten new coupons each."""
    for number in range(first, first + transactions):
        connection.execute(
            """
            insert into core.coupons (
                merchant_id, coupon_id, currency, amount_off_minor, duration, created_at, updated_at
            )
            select 'acct_bench', 'co_' || %s::text || 'x' || row, 'EUR', row, 'once', now(), now()
            from generate_series(1, 10) as row
            """,
            (number,),
            prepare=True,
        )


def slot_at_now(connection: psycopg.Connection, name: str) -> None:
    """Make a slot, so that what is written afterwards waits in it."""
    connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))


@contextmanager
def writing() -> Iterator[psycopg.Connection]:
    """Open a connection whose commits do not wait and whose rows fire no triggers: it is the readers that count."""
    from payments.systems.oltp.connection import connect

    with connect(autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute("set session_replication_role = replica")
        yield connection


def write_all(changes: int, first: int) -> int:
    """Write so many changes; return the LSN behind them."""
    with writing() as connection:
        write(connection, first, changes // ROWS_A_TRANSACTION)
        row = connection.execute("select (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
        connection.execute("select pg_switch_wal()")  # which flushes what asynchronous commits left
    return int(row[0]) if row else 0


def drain_to_nowhere(end_lsn: int) -> float:
    """Let pg_recvlogical drain the slot ``bench_limit``."""
    from ingestion.oltp import lsn_text
    from payments.systems.oltp.connection import dsn
    from payments.systems.oltp.postgres import cluster

    options = ["-o", "proto_version=1", "-o", "publication_names=payments"]
    began = time.monotonic()
    where = ["-d", dsn(), "-S", "bench_limit", "--start", "-f", "/dev/null", "--endpos", lsn_text(end_lsn)]
    cluster().run("pg_recvlogical", *where, *options)
    return time.monotonic() - began


def drain_into_raw_zone(changes: int) -> float:
    """Land everything that waits in the stream's own slot."""
    from ingestion.cdc.stream import drain

    began = time.monotonic()
    landed = sum(counts.accepted for report in drain() for counts in report.entities)
    seconds = time.monotonic() - began
    if landed != changes:
        raise AssertionError(f"{landed} changes landed, not {changes}")
    return seconds


def drain_with_peer(folder: Path, changes: int) -> Drained:
    """Read everything with pypgoutput, in an environment of its own."""
    from payments.systems.oltp.connection import dsn

    python = folder / "peer" / "bin" / "python"
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    packages = ["pypgoutput==0.0.3", "psycopg2-binary", "pydantic<2", "typing_extensions"]
    try:
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder / "peer")], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--no-deps", "--python", str(python), *packages], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return Drained("pypgoutput", float("nan"), f"left out: {error}")
    command = [str(python), "-c", PEER, dsn(), "bench_peer", str(changes)]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1_800)
    seconds = [line.split()[1] for line in told.stdout.splitlines() if line.startswith("seconds ")]
    if not seconds:
        return Drained("pypgoutput", float("nan"), f"left out: exit code {told.returncode}")
    return Drained("pypgoutput: decode only", float(seconds[0]))


@dataclass(frozen=True)
class Latency:
    """How long changes took from commit to queryable, in seconds, at a rate a second."""

    wanted: int
    written: float
    p50: float
    p99: float
    longest: float


def measure_latency(per_second: int, seconds: float, first: int) -> Latency:
    """Write at a steady rate while the stream runs; compare each commit with the moment at which it could be read."""
    from ingestion.cdc.stream import follow
    from ingestion.raw_zone import RawZone, parquet
    from payments.settings import settings

    from_sequence = RawZone(settings().raw_zone).pin().sequence
    visible: dict[int, float] = {}
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(_write_steadily, per_second, seconds, first)
        for step in follow(lambda: writer.done() and _has_landed(writer.result(), from_sequence)):
            if step.report is not None:
                visible[step.report.sequence] = time.time()
        changes = writer.result()
    pin = RawZone(settings().raw_zone).pin()
    with duckdb.connect() as con:
        con.execute("create table visible (_sequence bigint, seen_at double)")
        con.executemany("insert into visible values (?, ?)", list(visible.items()))
        row = con.execute(
            f"""
            select
                quantile_cont(seen_at - epoch(_source_at), 0.5),
                quantile_cont(seen_at - epoch(_source_at), 0.99),
                max(seen_at - epoch(_source_at)),
                count(*),
            from {parquet(pin.files("oltp", "coupons", after=from_sequence))}
            join visible using (_sequence)
            """
        ).fetchone()
    if row is None or row[3] != changes:
        raise AssertionError(f"{row} of {changes} changes landed")
    return Latency(per_second, row[3] / seconds, row[0], row[1], row[2])


def _write_steadily(per_second: int, seconds: float, first: int) -> int:
    """Write for some seconds; return how many changes it was."""
    began, written = time.monotonic(), 0
    with writing() as connection:
        connection.execute("set synchronous_commit = on")
        while (now := time.monotonic() - began) < seconds:
            due = int(now * per_second) // ROWS_A_TRANSACTION
            if due > written:
                write(connection, first + written, due - written)
                written = due
            threading.Event().wait(0.005)
    return written * ROWS_A_TRANSACTION


def _has_landed(changes: int, from_sequence: int) -> bool:
    from ingestion.raw_zone import RawZone
    from payments.settings import settings

    pin = RawZone(settings().raw_zone).pin()
    landed = sum(
        part.accepted
        for commit in pin.batches("oltp", kind="log")
        if commit.sequence > from_sequence
        for part in commit.entities
    )
    return landed >= changes


def main() -> None:
    """Run all of it in a folder of its own and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--per-second", type=int, default=1_000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="payments cdc "))
    folder.chmod(0o755)
    _use(folder)
    from payments.systems import destroy_all

    try:
        run(folder, arguments.changes, arguments.seconds, arguments.per_second)
    finally:
        destroy_all()
        shutil.rmtree(folder, ignore_errors=True)


def _use(folder: Path) -> None:
    from payments.systems.processes import free_port

    os.environ["PAYMENTS_HOME"] = str(folder / "home")
    for store in ("OLTP", "DOCUMENTS", "KAFKA"):
        os.environ[f"PAYMENTS_{store}_PORT"] = str(free_port())
    for given in ("PAYMENTS_OLTP_DSN", "PAYMENTS_DOCUMENTS_URI", "PAYMENTS_KAFKA_BOOTSTRAP", "PAYMENTS_RAW"):
        os.environ.pop(given, None)


def run(folder: Path, changes: int, seconds: float, per_second: int) -> None:
    """Measure, and print a table as soon as it is known."""
    from ingestion.cdc.stream import drain
    from payments.systems.oltp.connection import connect
    from payments.systems.stream import server as broker

    console = Console(width=120)
    prepare_store()
    drain()
    with connect(autocommit=True) as connection:
        slot_at_now(connection, "bench_limit")
        slot_at_now(connection, "bench_peer")
    end_lsn = write_all(changes, first=0)
    limit = Drained("pg_recvlogical to /dev/null: the limit", drain_to_nowhere(end_lsn))
    drained = [limit, Drained("payments stream --once", drain_into_raw_zone(changes)), drain_with_peer(folder, changes)]
    broker.start()
    drain()
    write_all(changes, first=changes)
    drained.append(Drained("payments stream --once, over the embedded broker", drain_into_raw_zone(changes)))
    broker.destroy()
    grid = Grid(title=f"{changes:,} changes waiting in a slot", title_justify="left")
    for name in ("reader", "seconds", "changes/s", "of the limit"):
        grid.add_column(name, justify="left" if name == "reader" else "right")
    for found in drained:
        rate = "" if found.note else f"{changes / found.seconds:,.0f}"
        share = found.note or f"{limit.seconds / found.seconds:.2f}"
        grid.add_row(found.name, "" if found.note else f"{found.seconds:.2f}", rate, share)
    console.print(grid)

    grid = Grid(title="Seconds from commit to queryable, directly", title_justify="left")
    for name in ("changes/s wanted", "written", "p50", "p99", "longest"):
        grid.add_column(name, justify="right")
    first, wanted, duration = 2 * changes, per_second, seconds
    while True:
        found_latency = measure_latency(wanted, duration, first)
        grid.add_row(
            f"{wanted:,}",
            f"{found_latency.written:,.0f}",
            *(f"{value:.2f}" for value in (found_latency.p50, found_latency.p99, found_latency.longest)),
        )
        # The writer is one connection: where it cannot keep the rate, the rate is its own.
        if found_latency.p99 > LIMIT_SECONDS or found_latency.written < 0.9 * wanted:
            break
        first += int(wanted * duration)
        wanted, duration = 2 * wanted, min(seconds, 15)
    console.print(grid)


if __name__ == "__main__":
    main()

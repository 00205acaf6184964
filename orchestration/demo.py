"""The main job, run once from a bare machine, and the table of what came out: ``make demo``."""

import argparse
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import dagster as dg
import duckdb
from rich.console import Console
from rich.table import Table

from payments.errors import UsageError
from payments.settings import PROJECT_ROOT, settings

if TYPE_CHECKING:
    from ingestion.cdc.supervisor import View

SHOWN = [
    *("oltp.charges", "oltp.refunds", "oltp.ledger_entries"),
    *("changes.charges", "changes.refunds", "changes.ledger_entries"),
]
"""What the demo shows of the reconciliation besides the copies and the money."""
LAYERS = {
    "raw zone": "raw_",
    "staging": "dev_staging",
    "intermediate": "dev_intermediate",
    "marts": "dev_marts",
    "features": "dev_features",
}


@dg.success_hook
def announce(context: dg.HookContext) -> None:
    """Tell the terminal that a step is done; the log of the run goes to a file."""
    print(f"  done: {context.op.name}", file=sys.__stdout__, flush=True)


def run_platform_job(transactions: int, days: int, seed: int) -> dict[str, float]:
    """Run the job ``platform`` in this process and return the seconds of each step.

    Raises UsageError when the job failed; the log is then in ``demo.log`` of the state folder.
    """
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(settings().home / "dagster")))
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT_ROOT / "orchestration" / "dagster.yaml", home / "dagster.yaml")
    log = settings().home / "demo.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # Rows that the project gives itself prove the same in every build; `dbt build` and the tests run them.
    os.environ.setdefault("DBT_EXCLUDE_RESOURCE_TYPES", "unit_test")
    config = {"ops": {"simulate": {"config": {"transactions": transactions, "days": days, "seed": seed}}}}
    print(f"Running the job platform; its log is {log}", flush=True)
    with log.open("w", encoding="utf-8") as sink, redirect_stdout(sink), redirect_stderr(sink):
        from orchestration.definitions import defs

        with dg.DagsterInstance.get() as instance:
            job = defs().resolve_job_def("platform").with_hooks({announce})
            result = job.execute_in_process(instance=instance, run_config=config, raise_on_error=False)
            stats = instance.get_run_step_stats(result.run_id)
    failures = result.get_step_failure_events()
    if failures or not result.success:
        told = "".join(f" ({reason})" for event in failures[:1] if (reason := _reason(event)))
        failed = ", ".join(str(event.step_key) for event in failures)
        raise UsageError(f"the job failed in {failed}{told}: see {log}, or run {result.run_id} in 'make ui'")
    return {s.step_key: s.end_time - s.start_time for s in stats if s.start_time and s.end_time}


def _reason(event: dg.DagsterEvent) -> str:
    """Return what a step says that the user can mend, such as a port that is taken; empty for other failures."""
    error = event.step_failure_data.error
    cause = None if error is None else error.cause or error
    return "" if cause is None or cause.cls_name != UsageError.__name__ else cause.message.partition(": ")[2].strip()


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=120)


def _table(title: str, *header: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, justify="left" if name == header[0] else "right", overflow="fold")
    return table


def _layers(warehouse: duckdb.DuckDBPyConnection) -> Table:
    table = _table("Rows in each layer", "layer", "relations", "rows")
    names = warehouse.execute("select table_schema, table_name from information_schema.tables").fetchall()
    for layer, prefix in LAYERS.items():
        relations = [f'"{schema}"."{name}"' for schema, name in names if schema.startswith(prefix)]
        rows = sum(_count(warehouse, relation) for relation in relations)
        table.add_row(layer, str(len(relations)), f"{rows:,}")
    return table


def _count(warehouse: duckdb.DuckDBPyConnection, relation: str) -> int:
    row = warehouse.execute(f"select count(*) from {relation}").fetchone()
    return int(row[0]) if row else 0


def _revenue(warehouse: duckdb.DuckDBPyConnection) -> Table:
    table = _table("Captured by currency, refunds taken off", "currency", "payments", "captured", "refunded", "net")
    rows = warehouse.execute("""
        select
            payments.currency,
            count(*),
            sum(captured_amount_minor),
            sum(refunded_amount_minor),
            any_value(currencies.exponent)
        from dev_marts.fct_payments as payments
        inner join dev_reference.currencies as currencies on payments.currency = currencies.currency
        group by payments.currency
        order by count(*) desc
    """).fetchall()
    for currency, payments, captured, refunded, exponent in rows:
        amounts = (major(int(minor), int(exponent)) for minor in (captured, refunded, captured - refunded))
        table.add_row(currency, f"{payments:,}", *amounts)
    return table


def major(minor: int, exponent: int) -> str:
    """Write an amount of minor units in major units, by integer arithmetic: ``major(-1234, 2)`` is ``-12.34``."""
    sign, (whole, part) = "-" if minor < 0 else "", divmod(abs(minor), 10**exponent)
    return f"{sign}{whole:,}" + (f".{part:0{exponent}d}" if exponent else "")


def main() -> None:
    """Run the job, print the tables, and exit 2 with one line when it failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=180)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--stream-seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        steps = run_platform_job(arguments.transactions, arguments.days, arguments.seed)
        print_closing_tables(steps, time.monotonic() - began)
        if arguments.stream_seconds > 0:
            show_stream(arguments.stream_seconds, arguments.seed)
    except UsageError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(2)
    print_links()


def print_closing_tables(steps: dict[str, float], seconds: float) -> None:
    """Print what the job made: rows, money, fraud metrics, the gate's answer, and times."""
    from ml.train import last_report
    from payments.compliance.gate import last_result

    console = _console()
    with duckdb.connect(str(settings().warehouse_path), read_only=True) as warehouse:
        console.print(_layers(warehouse))
        console.print(_revenue(warehouse))

    report = last_report()
    fraud = _table("Fraud model on the days after the label delay", "metric", "model", "rules baseline")
    for name, model, baseline in report.comparison():
        fraud.add_row(name, f"{model:.3f}", f"{baseline:.3f}")
    console.print(fraud)

    gate = last_result()
    answer = "open: every rule holds" if gate.passed else "CLOSED"
    console.print(f"Compliance gate: {answer} ({len(gate.checks)} rules on staging)")

    times = _table("Time of each step", "step", "seconds")
    for step, duration in steps.items():
        times.add_row(step, f"{duration:.1f}")
    times.add_row("all", f"{seconds:.1f}")
    console.print(times)


def show_stream(seconds: float, seed: int) -> None:
    """Stream live traffic over the embedded broker for some seconds, and print what came of it, store by store.

    Raises UsageError when a store cannot be used, or the stores differ in the end.
    """
    from ingestion.cdc.supervisor import View, supervise
    from payments.compliance.reconcile import reconcile
    from payments.simulation.traffic import run_traffic
    from payments.systems.stream import server as broker_server

    broker_server.start()
    print(f"Streaming live payments for {seconds:.0f} seconds", flush=True)
    view, slowest = View(), 0.0
    with ThreadPoolExecutor(1) as pool:
        stop, traffic = Event(), None
        for seen in supervise(stop.is_set):
            # The stream is under way: now there is somebody to see the payments.
            traffic = traffic or pool.submit(run_traffic, tps=20, seconds=seconds, clients=4, seed=seed)
            view, slowest = seen, max(slowest, seen.lag_seconds)
            if traffic.done() and _has_all(view):
                stop.set()
        if traffic is None:
            raise AssertionError("the stream ended before it began")
        requests = len(traffic.result().acknowledged)

    console = _console()
    live = _table("Live traffic, streamed over the broker", "what", "how much")
    live.add_row("requests answered", f"{requests:,}")
    live.add_row("changes landed", f"{view.changes:,}")
    live.add_row("documents brought up to date", f"{view.documents:,}")
    live.add_row("dead letters", f"{view.dead_letters:,}")
    live.add_row("longest time from commit to raw zone, seconds", f"{slowest:.2f}")
    console.print(live)
    result = reconcile()
    matrix = _table("The same in every store, at one place of the log: rows, then money captured", *result.header())
    matrix.columns[0].no_wrap = True
    rows = [row for row in result.matrix() if str(row[0]).startswith("copies.") or row[0] in SHOWN]
    for row in (*rows, *result.captured()):
        matrix.add_row(*("" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    console.print(matrix)
    console.print(f"{len(result.comparisons)} comparisons, {len(result.differences)} differences: payments reconcile")
    if result.differences:
        raise UsageError(f"the stores differ: {result.differences[0]}")


def _has_all(view: "View") -> bool:
    from ingestion.cdc.generation import last_landed

    last = last_landed()
    has_landed = view.lag_bytes == 0 and view.waiting is None
    return has_landed and last is not None and view.copies.sequence == last.sequence


def print_links() -> None:
    """Print where to look."""
    console = _console()
    links = _table("Where to look", "what", "how")
    links.columns[1].justify = "left"
    links.add_row("Asset graph, runs, checks", "make ui, then http://127.0.0.1:3000/asset-groups")
    links.add_row("Docs site: lineage, ERDs, columns", f"{PROJECT_ROOT / 'target' / 'index.html'} (dbt docs serve)")
    links.add_row("Stores", "payments status")
    links.add_row("The money, store by store", "payments reconcile")
    console.print(links)


if __name__ == "__main__":
    main()

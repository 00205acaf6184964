"""The command that streams: what is committed in the operational store lands as it happens."""

import signal
import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from payments.cli.printing import console, print_table

if TYPE_CHECKING:
    from ingestion.cdc.supervisor import View

app = typer.Typer()


@app.command()
def stream(
    once: Annotated[
        bool, typer.Option("--once", help="Bring everything up to what is committed by now, and stop.")
    ] = False,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after this time.")] = None,
    resnapshot: Annotated[
        bool, typer.Option("--resnapshot", help="Make the slot anew, and compare every table with what landed.")
    ] = False,
) -> None:
    """Land changes of the operational store as they are committed and keep the copies current, until a signal comes."""
    if resnapshot:
        from ingestion.cdc.generation import resnapshot as begin_anew

        begin_anew()
    if once:
        _once()
        return
    from ingestion.cdc.supervisor import supervise

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    began = time.monotonic()
    with Live(console=console, auto_refresh=False) as live:
        for view in supervise(lambda: stopped.is_set() or _is_over(began, seconds)):
            live.update(_shown(view), refresh=True)


def _once() -> None:
    from ingestion.cdc.copies import advance_copies
    from ingestion.cdc.stream import drain
    from payments.cli.landing import print_landings

    print_landings(drain())
    report = advance_copies()
    rows: list[list[object]] = [
        [report.written, report.stale + report.repeated, report.removed + report.deleted, report.refused]
    ]
    print_table("Copies in the document store", ["written", "unchanged", "removed", "refused"], rows)
    if report.failure is not None:
        console.print(f"The copies are behind: {report.failure}", style="red")
        raise typer.Exit(1)


def _is_over(began: float, seconds: float | None) -> bool:
    return seconds is not None and time.monotonic() - began >= seconds


def _shown(view: "View") -> Group:
    table = Table("stage", "done", "per second", "lag", "dead letters")
    table.add_row(
        "log to raw zone",
        f"{view.changes:,} changes",
        f"{view.changes_per_second:,.0f}",
        f"{view.lag_seconds:.2f} s, {view.lag_bytes:,} bytes",
        f"{view.dead_letters:,}",
    )
    lag = "unknown" if view.copies.lag_seconds is None else f"{view.copies.lag_seconds:.2f} s"
    table.add_row("raw zone to documents", f"{view.documents:,} documents", "", lag, f"{view.refused_documents:,}")
    lines = [Text(f"position {view.position}")] if view.position is not None else []
    lines += [Text(f"stopped: {entity}: {reason}", style="red") for entity, reason in view.stopped.items()]
    lines += [Text(reason, style="red") for reason in (view.waiting, view.copies.failure) if reason is not None]
    return Group(table, *lines)

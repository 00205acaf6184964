"""The command that streams: what is committed in the operational store lands as it happens."""

import signal
import threading
import time
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table

from payments.cli.printing import console

app = typer.Typer()


@app.command()
def stream(
    resnapshot: Annotated[
        bool,
        typer.Option("--resnapshot", help="Make the slot anew, and compare every table with what landed."),
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Land what is committed by now, and stop.")] = False,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after this time.")] = None,
) -> None:
    """Land changes of the operational store as they are committed, until a signal comes."""
    from ingestion.cdc import stream as cdc
    from payments.cli.landing import print_landings

    if resnapshot:
        cdc.resnapshot()
    if once:
        print_landings(cdc.drain())
        return
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    began = time.monotonic()
    changes, position = 0, ""
    with Live(console=console, auto_refresh=False) as live:
        for step in cdc.follow(lambda: stopped.is_set() or _is_over(began, seconds)):
            changes += step.changes
            position = position if step.position is None else str(step.position)
            table = Table("changes", "changes/s", "lag s", "lag bytes", "position")
            rate = changes / (time.monotonic() - began)
            table.add_row(f"{changes:,}", f"{rate:,.0f}", f"{step.lag_seconds:.2f}", f"{step.lag_bytes:,}", position)
            live.update(table, refresh=True)


def _is_over(began: float, seconds: float | None) -> bool:
    return seconds is not None and time.monotonic() - began >= seconds

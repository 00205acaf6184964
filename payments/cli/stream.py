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
    once: Annotated[bool, typer.Option("--once", help="Land what is committed by now, and stop.")] = False,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after this time.")] = None,
) -> None:
    """Land changes of the operational store as they are committed, until a signal comes."""
    from ingestion.cdc.stream import drain, follow
    from payments.cli.landing import print_landings

    if once:
        print_landings(drain())
        return
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    began = time.monotonic()
    changes = 0
    with Live(console=console, auto_refresh=False) as live:
        for progress in follow(lambda: stopped.is_set() or _is_over(began, seconds)):
            changes += progress.changes
            table = Table("changes", "changes/s", "lag s", "lag bytes", "position")
            rate = changes / (time.monotonic() - began)
            lag = f"{progress.lag_seconds:.2f}"
            table.add_row(f"{changes:,}", f"{rate:,.0f}", lag, f"{progress.lag_bytes:,}", progress.position)
            live.update(table, refresh=True)


def _is_over(began: float, seconds: float | None) -> bool:
    return seconds is not None and time.monotonic() - began >= seconds

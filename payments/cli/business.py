"""Commands that make business: a simulated history, and live traffic."""

from datetime import date
from typing import Annotated

import typer

from payments.cli.printing import console, exit_unless, print_table
from payments.errors import UsageError

app = typer.Typer()


@app.command()
def simulate(
    transactions: Annotated[int, typer.Option(min=1, help="Charges to write.")] = 30_000,
    days: Annotated[int, typer.Option(min=1, help="Days of history, ending at --end.")] = 180,
    seed: Annotated[int, typer.Option(min=0, help="The seed of every draw.")] = 7,
    end: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="The last day of the history.")] = "2026-06-30",
) -> None:
    """Write a believable history into PostgreSQL and the document store."""
    from payments.simulation.history import simulate as run

    try:
        last_day = date.fromisoformat(end)
    except ValueError:
        raise UsageError(f"--end takes a day as YYYY-MM-DD, but it is {end!r}") from None
    report = run(transactions=transactions, days=days, seed=seed, end=last_day)
    print_table("Simulated", ["store", "table", "rows"], [list(row) for row in report.rows()])


@app.command()
def traffic(
    tps: Annotated[float, typer.Option(min=0, help="Requests a second; 0 is as fast as possible.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long.")] = 10,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Connections.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="The seed of what is asked for.")] = 7,
) -> None:
    """Call the operational store as applications do; exit 1 when a repeated request got another answer."""
    from payments.simulation.traffic import run_traffic

    report = run_traffic(tps=tps, seconds=seconds, clients=clients, seed=seed)
    rows: list[list[object]] = [
        [operation, f"{answers:,}", f"{rate:,.1f}", *(f"{ms:.1f}" for ms in milliseconds)]
        for operation, answers, rate, *milliseconds in report.rows()
    ]
    print_table("Traffic", ["operation", "answers", "answers/s", "p50 ms", "p95 ms", "p99 ms"], rows)
    console.print(", ".join(f"{count:,} {what}" for what, count in report.counts.items()), highlight=False)
    for line in [*report.differing, *report.errors[:5]]:
        console.print(line, style="red", markup=False)
    exit_unless(not report.differing and not report.errors)

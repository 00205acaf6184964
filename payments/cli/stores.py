"""Commands on the stores: start, stop, describe, and keep them in order."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from payments.cli.printing import console, exit_unless, print_table, size

app = typer.Typer()
partitions_app = typer.Typer(help="Make, watch and retire the monthly partitions.", no_args_is_help=True)
app.add_typer(partitions_app, name="partitions")


@app.command()
def up(
    stream: Annotated[bool, typer.Option("--stream", help="Start the broker too: changes then go through it.")] = False,
) -> None:
    """Start the stores, apply the migrations and the collections, and erase again whom a restore brought back."""
    from ingestion.erasure import reapply
    from payments.systems import start_all

    start_all(with_stream=stream)
    reapply()
    status()


@app.command()
def down(
    delete: Annotated[bool, typer.Option("--delete", help="Delete the data of the embedded stores as well.")] = False,
) -> None:
    """Stop the embedded stores; their data stays."""
    from payments.systems import destroy_all, stop_all

    destroy_all() if delete else stop_all()


@app.command()
def status() -> None:
    """Print each store: version, where, up since, size, and what is missing."""
    from payments.systems import statuses

    rows: list[list[object]] = [
        [s.store, s.version, s.where, _moment(s.up_since), size(s.size_bytes), "; ".join(s.missing)] for s in statuses()
    ]
    print_table("Stores", ["store", "version", "where", "up since", "size", "missing"], rows)


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S UTC")


@app.command()
def maintain() -> None:
    """Do one round of care: next partitions, expired authorizations, due settlements, seals."""
    from payments.systems.oltp.maintenance import maintain as run

    done = run()
    rows: list[list[object]] = [
        ["partitions made", len(done.partitions)],
        ["authorizations expired", done.expired_authorizations],
        ["days settled", done.settled_days],
        ["idempotency keys forgotten", done.forgotten_keys],
        ["postings sealed", done.sealed_postings],
    ]
    print_table("Maintenance", ["what", "how many"], rows)


@partitions_app.command("create")
def partitions_create(
    ahead: Annotated[int, typer.Option(min=0, max=120, help="Months to make beyond the current one.")] = 2,
) -> None:
    """Make the partitions of this and the coming months, and move rows that stand outside their month."""
    from payments.systems.oltp.partitions import create_months

    print_table("Made", ["partition"], [[name] for name in create_months(ahead)])


@partitions_app.command("status")
def partitions_status() -> None:
    """Print every monthly partition; exit 1 when rows stand in a default partition."""
    from payments.systems.oltp.partitions import partitions, stray_rows

    strays = stray_rows()
    rows: list[list[object]] = [
        [
            p.name,
            None if p.month is None else f"{p.month:%Y-%m}",
            p.estimated_rows if p.month is not None else strays[p.table],
            size(p.size_bytes),
        ]
        for p in partitions()
    ]
    header = ["name", "month", "rows", "size"]
    print_table("Partitions: rows are estimates, in a default partition counted", header, rows)
    for table, count in strays.items():
        if count:
            console.print(f"{table}: {count} rows outside their month: run payments partitions create", style="red")
    exit_unless(not any(strays.values()))


@partitions_app.command("retire")
def partitions_retire(
    before: Annotated[str, typer.Option(metavar="YYYY-MM", help="The first month that stays.")],
    to: Annotated[Path | None, typer.Option(help="Folder of the files; by default archive/ of the home.")] = None,
    table: Annotated[str | None, typer.Option(help="ops.outbox or ops.audit_log only; by default both.")] = None,
) -> None:
    """Put old months of the outbox and the audit trail into files, and drop them when the files read back whole."""
    from payments.settings import settings
    from payments.systems.oltp.partitions import RETIRED_TABLES, month_of, retire

    retired = retire(month_of(before), to or settings().home / "archive", (table,) if table else RETIRED_TABLES)
    rows: list[list[object]] = [[r.table, f"{r.month:%Y-%m}", r.rows, r.file, r.sha256] for r in retired]
    print_table("Retired", ["table", "month", "rows", "file", "sha-256"], rows)

"""The command ``payments``: operations only. What dbt or Dagster has a command for is done with that command."""

import sys
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from payments.errors import UsageError

if TYPE_CHECKING:
    from ingestion.landing import LandingReport

app = typer.Typer(
    help="Operate the payments data platform.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
land_app = typer.Typer(
    help="Land data into the raw zone: without a subcommand, PostgreSQL and the document collections."
)
load_app = typer.Typer(help="Load the raw zone into another engine.", no_args_is_help=True)
quarantine_app = typer.Typer(help="Look at quarantined records and land them again after a fix.", no_args_is_help=True)
app.add_typer(land_app, name="land")
app.add_typer(load_app, name="load")
app.add_typer(quarantine_app, name="quarantine")

console = Console()


def _print_table(title: str, header: list[str], rows: list[list[object]]) -> None:
    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    # On a pipe rich assumes 80 columns and folds: let the table be as wide as its cells.
    (console if console.is_terminal else Console(width=240)).print(table)


@app.command()
def up() -> None:
    """Start the stores, apply the migrations and the collections."""
    from payments.systems import start_all

    start_all()
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
        [s.store, s.version, s.where, _moment(s.up_since), _size(s.size_bytes), "; ".join(s.missing)]
        for s in statuses()
    ]
    _print_table("Stores", ["store", "version", "where", "up since", "size", "missing"], rows)


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else decimal(size_bytes)


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
    _print_table("Simulated", ["store", "table", "rows"], [list(row) for row in report.rows()])


@land_app.callback(invoke_without_command=True)
def land(context: typer.Context) -> None:
    """Land PostgreSQL (one consistent snapshot) and the document collections."""
    if context.invoked_subcommand is not None:
        return
    from ingestion.documents import land_documents
    from ingestion.oltp import land_oltp

    _print_landings([land_oltp(), land_documents()])


@land_app.command("transactions")
def land_transactions(
    file: Annotated[Path, typer.Argument(help="A CSV, Parquet or JSON-lines file of transactions.")],
    mapping: Annotated[Path | None, typer.Option(help="A mapping file: names, defaults, label delay.")] = None,
    currency: Annotated[str | None, typer.Option(help="The currency of rows that name none.")] = None,
) -> None:
    """Land a file of transactions."""
    from ingestion.files import land_transactions as run

    _print_landings([run(file, mapping=mapping, default_currency=currency)])


def _print_landings(reports: "list[LandingReport]") -> None:
    rows: list[list[object]] = [
        [report.batch_id, e.entity, e.read, e.accepted, e.unchanged, e.quarantined, e.deleted]
        for report in reports
        for e in report.entities
    ]
    header = ["batch", "entity", "read", "accepted", "unchanged", "quarantined", "deleted"]
    _print_table("Landed: read = accepted + unchanged + quarantined", header, rows)


@load_app.command("postgres")
def load_postgres() -> None:
    """Load what is new in the raw zone into the PostgreSQL warehouse, for dbt build --target postgres."""
    from ingestion.warehouse import load_postgres as run

    _print_table("Loaded", ["table", "rows"], [[table, rows] for table, rows in run().items()])


@app.command()
def check(
    store: Annotated[Literal["oltp"], typer.Argument(help="The store to check; there is one.")] = "oltp",
) -> None:
    """Check every invariant of the operational store, each with the rows it was asked of; exit 1 when one is broken."""
    from payments.systems.oltp.check import check as run

    results = run()
    _print_table(
        f"Invariants of {store}", ["check", "holds", "detail"], [[r.name, _yes(r.passed), r.detail] for r in results]
    )
    _exit_unless(all(r.passed for r in results))


@app.command()
def gate() -> None:
    """Run the compliance gate on the staging models; exit 1 when a rule is broken."""
    from payments.compliance.gate import run_gate

    result = run_gate()
    rows: list[list[object]] = [[c.name, c.relation, _yes(c.passed), c.rows, c.unexpected_count] for c in result.checks]
    _print_table("Compliance gate", ["rule", "relation", "holds", "rows", "unexpected"], rows)
    _exit_unless(result.passed)


@app.command()
def reconcile() -> None:
    """Compare captured money per currency in PostgreSQL, raw zone, staging and marts; exit 1 on a difference."""
    from payments.compliance.reconcile import reconcile as run

    result = run()
    _print_table("Captured, in minor units", result.header(), [list(row) for row in result.table()])
    for line in result.differences:
        console.print(line, style="red")
    _exit_unless(not result.differences)


@app.command()
def digest() -> None:
    """Compare the marts of the DuckDB and the PostgreSQL warehouse, model by model; exit 1 on a difference."""
    from payments.digest import compare

    comparisons = compare()
    rows: list[list[object]] = [
        [c.model, c.duckdb.rows, c.duckdb.checksum, c.postgres.rows, c.postgres.checksum, _yes(c.equal)]
        for c in comparisons
    ]
    _print_table("Digests", ["model", "duckdb rows", "duckdb", "postgres rows", "postgres", "equal"], rows)
    _exit_unless(all(c.equal for c in comparisons))


@quarantine_app.command("list")
def quarantine_list(
    batch: Annotated[str | None, typer.Argument(help="One batch only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 100,
) -> None:
    """Print what is in quarantine, with the reason."""
    from ingestion.quarantine import count_quarantine, list_quarantine

    records = list_quarantine(batch, limit=limit)
    rows: list[list[object]] = [[r.batch_id, r.source, r.entity, r.rule, r.reason, r.record] for r in records]
    total = sum(count.records for count in count_quarantine() if batch in {None, count.batch_id})
    _print_table(
        f"Quarantine: {len(rows):,} of {total:,} records",
        ["batch", "source", "entity", "rule", "reason", "record"],
        rows,
    )


@quarantine_app.command("replay")
def quarantine_replay(
    batch: Annotated[str, typer.Argument(help="The batch whose records to land again.")],
    mapping: Annotated[Path | None, typer.Option(help="A mended mapping file.")] = None,
    currency: Annotated[str | None, typer.Option(help="The currency of rows that name none.")] = None,
) -> None:
    """Land the quarantined records of a batch again, after a fix."""
    from ingestion.quarantine import replay

    _print_landings([replay(batch, mapping=mapping, default_currency=currency)])


def _yes(holds: bool) -> str:
    return "yes" if holds else "NO"


def _exit_unless(holds: bool) -> None:
    if not holds:
        raise typer.Exit(1)


def main() -> None:
    """Run the command; a user error becomes one line on standard error and exit code 2."""
    try:
        app()
    except UsageError as error:
        print(f"payments: {error}", file=sys.stderr)
        sys.exit(2)

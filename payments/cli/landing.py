"""Commands that land data, load it into another engine, and look after what did not fit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from payments.cli.printing import print_table

if TYPE_CHECKING:
    from ingestion.erasure import Erasure
    from ingestion.landing import LandingReport

_ID_DIGITS = 12

app = typer.Typer()
land_app = typer.Typer(
    help="Land data into the raw zone: without a subcommand, PostgreSQL and what changed in the document collections."
)
load_app = typer.Typer(help="Load the raw zone into another engine.", no_args_is_help=True)
quarantine_app = typer.Typer(help="Look at quarantined records and land them again after a fix.", no_args_is_help=True)
erase_app = typer.Typer(help="Erase a person from every store, for good.", no_args_is_help=True)
app.add_typer(land_app, name="land")
app.add_typer(load_app, name="load")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(erase_app, name="erase")


@land_app.callback(invoke_without_command=True)
def land(context: typer.Context) -> None:
    """Land PostgreSQL (one consistent snapshot) and what changed in the document collections."""
    if context.invoked_subcommand is not None:
        return
    from ingestion.documents import land_documents
    from ingestion.oltp import land_oltp

    print_landings([land_oltp(), *land_documents()])


@land_app.command("documents")
def land_documents(
    collections: Annotated[list[str] | None, typer.Argument(help="Some collections; by default all that land.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Read everything again and compare.")] = False,
) -> None:
    """Land what changed in the document collections since the last landing; the first one reads them as a whole."""
    from ingestion.documents import land_documents as run

    print_landings(run(collections, full=full))


@land_app.command("transactions")
def land_transactions(
    file: Annotated[Path, typer.Argument(help="A CSV, Parquet or JSON-lines file of transactions.")],
    mapping: Annotated[Path | None, typer.Option(help="A mapping file: names, defaults, label delay.")] = None,
    currency: Annotated[str | None, typer.Option(help="The currency of rows that name none.")] = None,
) -> None:
    """Land a file of transactions."""
    from ingestion.files import land_transactions as run

    print_landings([run(file, mapping=mapping, default_currency=currency)])


def print_landings(reports: "list[LandingReport]") -> None:
    """Print what batches did, entity by entity."""
    rows: list[list[object]] = [
        [report.batch_id, e.entity, e.read, e.accepted, e.unchanged, e.quarantined, e.deleted]
        for report in reports
        for e in report.entities
    ]
    header = ["batch", "entity", "read", "accepted", "unchanged", "quarantined", "deleted"]
    print_table("Landed: read = accepted + unchanged + quarantined", header, rows)


@app.command("compact")
def compact() -> None:
    """Merge the small files of the raw zone, and remove what no reader needs any more; a stream does so by itself."""
    from ingestion.compaction import compact as run

    done = run()
    header = ["batches merged", "files merged", "into", "files removed"]
    print_table("Compacted", header, [[done.batches, done.merged_files, done.new_files, done.removed_files]])


@load_app.command("postgres")
def load_postgres() -> None:
    """Load what is new in the raw zone into the PostgreSQL warehouse, for dbt build --target postgres."""
    from ingestion.warehouse import load_postgres as run

    print_table("Loaded", ["table", "rows"], [[table, rows] for table, rows in run().items()])


@quarantine_app.command("list")
def quarantine_list(
    batch: Annotated[str | None, typer.Argument(help="One batch only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 100,
    source: Annotated[str | None, typer.Option(help="One source only, such as documents.")] = None,
    entity: Annotated[str | None, typer.Option(help="One entity only, such as inbox_events.")] = None,
    rule: Annotated[str | None, typer.Option(help="One rule only, such as wrong_type.")] = None,
) -> None:
    """Print what is in quarantine, with the reason; show prints one record in full."""
    from ingestion.quarantine import count_quarantine, list_quarantine

    records = list_quarantine(batch, limit, source=source, entity=entity, rule=rule)
    rows: list[list[object]] = [
        [r.quarantine_id[:_ID_DIGITS], r.batch_id, r.source, r.entity, r.rule, r.reason, r.record] for r in records
    ]
    total = sum(
        count.records
        for count in count_quarantine()
        if (batch or count.batch_id, source or count.source, entity or count.entity, rule or count.rule)
        == (count.batch_id, count.source, count.entity, count.rule)
    )
    print_table(
        f"Quarantine: {len(rows):,} of {total:,} records",
        ["id", "batch", "source", "entity", "rule", "reason", "record"],
        rows,
    )


@quarantine_app.command("show")
def quarantine_show(
    quarantine_id: Annotated[str, typer.Argument(metavar="ID", help="The id that list prints, or how it begins.")],
) -> None:
    """Print one record in full, with rule, reason, batch, origin and time."""
    from ingestion.quarantine import show_quarantine

    found = show_quarantine(quarantine_id)
    for name, value in [
        ("id", found.quarantine_id),
        ("source", found.source),
        ("entity", found.entity),
        ("rule", found.rule),
        ("reason", found.reason),
        ("batch", found.batch_id),
        ("origin", found.origin),
        ("quarantined", f"{found.quarantined_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("record", found.record),
    ]:
        typer.echo(f"{name + ':':<13}{value}")


@quarantine_app.command("replay")
def quarantine_replay(
    batch: Annotated[str, typer.Argument(help="The batch whose records to land again.")],
    mapping: Annotated[Path | None, typer.Option(help="A mended mapping file.")] = None,
    currency: Annotated[str | None, typer.Option(help="The currency of rows that name none.")] = None,
) -> None:
    """Land the quarantined records of a batch again, after a fix."""
    from ingestion.quarantine import replay

    print_landings([replay(batch, mapping=mapping, default_currency=currency)])


@erase_app.command("customer")
def erase_customer(
    customer: Annotated[str, typer.Argument(help="A customer of the person, such as cus_1.")],
    merchant: Annotated[str | None, typer.Option(help="Whose customer, where several persons have the id.")] = None,
    reason: Annotated[str, typer.Option(help="A word that is kept.")] = "erasure",
) -> None:
    """Erase the person who is this customer: the key, the documents, and every landed version."""
    from ingestion.erasure import erase_customer as run

    _print_erasure(run(customer, merchant, reason))


@erase_app.command("reapply")
def erase_reapply() -> None:
    """Erase again what a restored store brought back; payments up does so too."""
    from ingestion.erasure import reapply

    _print_erasure(reapply())


def _print_erasure(done: "Erasure") -> None:
    header = ["customers", "landed rows", "quarantined records", "documents", "keys"]
    row: list[object] = [len(done.customers), done.rows, done.quarantined, done.documents, done.keys]
    print_table("Erased", header, [row])

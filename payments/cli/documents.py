"""Commands on the document store: bring it in line with its files, say where it is not, list what lost in it."""

from typing import Annotated

import typer

from payments.cli.printing import console, exit_unless, print_table

app = typer.Typer()
documents_app = typer.Typer(help="Bring the document store in line; list conflicts.", no_args_is_help=True)
app.add_typer(documents_app, name="documents")


@documents_app.command()
def apply() -> None:
    """Create or migrate collections, validators and indexes; nothing changes when nothing changed in the files."""
    from payments.systems.documents.collections import apply_collections

    for line in apply_collections() or ["Nothing changed."]:
        console.print(line, markup=False, highlight=False)


@documents_app.command()
def drift() -> None:
    """Print how the server differs from the files, and change nothing; exit 1 when it does."""
    from payments.systems.documents.collections import drift as run

    found = run()
    for line in [change.drift for change in found] or ["No drift."]:
        console.print(line, markup=False, highlight=False)
    exit_unless(not found)


@documents_app.command()
def conflicts(days: Annotated[int, typer.Option(min=1, max=3650, help="How far to look back.")] = 30) -> None:
    """List what lost where two writers met: whose value of which field, at which version, against whose."""
    from payments.systems.documents.conflicts import recent_conflicts

    found = recent_conflicts(days)
    header = ["found", "document", "field", "rule", "lost: owner", "version", "kept: owner", "version"]
    rows: list[list[object]] = [
        [
            each.found_at.isoformat(timespec="seconds"),
            f"{each.collection}/{each.document_id}",
            each.field,
            each.rule,
            each.lost_owner,
            each.lost_version,
            each.kept_owner,
            each.kept_version,
        ]
        for each in found
    ]
    print_table(f"{len(found)} conflicts in {days} days", header, rows)

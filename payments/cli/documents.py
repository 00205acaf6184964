"""Commands on the collections of the document store: bring it in line with their files, or only say where it is not."""

import typer

from payments.cli.printing import console, exit_unless

app = typer.Typer()
documents_app = typer.Typer(help="Bring the document store in line with its files.", no_args_is_help=True)
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

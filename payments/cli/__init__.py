"""The command ``payments``: operations only. What dbt or Dagster has a command for is done with that command."""

import sys

import typer

from payments.cli import (
    business,
    content,
    disaster,
    documents,
    inbox,
    landing,
    ledger,
    proofs,
    queries,
    stores,
    stream,
    trace,
)
from payments.errors import UsageError

app = typer.Typer(
    help="Operate the payments data platform.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (stores, documents, content, business, landing, inbox, stream, proofs, trace, queries, ledger, disaster):
    app.add_typer(part.app)


def main() -> None:
    """Run the command; a user error becomes one line on standard error and exit code 2."""
    try:
        app()
    except UsageError as error:
        print(f"payments: {error}", file=sys.stderr)
        sys.exit(2)

"""Commands on content that comes as files: bank statements (XML) and dispute evidence (PDF, PNG, JPEG)."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from payments.cli.printing import console, print_table
from payments.errors import UsageError

app = typer.Typer()
statements_app = typer.Typer(help="Bank statements (camt.053) in the document store.", no_args_is_help=True)
evidence_app = typer.Typer(help="Files handed in for disputes, encrypted in the document store.", no_args_is_help=True)
app.add_typer(statements_app, name="statements")
app.add_typer(evidence_app, name="evidence")


@statements_app.command("add")
def statements_add(
    files: Annotated[list[Path], typer.Argument(help="camt.053 XML files, of version 02 or later.")],
) -> None:
    """Put bank statements into the document store; a file that is refused goes to quarantine."""
    from ingestion.bank_statements import add_statements

    added, refused = add_statements(files)
    rows: list[list[object]] = [[one.file.name, one.statements, one.entries, one.new_pages] for one in added]
    if rows:
        print_table("Added", ["file", "statements", "entries", "new pages"], rows)
    if refused:
        others = f" (and {len(refused) - 1} other files)" if len(refused) > 1 else ""
        raise UsageError(f"{refused[0].file.name} is refused and in quarantine{others}: {refused[0].reason}")


@evidence_app.command("add")
def evidence_add(
    file: Annotated[Path, typer.Argument(help="A PDF, PNG or JPEG file.")],
    dispute: Annotated[str, typer.Option(help="The dispute (dp_...) it is handed in for.")],
    merchant: Annotated[str, typer.Option(help="The merchant (acct_...) of the dispute.")],
    kind: Annotated[str, typer.Option(help="receipt, customer_communication, shipping_documentation, ...")],
    media_type: Annotated[str | None, typer.Option(help="The type it should have; by default what it is.")] = None,
) -> None:
    """Hand in a file for a dispute; prints its id."""
    from payments.settings import settings
    from payments.systems.documents.client import database
    from payments.systems.documents.evidence import Evidence, store_evidence
    from payments.systems.oltp.connection import connect
    from payments.vault import KeyRing

    if not file.is_file():
        raise UsageError(f"There is no file {file}: check the path.")
    most = settings().content_max_bytes
    with file.open("rb") as opened:
        content = opened.read(most + 1)
    evidence = Evidence(merchant, dispute, kind, content, datetime.now(UTC), media_type=media_type)
    with connect() as connection:
        is_new = store_evidence(database(), connection, KeyRing.load_or_create(settings().key_ring_path), evidence)
    console.print(f"{evidence.file_id}{'' if is_new else ' (already there)'}", soft_wrap=True)


@evidence_app.command("get")
def evidence_get(
    file_id: Annotated[str, typer.Argument(help="The id that evidence add printed.")],
    to: Annotated[Path, typer.Option(help="The file to write.")],
) -> None:
    """Write a file that was handed in, decrypted and checked against its digest."""
    from payments.settings import settings
    from payments.systems.documents.client import database
    from payments.systems.documents.evidence import read_evidence
    from payments.systems.oltp.connection import connect
    from payments.vault import KeyRing

    with connect() as connection:
        content = read_evidence(database(), connection, KeyRing.load_or_create(settings().key_ring_path), file_id)
    to.write_bytes(content)
    console.print(f"wrote {len(content):,} bytes to {to}")

"""Commands on the ledger: seal, close, sum, export and correct."""

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from payments.cli.printing import console, exit_unless, print_table
from payments.errors import UsageError

app = typer.Typer()
ledger_app = typer.Typer(help="Seal, close, sum, export and correct the ledger.", no_args_is_help=True)
adjust_app = typer.Typer(help="Correct a balance: one operator proposes, another decides.", no_args_is_help=True)
app.add_typer(ledger_app, name="ledger")
ledger_app.add_typer(adjust_app, name="adjust")


@ledger_app.command("seal")
def ledger_seal() -> None:
    """Seal the postings recorded since the last seal into the hash chain."""
    from payments.systems.oltp.connection import connect
    from payments.systems.oltp.ledger import seal

    with connect() as connection:
        console.print(f"sealed {seal(connection)} postings")


@ledger_app.command("close")
def ledger_close(month: Annotated[str, typer.Argument(metavar="YYYY-MM", help="A month that has ended.")]) -> None:
    """Close a month for ever: nothing posts into it any more."""
    from payments.systems.oltp.ledger import close_period
    from payments.systems.oltp.partitions import month_of

    close_period(month_of(month))
    console.print(f"{month} is closed")


@ledger_app.command("trial-balance")
def ledger_trial_balance(
    until: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="The last day (UTC) that counts.")] = None,
) -> None:
    """Print debits, credits and balance of every account code; exit 1 when a currency does not balance."""
    from payments.systems.oltp.ledger import out_of_balance, trial_balance

    lines = trial_balance(_day("--until", until))
    rows: list[list[object]] = [[x.currency, x.code, x.debits_minor, x.credits_minor, x.balance_minor] for x in lines]
    print_table("Trial balance, in minor units", ["currency", "account", "debits", "credits", "balance"], rows)
    differences = out_of_balance(lines)
    for currency, difference in differences.items():
        console.print(f"{currency}: debits exceed credits by {difference}", style="red")
    exit_unless(not differences)


@ledger_app.command("export")
def ledger_export(
    file: Annotated[Path, typer.Argument(help="A .csv or .parquet file to write.")],
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="The first day (UTC).")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="The last day (UTC).")] = None,
) -> None:
    """Write the general ledger, an entry a row, into a file."""
    from payments.systems.oltp.ledger import export

    console.print(f"wrote {export(file, _day('--from', first), _day('--to', last))} entries to {file}")


@adjust_app.command("propose")
def ledger_adjust_propose(
    merchant: Annotated[str, typer.Argument(help="The merchant whose balance is wrong.")],
    amount: Annotated[int, typer.Option("--amount-minor", help="What to add, in minor units; below zero to take.")],
    currency: Annotated[str, typer.Option(help="The currency of the balance.")],
    reason: Annotated[str, typer.Option(help="Why, in ten letters or more.")],
) -> None:
    """Propose a correction; nothing moves until another operator approves it."""
    from payments.systems.oltp.ledger import propose_adjustment

    console.print(propose_adjustment(merchant, amount, currency, reason))


@adjust_app.command("approve")
def ledger_adjust_approve(
    merchant: Annotated[str, typer.Argument(help="The merchant of the proposal.")],
    adjustment: Annotated[str, typer.Argument(help="The id of the proposal.")],
) -> None:
    """Approve what another login proposed: it is posted."""
    from payments.systems.oltp.ledger import decide_adjustment

    decide_adjustment(merchant, adjustment, "approved")


@adjust_app.command("reject")
def ledger_adjust_reject(
    merchant: Annotated[str, typer.Argument(help="The merchant of the proposal.")],
    adjustment: Annotated[str, typer.Argument(help="The id of the proposal.")],
) -> None:
    """Reject what another login proposed."""
    from payments.systems.oltp.ledger import decide_adjustment

    decide_adjustment(merchant, adjustment, "rejected")


def _day(option: str, text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} takes a day as YYYY-MM-DD, but it is {text!r}") from None

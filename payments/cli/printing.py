"""How commands print: tables, sizes, and the exit code of a proof that failed."""

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

console = Console()


def print_table(title: str, header: list[str], rows: list[list[object]]) -> None:
    """Print a table; nothing stands for None."""
    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    # On a pipe rich assumes 80 columns and folds: let the table be as wide as its cells.
    (console if console.is_terminal else Console(width=240)).print(table)


def size(size_bytes: int | None) -> str:
    """Write a number of bytes for people."""
    return "" if size_bytes is None else decimal(size_bytes)


def yes(holds: bool) -> str:
    """Write whether something holds."""
    return "yes" if holds else "NO"


def exit_unless(holds: bool) -> None:
    """End the command with exit code 1 when a proof failed."""
    if not holds:
        raise typer.Exit(1)

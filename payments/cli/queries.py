"""The command that asks the example queries, of whichever store."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import typer

from payments.cli.printing import console, print_table, yes
from payments.errors import UsageError

app = typer.Typer()


@app.command()
def query(
    name: Annotated[str, typer.Argument(help="A query; without one, or with list, all of them are printed.")] = "list",
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="PARAMETER=VALUE", help="A parameter; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 50,
    explain: Annotated[bool, typer.Option("--explain", help="Print its plan: what is read by which index.")] = False,
) -> None:
    """Run an example query of the documents, the operational store or the warehouse, and print its answer."""
    from payments.queries.catalogue import all_queries, query_named

    if name == "list":
        rows: list[list[object]] = [[q.name, q.question, q.store, ", ".join(q.parameters)] for q in all_queries()]
        print_table("Queries", ["name", "question", "runs on", "parameters"], rows)
        return
    found = query_named(name)
    values = _values(given or [])
    if explain:
        plan = found.plan(values)
        typer.echo(plan.text)  # as the store wrote it, not folded
        accesses: list[list[object]] = [[a.relation, a.what, a.index or "NONE"] for a in plan.accesses]
        print_table(f"What {name} reads", ["relation", "what", "index"], accesses)
        console.print(f"Every access is by index: {yes(plan.is_by_index)}")
        return
    answer = found.answer(values, limit)
    for parameter, value in answer.parameters.items():
        console.print(f"{parameter} = {_text(value)}", markup=False, highlight=False)
    print_table(found.question, answer.columns, [[_text(value) for value in row] for row in answer.rows])
    rows_found = f"{len(answer.rows)} rows"
    console.print(f"the first {rows_found}: --limit shows more" if answer.is_cut else rows_found)


def _values(given: list[str]) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in given]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise UsageError(f"--set takes a parameter and its value: --set {wrong[0]}=...")
    return {name: value for name, _, value in pairs}


def _text(value: object) -> str:
    """Write a value for people; nothing stands for None."""
    return _WRITERS.get(type(value), str)(value)


_WRITERS: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "",
    bool: lambda value: "yes" if value else "no",
    datetime: lambda value: f"{value:%Y-%m-%d %H:%M:%S} UTC",
    float: lambda value: f"{value:.6g}",
    bytes: lambda value: f"{len(value)} bytes",
    list: lambda value: ", ".join(map(_text, value)),
    dict: lambda value: json.dumps(value, default=str),
}

"""The command that shows what a figure of the warehouse is made of."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from payments.cli.printing import console, exit_unless, print_table, yes
from payments.errors import UsageError

if TYPE_CHECKING:
    from payments.trace.rows import Trace

app = typer.Typer()


@app.command()
def trace(
    model: Annotated[str, typer.Argument(help="A mart, or any other model, such as agg_revenue_daily.")],
    given: Annotated[list[str], typer.Argument(metavar="COLUMN=VALUE...", help="The rows; no value stands for null.")],
    limit: Annotated[int, typer.Option(min=1, help="Rows to print of each step; counts are always those of all.")] = 5,
    engine: Annotated[Literal["duckdb", "postgres"], typer.Option(help="The warehouse to ask.")] = "duckdb",
) -> None:
    """Show what rows of a mart are made of, down to raw rows, files and batches; exit 1 when it does not add up."""
    from payments.trace.rows import trace as run

    pairs = [pair.partition("=") for pair in given]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise UsageError(f"A row is named by column and value: {wrong[0]}=...")
    found = run(model, {name: value for name, _, value in pairs}, limit, engine)
    _print_steps(found, limit)
    figures = [figure for step in found.steps for figure in step.figures if figure.told or figure.found]
    print_table(
        "Figures, and what was found of them",
        ["rows of", "figure", "adds up to", "made of", "measure", "adds up to", "holds in every row"],
        [
            [f.model, "one" if f.name == "1" else f.name, f.told, f.upstream, f.measure, f.found, yes(f.holds)]
            for f in figures
        ],
    )
    _print_batches(found)
    exit_unless(found.holds)


def _print_steps(found: "Trace", limit: int) -> None:
    # A model of which nothing was found is no step.
    for step in found.steps:
        if step.count:
            name = f"seeds/{step.name}.csv" if step.is_seed else step.name
            _print_rows(f"{name}: {_rows(step.count)}" + _of(step.of), step.rows, limit < step.count)
    for raw in found.raw:
        lost = "" if raw.count == raw.expected else f", but {_rows(raw.expected)} of it were built into {raw.model}"
        _print_rows(f"raw {raw.relation}: {_rows(raw.count)}{lost}{_of((raw.model,))}", raw.rows, limit < raw.count)


def _print_batches(found: "Trace") -> None:
    header = ["batch", "entity", "kind", "landed at", "read", "accepted", "unchanged", "quarantined", "deleted"]
    print_table(
        "Batches, with the counts of all of the batch: read = accepted + unchanged + quarantined",
        [*header, "code", "raw rows here"],
        [
            [
                batch.batch_id,
                batch.entity,
                batch.kind,
                f"{batch.landed_at:%Y-%m-%d %H:%M:%S} UTC",
                batch.read,
                batch.accepted,
                batch.unchanged,
                batch.quarantined,
                batch.deleted,
                batch.code_version,
                batch.rows,
            ]
            for batch in found.batches
        ],
    )
    said = ""
    for batch in found.batches:
        if batch.batch_id != said:
            _say(f"{batch.batch_id}, read from {batch.origin} as of {batch.source_at:%Y-%m-%d %H:%M:%S} UTC")
        said = batch.batch_id
        for file in batch.files:
            _say(f"  {file}")
    for missing in found.missing:
        _say(f"{missing} has no commit record", style="red")


def _print_rows(title: str, rows: list[dict[str, Any]], is_cut: bool) -> None:
    """Print a row a line; nulls, surrogate keys and hashes are left out."""
    _say(title, style="bold")
    for row in rows:
        shown = [f"{name}={value}" for name, value in row.items() if value is not None and not _is_noise(name)]
        _say("  " + "  ".join(shown))
    if is_cut:
        _say("  ... --limit shows more")


def _is_noise(name: str) -> bool:
    return name.endswith("_key") or name == "_content_hash"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _of(models: tuple[str, ...]) -> str:
    return f", of {', '.join(models)}" if models else ""


def _say(line: str, style: str | None = None) -> None:
    console.print(line, style=style, soft_wrap=True, markup=False, highlight=False)

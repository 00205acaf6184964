"""Commands that prove: invariants, gate, the same content everywhere, equal engines. A proof that fails exits 1."""

from typing import Annotated, Literal

import typer

from payments.cli.printing import console, exit_unless, print_table, yes

app = typer.Typer()


@app.command()
def check(
    store: Annotated[Literal["oltp"], typer.Argument(help="The store to check; there is one.")] = "oltp",
) -> None:
    """Check every invariant of the operational store, each with the rows it was asked of; exit 1 when one is broken."""
    from payments.systems.oltp.check import check as run

    results = run()
    print_table(
        f"Invariants of {store}", ["check", "holds", "detail"], [[r.name, yes(r.passed), r.detail] for r in results]
    )
    exit_unless(all(r.passed for r in results))


@app.command()
def gate() -> None:
    """Run the compliance gate on the staging models; exit 1 when a rule is broken."""
    from payments.compliance.gate import run_gate

    result = run_gate()
    rows: list[list[object]] = [[c.name, c.relation, yes(c.passed), c.rows, c.unexpected_count] for c in result.checks]
    print_table("Compliance gate", ["rule", "relation", "holds", "rows", "unexpected"], rows)
    exit_unless(result.passed)


@app.command()
def reconcile(
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON, with every sum.")] = False,
) -> None:
    """Compare rows, checksums and money per currency of every entity in all stores; exit 1 on a difference."""
    from payments.compliance.reconcile import reconcile as run

    result = run()
    if as_json:
        typer.echo(result.as_json())
    else:
        print_table("Rows, store by store", result.header(), [list(row) for row in result.matrix()])
        print_table("Captured, in minor units", result.header(), [list(row) for row in result.captured()])
        for note in result.notes:
            console.print(note, soft_wrap=True, markup=False, highlight=False)
        for line in result.differences:
            console.print(line, style="red", soft_wrap=True, markup=False, highlight=False)
    exit_unless(not result.differences)


@app.command()
def digest() -> None:
    """Compare the marts of the DuckDB and the PostgreSQL warehouse, model by model; exit 1 on a difference."""
    from payments.digest import compare

    comparisons = compare()
    rows: list[list[object]] = [
        [c.model, c.duckdb.rows, c.duckdb.checksum, c.postgres.rows, c.postgres.checksum, yes(c.equal)]
        for c in comparisons
    ]
    print_table("Digests", ["model", "duckdb rows", "duckdb", "postgres rows", "postgres", "equal"], rows)
    exit_unless(all(c.equal for c in comparisons))


@app.command()
def mutate(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models whose tests are tried; all marts by default.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Take so many changes of each model.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed that draws them.")] = 0,
    floor: Annotated[
        int, typer.Option(min=0, max=100, help="Exit 1 when tests notice a smaller share, in percent.")
    ] = 85,
) -> None:
    """Change the SQL of marts in one small place at a time, and print which share of the changes tests notice."""
    from payments.mutation.trial import try_tests

    trials = list(try_tests(models or (), sample, seed))
    missed = [trial for trial in trials if trial.caught_by is None]
    for trial in missed:
        console.print(f"{trial.model} {trial.mutant}", soft_wrap=True, markup=False, highlight=False)
    names = sorted({trial.model for trial in trials})
    rows: list[list[object]] = []
    for name in [*names, "all"]:
        tried = sum(trial.model == name for trial in trials) if name != "all" else len(trials)
        left = sum(trial.model == name for trial in missed) if name != "all" else len(missed)
        rows.append([name, tried, tried - left, f"{100 * (tried - left) / tried:.1f}" if tried else "none"])
    print_table("Changes that tests notice", ["model", "changes", "noticed", "percent"], rows)
    exit_unless(100 * (len(trials) - len(missed)) >= floor * len(trials))

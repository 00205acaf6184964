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

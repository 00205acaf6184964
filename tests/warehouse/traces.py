"""Traces rows of every mart of a built warehouse, and says what does not add up."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from payments.digest import Target
from payments.trace.plan import declared
from payments.trace.rows import Trace, Tracer, tracer


def faults_of_traces(target: Target, manifest: Path, marts: Iterable[str]) -> list[str]:
    """What is wrong with the traces of some rows of each mart, that is not empty.

    The rows are those in which a declared figure is largest, so a figure that no trace finds is found in no row.
    """
    faults: list[str] = []
    with tracer(target, manifest) as found:
        for mart in marts:
            trace = found.follow(mart, _rows_with_figures(found, mart), limit=1)
            faults += [f"{mart}: {fault}" for fault in faults_of(trace)]
            if not trace.raw and not any(step.is_seed for step in trace.steps) and declared()[mart]:
                faults += [] if trace.batches else [f"{mart}: ends nowhere"]
    return faults


def faults_of(trace: Trace) -> list[str]:
    """What does not hold in a trace."""
    figures = [figure for step in trace.steps for figure in step.figures if not figure.holds]
    found: dict[str, int] = defaultdict(int)
    for batch in trace.batches:
        found[f"{batch.source}.{batch.entity}"] += batch.rows if batch.files else 0
    return [
        *(f"{f.model}.{f.name} is {f.told}, {f.measure} of {f.upstream} is {f.found}" for f in figures),
        *(f"{raw.expected} versions of {raw.relation}, {raw.count} raw rows" for raw in trace.raw if not raw.holds),
        *(f"no commit record of {batch}" for batch in trace.missing),
        *(f"no file of {raw.relation}" for raw in trace.raw if found[raw.relation] < raw.count),
    ]


def _rows_with_figures(found: Tracer, mart: str) -> str:
    """The condition for the rows of a mart in which each of its figures is largest; its key is its first column."""
    place = found.place(mart)
    key = found.con.execute(f"describe {place}").fetchall()[0][0]
    figures = {figure for origin in declared()[mart].values() for figure in origin.figures} or {"1"}
    largest = [
        f"(select {key} from {place} order by {figure} + 0 desc nulls last, {key} limit 1)" for figure in figures
    ]
    return f"{key} in ({', '.join(largest)})"

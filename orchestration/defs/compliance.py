"""The gate between staging and everything that is built from it."""

from collections.abc import Iterator

import dagster as dg

from orchestration.dbt_project import GATE
from orchestration.defs.warehouse import dbt_staging
from payments.compliance.gate import run_gate


@dg.asset(
    key=GATE,
    deps=[key for key in dbt_staging.keys if key.path[-1].startswith("stg_")],
    group_name="compliance",
    kinds={"greatexpectations"},
    check_specs=[
        dg.AssetCheckSpec("every_rule_holds", asset=GATE, description="No compliance rule is broken.", blocking=True)
    ],
)
def gate() -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Run the Great Expectations suite on staging; a broken rule stops everything behind it."""
    result = run_gate()
    broken = [f"{c.name} on {c.relation}: {c.unexpected_count} of {c.rows} rows" for c in result.checks if not c.passed]
    yield dg.MaterializeResult(metadata={"rules": len(result.checks), "broken": dg.MetadataValue.json(broken)})
    yield dg.AssetCheckResult(
        check_name="every_rule_holds", passed=result.passed, metadata={"broken": dg.MetadataValue.json(broken)}
    )

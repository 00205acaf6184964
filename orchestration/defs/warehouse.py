"""The dbt project as assets: every model, seed and snapshot is one, every data test a check of it."""

import json
from collections.abc import Iterator

import dagster as dg
from dagster_dbt import DbtCliResource, dbt_assets

from orchestration.dbt_project import PlatformTranslator, load_project
from payments.compliance.reconcile import reconcile

project = load_project()
translator = PlatformTranslator()

# The scores come back from the document store after everything else was built.
SCORES = "stg_documents__fraud_scores+"
STAGING = "resource_type:seed path:models/staging"


def source_tables(source: str) -> list[str]:
    """Return the names of the tables of a dbt source."""
    manifest = json.loads(project.manifest_path.read_text())
    return [node["name"] for node in manifest["sources"].values() if node["source_name"] == source]


def _build(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[object]:
    # A test that reads two layers runs with the later one, where everything that it reads is built. In the folder that
    # dbt itself uses, dbt finds the project parsed.
    command = ["build", "--indirect-selection", "buildable"]
    yield from dbt.cli(command, context=context, target_path=project.project_dir / project.target_path).stream()


@dbt_assets(
    name="dbt_staging",
    manifest=project.manifest_path,
    project=project,
    select=STAGING,
    exclude=SCORES,
    dagster_dbt_translator=translator,
)
def dbt_staging(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[object]:
    """Build the reference seeds and one staging model for each source table."""
    yield from _build(context, dbt)


@dbt_assets(
    name="dbt_marts",
    manifest=project.manifest_path,
    project=project,
    exclude=f"{STAGING} {SCORES}",
    dagster_dbt_translator=translator,
)
def dbt_marts(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[object]:
    """Build what stands behind the gate: intermediate models, marts, features and snapshots."""
    yield from _build(context, dbt)


@dbt_assets(
    name="dbt_scores", manifest=project.manifest_path, project=project, select=SCORES, dagster_dbt_translator=translator
)
def dbt_scores(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[object]:
    """Build the fraud scores that came back from the document store."""
    yield from _build(context, dbt)


@dg.asset_check(asset=dg.AssetKey(["fct_payments"]), blocking=True)
def captured_money_reconciles() -> dg.AssetCheckResult:
    """Rows, content and money per currency are the same in PostgreSQL, raw zone, staging, marts and document store."""
    result = reconcile()
    return dg.AssetCheckResult(
        passed=not result.differences,
        metadata={
            "differences": dg.MetadataValue.json(list(result.differences)),
            "notes": dg.MetadataValue.json(list(result.notes)),
            "rows": dg.MetadataValue.json([dict(zip(result.header(), row, strict=True)) for row in result.matrix()]),
        },
    )

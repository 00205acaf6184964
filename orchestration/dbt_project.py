"""The dbt project as Dagster sees it: its manifest, kept fresh, and how a dbt resource becomes an asset."""

import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtProject

from payments.errors import UsageError
from payments.settings import PROJECT_ROOT

GATE = dg.AssetKey(["compliance", "gate"])
RETURNED_SCORES = "stg_documents__fraud_scores"
PICTURE = re.compile(r"\s*!\[[^]]*\]\([^)]*\)")
DBT_FOLDERS = ("models", "seeds", "macros", "snapshots", "analyses", "data_tests")


def _is_stale(project: DbtProject) -> bool:
    """Tell whether a file of the dbt project is younger than the manifest."""
    if not project.manifest_path.exists():
        return True
    parsed_at = project.manifest_path.stat().st_mtime
    files = [path for folder in DBT_FOLDERS for path in (PROJECT_ROOT / folder).rglob("*") if path.is_file()]
    files += [PROJECT_ROOT / "dbt_project.yml", PROJECT_ROOT / "profiles.yml"]
    return any(path.stat().st_mtime > parsed_at for path in files)


def load_project() -> DbtProject:
    """Return the dbt project of the repository root; its manifest is made anew when missing or older than its files."""
    project = DbtProject(project_dir=PROJECT_ROOT, profiles_dir=PROJECT_ROOT)
    if _is_stale(project):
        run_dbt("parse")
    return project


def run_dbt(*command: str) -> None:
    """Run dbt on the project of the repository root, in a process of its own: dbt keeps the warehouse open in its own.

    Raises UsageError when the command fails; dbt has then printed why.
    """
    where = ["--project-dir", str(PROJECT_ROOT), "--profiles-dir", str(PROJECT_ROOT)]
    dbt = [sys.executable, "-c", "from dbt.cli.main import cli; cli()", "--quiet"]
    if subprocess.run([*dbt, *command, *where], check=False).returncode:
        raise UsageError(f"dbt {' '.join(command)} failed: see above, and logs/dbt.log")


class PlatformTranslator(DagsterDbtTranslator):
    """Groups dbt assets by layer and puts the compliance gate between staging and what is built from it."""

    def __init__(self) -> None:
        super().__init__(DagsterDbtTranslatorSettings(enable_source_tests_as_checks=True))

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """Name the group after the layer: staging, intermediate, marts, features, snapshots or reference.

        The returned scores belong to the fraud group: so the groups form no cycle and the graph reads left to right.
        """
        if dbt_resource_props["name"] == RETURNED_SCORES:
            return "fraud"
        match dbt_resource_props["resource_type"]:
            case "seed":
                return "reference"
            case "snapshot":
                return "snapshots"
            case _:
                return str(dbt_resource_props["fqn"][1])

    def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """Leave out pictures: they stand on the docs site."""
        return PICTURE.sub("", super().get_description(dbt_resource_props))

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        """Name an asset after the table of its dbt model, a source after its source and table."""
        if dbt_resource_props["resource_type"] == "source":
            return dg.AssetKey([dbt_resource_props["source_name"], dbt_resource_props["name"]])
        return dg.AssetKey([dbt_resource_props["alias"]])

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        """Add the gate to what a model depends on when it reads a staging model, or what landed itself."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        props = self.get_resource_props(manifest, unique_id)
        reads_landed = any(
            parent.startswith("source.") or (parent.startswith("model.") and _layer(manifest, parent) == "staging")
            for parent in props.get("depends_on", {}).get("nodes", [])
        )
        is_gated = reads_landed and props["resource_type"] in {"model", "snapshot"} and props["fqn"][1] != "staging"
        return spec.merge_attributes(deps=[dg.AssetDep(GATE)]) if is_gated else spec


def _layer(manifest: Mapping[str, Any], model: str) -> str:
    return str(manifest["nodes"][model]["fqn"][1])

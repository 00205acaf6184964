"""Whoever builds on a mart finds who answers for it, and who else does."""

import json
from typing import Any

import pytest

from tests.dbt_project import Dbt

Nodes = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def manifest(dbt: Dbt) -> dict[str, Any]:
    """The manifest of the project as it stands."""
    found: dict[str, Any] = json.loads(dbt.manifest().read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def marts(manifest: dict[str, Any]) -> Nodes:
    """The marts."""
    return {
        key: node for key, node in manifest["nodes"].items() if node["path"].startswith("marts/") and is_model(node)
    }


def is_model(node: dict[str, Any]) -> bool:
    """Whether a node is a model."""
    return bool(node["resource_type"] == "model")


def test_every_model_has_a_group_with_an_owner(manifest: dict[str, Any]) -> None:
    owners = {group["name"]: group["owner"]["email"] for group in manifest["groups"].values()}
    without = [node["name"] for node in manifest["nodes"].values() if is_model(node) and node["group"] not in owners]
    assert not without
    assert all(owners.values())


def test_what_no_other_mart_reads_is_in_an_exposure(manifest: dict[str, Any], marts: Nodes) -> None:
    def is_read(mart: str) -> bool:
        readers = manifest["child_map"][mart]
        return any(reader.startswith("exposure.") or reader in marts for reader in readers)

    latest = [mart for mart, node in marts.items() if node["version"] == node["latest_version"]]
    assert latest
    assert [mart for mart in latest if not is_read(mart)] == []


def test_an_older_version_says_until_when_and_how_to_move(marts: Nodes) -> None:
    older = [node for node in marts.values() if node["version"] != node["latest_version"]]
    assert [node["alias"] for node in older] == ["agg_revenue_daily_v1"]
    for node in older:
        assert node["deprecation_date"]
        assert node["description"].startswith("Deprecated: ")
        assert "To move, " in node["description"]

"""Models, keys and relationships of the warehouse, read from dbt's ``target/manifest.json``."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from payments.diagrams.catalogue import shorten_type
from payments.diagrams.model import Column, Entity, Reference
from payments.errors import UsageError

KINDS = {
    "dim": "dimensions",
    "fct": "facts",
    "agg": "aggregates",
    "bridge": "bridges",
    "hist": "history",
}
"""The group of a mart by the prefix of its name."""


def load_manifest(path: Path) -> dict[str, Any]:
    """Return the parsed manifest.

    Raises:
        UsageError: there is none yet.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist: run `dbt parse` (or `dbt build`) first")
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return manifest


def models_of_layer(manifest: Mapping[str, Any], layer: str) -> list[str]:
    """Return the names of the models below ``models/<layer>``, sorted."""
    return sorted(node["alias"] for node in _models(manifest, layer).values())


def read_marts(manifest: Mapping[str, Any], layer: str = "marts") -> list[Entity]:
    """Return the models of one layer: columns with data types, primary keys, and references that a test proves.

    The primary key is the declared constraint, or else the column that is tested to be unique and not null.
    Entities are ordered by kind (dimensions first), then by name.
    """
    models = _models(manifest, layer)
    tests = _tests(manifest, models)
    entities = [_entity(node, tests[unique_id], models) for unique_id, node in models.items()]
    order = list(KINDS.values())
    return sorted(entities, key=lambda entity: (_position(order, entity.group), entity.name))


def _models(manifest: Mapping[str, Any], layer: str) -> dict[str, Mapping[str, Any]]:
    return {
        unique_id: node
        for unique_id, node in manifest["nodes"].items()
        if node["resource_type"] == "model" and layer in node["fqn"][1:-1]
    }


def _tests(manifest: Mapping[str, Any], models: Mapping[str, Any]) -> defaultdict[str, list[Mapping[str, Any]]]:
    found: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for unique_id in sorted(manifest["nodes"]):
        node = manifest["nodes"][unique_id]
        if node["resource_type"] == "test" and node.get("test_metadata") and node.get("attached_node") in models:
            found[node["attached_node"]].append(node)
    return found


def _entity(node: Mapping[str, Any], tests: Sequence[Mapping[str, Any]], models: Mapping[str, Any]) -> Entity:
    required = _required_columns(node, tests)
    columns = tuple(
        Column(column["name"], shorten_type(column.get("data_type") or "?"), column["name"] not in required)
        for column in node["columns"].values()
    )
    return Entity(
        group=KINDS.get(node["alias"].partition("_")[0], "other"),
        name=node["alias"],
        columns=columns,
        primary_key=_primary_key(node, tests),
        references=_references(columns, tests, models),
        comment=node.get("description", ""),
    )


def _constraints(node: Mapping[str, Any], kind: str) -> list[tuple[str, ...]]:
    """Return the columns of each declared constraint of that kind, on the model or on a column."""
    on_model = [tuple(item.get("columns") or ()) for item in node.get("constraints", []) if item["type"] == kind]
    on_columns = [
        (column["name"],)
        for column in node["columns"].values()
        if any(item["type"] == kind for item in column.get("constraints", []))
    ]
    return on_model + on_columns


def _tested(tests: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return [test["column_name"] for test in tests if test["test_metadata"]["name"] == name and test.get("column_name")]


def _required_columns(node: Mapping[str, Any], tests: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    declared = [column for kind in ("not_null", "primary_key") for key in _constraints(node, kind) for column in key]
    named = [
        column
        for test in tests
        if test["test_metadata"]["name"] == "required_columns"
        for column in test["test_metadata"]["kwargs"]["columns"]
    ]
    return frozenset([*declared, *_tested(tests, "not_null"), *named])


def _primary_key(node: Mapping[str, Any], tests: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    declared = _constraints(node, "primary_key")
    if declared:
        return declared[0]
    not_null = set(_tested(tests, "not_null"))
    unique = set(_tested(tests, "unique")) & not_null
    return next(((name,) for name in node["columns"] if name in unique), ())


def _references(
    columns: Sequence[Column], tests: Sequence[Mapping[str, Any]], models: Mapping[str, Any]
) -> tuple[Reference, ...]:
    order = [column.name for column in columns]
    found = set()
    for test in tests:
        if test["test_metadata"]["name"] != "relationships" or not test.get("column_name"):
            continue
        arguments = test["test_metadata"]["kwargs"]
        parents = [name for name in test["depends_on"]["nodes"] if name in models and name != test["attached_node"]]
        target = models[parents[0] if parents else test["attached_node"]]
        found.add(Reference((test["column_name"],), target["alias"], (arguments["field"],)))
    return tuple(sorted(found, key=lambda reference: (_position(order, reference.columns[0]), reference.target)))


def _position(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)

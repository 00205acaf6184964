"""The document model: collections with their fields and references, from the files that define them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from payments.diagrams.model import Column, Entity, Reference
from payments.systems.documents.definitions import CollectionDefinition, Index

_TYPES = {"int": "integer", "long": "integer", "bool": "boolean", "binData": "binary", "date": "timestamp"}


def read_collections(definitions: Sequence[CollectionDefinition]) -> list[Entity]:
    """Return one entity for each collection; a reference leads to a collection or names something in another store."""
    return [_entity(definition) for definition in definitions]


def other_stores(entities: Sequence[Entity]) -> frozenset[str]:
    """Return what the collections refer to outside of the document store."""
    inside = {entity.name for entity in entities}
    return frozenset(
        reference.target for entity in entities for reference in entity.references if reference.target not in inside
    )


def describe_collections(definitions: Sequence[CollectionDefinition]) -> str:
    """Return the design of the document model as a Markdown page: why each collection has the shape that it has."""
    pages = "\n".join(_section(definition) for definition in definitions)
    return (
        "# Document model\n\n"
        "Generated from `payments/systems/documents/collections/*.yml`, which also make the validators and indexes\n"
        "(`payments documents apply`). [The diagram](document_model.svg) shows the fields.\n\n"
        f"{pages}"
    )


def _entity(definition: CollectionDefinition) -> Entity:
    return Entity(
        group="documents",
        name=definition.collection,
        columns=tuple(_columns(definition)),
        primary_key=("_id",),
        references=tuple(
            Reference((field,), _target(target), ("_id",)) for field, target in definition.references.items()
        ),
        comment=definition.purpose,
    )


def _target(reference: str) -> str:
    """Return what a reference leads to; what follows the comma says why, or when there is none."""
    return reference.partition(",")[0]


def _columns(definition: CollectionDefinition) -> Iterator[Column]:
    """Yield the fields of all schema versions; one that a version lacks may be missing."""
    versions = {version: definition.properties(version) for version in definition.versions}
    rules = {name: rule for properties in versions.values() for name, rule in properties.items()}
    for name, rule in rules.items():
        always = all(
            name in properties and name in definition.required(version) for version, properties in versions.items()
        )
        yield from _fields(name, rule, always)


def _fields(name: str, rule: Mapping[str, Any], is_required: bool) -> Iterator[Column]:
    declared = rule.get("bsonType", "string")  # an enumeration here lists strings
    names = [declared] if isinstance(declared, str) else list(declared)
    kinds = dict.fromkeys(_TYPES.get(kind, kind) for kind in names if kind != "null")
    yield Column(name, "/".join(kinds), is_nullable="null" in names or not is_required)
    inner = rule.get("items", {}) if "array" in names else rule
    mark = "[]" if "array" in names else ""
    for field, nested in inner.get("properties", {}).items():
        yield from _fields(f"{name}{mark}.{field}", nested, field in inner["required"])


def _section(definition: CollectionDefinition) -> str:
    retention = definition.retention
    days = "no end" if retention.days is None else f"{retention.days} days"
    rows = [
        ("pattern", definition.pattern),
        ("schema versions", ", ".join(str(version) for version in sorted(definition.versions))),
        ("lands", "yes" if definition.is_landed else "no"),
        ("retention", f"{days}: {retention.why}"),
        ("shard key", f"`{_keys(definition.shard_key.keys)}`: {definition.shard_key.why}"),
        ("owner", definition.owner),
        *((f"owner of `{field}`", owner) for field, owner in definition.owners.items()),
        *((f"embeds `{field}`", why) for field, why in definition.embeds.items()),
        *((f"refers by `{field}`", target) for field, target in definition.references.items()),
        *((f"index `{index.name}`", _index(index)) for index in definition.all_indexes),
        *((f"`{field}` is not screened", why) for field, why in definition.unscreened.items()),
    ]
    lines = "\n".join(f"| {what} | {text.strip()} |" for what, text in rows)
    return f"## {definition.collection}\n\n{definition.purpose.strip()}\n\n| | |\n|---|---|\n{lines}\n"


def _index(index: Index) -> str:
    kind = (", unique" if index.unique else "") + ("" if index.partial is None else ", partial")
    return f"`{_keys(index.keys)}`{kind}: {index.serves}"


def _keys(keys: Mapping[str, int | str]) -> str:
    """Return keys as text: a name alone goes up."""
    orders = {1: "", -1: " down"}
    return ", ".join(
        f"{name}{orders[order] if isinstance(order, int) else f' {order}'}" for name, order in keys.items()
    )

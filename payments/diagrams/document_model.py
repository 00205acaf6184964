"""The document model: collections with their fields and references, from the files that define them."""

from collections.abc import Mapping, Sequence
from typing import Any

from payments.diagrams.model import Column, Entity, Reference
from payments.systems.documents.definitions import CollectionDefinition

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


def _entity(definition: CollectionDefinition) -> Entity:
    schema = definition.validator["$jsonSchema"]
    required = frozenset(schema.get("required", ()))
    return Entity(
        group="documents",
        name=definition.collection,
        columns=tuple(_field(name, rule, name in required) for name, rule in schema["properties"].items()),
        primary_key=("_id",),
        # What follows the comma says when there is none.
        references=tuple(
            Reference((field,), target.partition(",")[0], ("_id",)) for field, target in definition.references.items()
        ),
        comment=definition.purpose,
    )


def _field(name: str, rule: Mapping[str, Any], is_required: bool) -> Column:
    declared = rule.get("bsonType", "string")  # an enumeration here lists strings
    names = [declared] if isinstance(declared, str) else list(declared)
    kinds = dict.fromkeys(_TYPES.get(kind, kind) for kind in names if kind != "null")
    return Column(name, "/".join(kinds), is_nullable="null" in names or not is_required)

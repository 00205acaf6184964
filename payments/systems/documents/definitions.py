"""The collections of the document store, as their files define them: one YAML file each, with everything decided in it.

A file says what the collection holds and why it has this shape, who owns each field, what the server refuses, how it
is read, how it spreads over machines and how long documents stay. The validator is made from it: the fields of each
schema version, the fields that all documents have, and the ban on card numbers.
"""

from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from payments.errors import UsageError

FOLDER = Path(__file__).parent / "collections"

CARD_LIKE = r"(^|[^0-9A-Za-z])[2-6]([ -]?[0-9]){12,18}([^0-9A-Za-z]|$)"
"""What a text field may not hold: 13 to 19 digits that begin as card numbers do (ISO/IEC 7812), with separators.

A server cannot compute a check digit in a validator, so this refuses more than card numbers; the landing writer and the
inbox screen with the check digit as well.
"""
_MOST = 999_999_999_999  # a whole number of more digits could be a card number
_NUMBERS = {"int", "long", "double"}
FREE_DEPTH = 3  # each level more doubles what a server goes through for every document


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Index(_Strict):
    """An index: its keys in order (1 up, -1 down), what it holds, and the query that it serves."""

    name: str
    keys: dict[str, int]
    serves: str
    unique: bool = False
    partial: dict[str, Any] | None = None
    expire_after_seconds: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What the server is told beside the keys."""
        return {
            "name": self.name,
            **({"unique": True} if self.unique else {}),
            **({} if self.partial is None else {"partialFilterExpression": self.partial}),
            **({} if self.expire_after_seconds is None else {"expireAfterSeconds": self.expire_after_seconds}),
        }


class ShardKey(_Strict):
    """How the collection spreads over machines (1 ranged, ``hashed``), and why so."""

    keys: dict[str, int | str]
    why: str


class Retention(_Strict):
    """How many days a document stays, None for as long as it is wanted, and why."""

    days: int | None
    why: str

    def end(self, moment: datetime) -> datetime | None:
        """Return when a document of a moment may go: ``expire_at``; None for no end."""
        return None if self.days is None else moment + timedelta(days=self.days)


class SchemaVersion(_Strict):
    """The fields of one schema version, in JSON Schema with ``bsonType``; all are required but the optional ones."""

    properties: dict[str, Any]
    optional: tuple[str, ...] = ()


class CollectionDefinition(_Strict):
    """One collection.

    ``embeds`` and ``references`` say why a thing stands within the document or elsewhere; ``owner`` writes every field
    that ``owners`` gives to nobody else; ``bucket`` names the GridFS bucket whose files the documents refer to;
    ``unscreened`` lists text fields that the ban on card numbers leaves out, each with the reason.
    """

    collection: str
    purpose: str
    pattern: str
    is_landed: bool = True
    id_pattern: str
    embeds: dict[str, str] = {}
    references: dict[str, str] = {}
    owner: str
    owners: dict[str, str] = {}
    retention: Retention
    shard_key: ShardKey
    indexes: tuple[Index, ...] = ()
    versions: dict[int, SchemaVersion]
    bucket: str | None = None
    unscreened: dict[str, str] = {}

    @property
    def all_indexes(self) -> tuple[Index, ...]:
        """The indexes of the file and the one by which documents expire."""
        if self.retention.days is None:
            return self.indexes
        expiry = Index(
            name="by_expiry",
            keys={"expire_at": 1},
            serves="the server removes what has expired; a document on hold has no such moment",
            expire_after_seconds=0,
        )
        return (*self.indexes, expiry)

    def properties(self, version: int) -> dict[str, Any]:
        """Return the JSON Schema of every field of a schema version, the ban on card numbers included."""
        own = {
            name: schema if name in self.unscreened else guarded(schema)
            for name, schema in self.versions[version].properties.items()
        }
        return {
            "_id": guarded({"bsonType": "string", "pattern": self.id_pattern}),
            **own,
            **({} if self.retention.days is None else {"expire_at": {"bsonType": ["date", "null"]}}),
            **({"written_at": {"bsonType": "date"}} if self.is_landed else {}),
            "schema_version": {"bsonType": ["int", "long"], "enum": [version]},
        }

    def required(self, version: int) -> list[str]:
        """Return the fields that a document of a schema version must have."""
        return [name for name in self.properties(version) if name not in self.versions[version].optional]

    @property
    def validator(self) -> dict[str, Any]:
        """The validator of the server: exactly one schema version must fit."""
        schemas = [
            {
                "additionalProperties": False,
                "required": self.required(version),
                "properties": self.properties(version),
            }
            for version in sorted(self.versions)
        ]
        schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
        return {"$jsonSchema": {"bsonType": "object", **schema}}


def guarded(schema: dict[str, Any], depth: int = FREE_DEPTH) -> dict[str, Any]:
    """Return a JSON Schema that also refuses card numbers, in texts, numbers and names of fields.

    An object with named fields takes no others; an object without is free in shape, up to ``depth`` levels deep.
    """
    if "enum" in schema:
        return schema
    kinds = {schema["bsonType"]} if isinstance(schema["bsonType"], str) else set(schema["bsonType"])
    rules = dict(schema)
    if "number" in kinds:  # that would let decimals in, whose bounds not every server checks
        kinds = kinds - {"number"} | _NUMBERS
        rules["bsonType"] = sorted(kinds)
    forbidden: list[dict[str, Any]] = []
    if "string" in kinds:
        forbidden.append({"bsonType": "string", "pattern": CARD_LIKE})
    if kinds & _NUMBERS:
        rules = {"minimum": -_MOST, "maximum": _MOST, **rules}
    if "double" in kinds:
        # What is no number is within both bounds for a server that only asks whether it lies outside of them.
        forbidden.append({"bsonType": "double", "minimum": rules["maximum"], "exclusiveMinimum": True})
    if forbidden:
        rules["not"] = forbidden[0] if len(forbidden) == 1 else {"anyOf": forbidden}
    if "array" in kinds:
        rules["items"] = guarded(schema["items"], depth) if "items" in schema else _free(depth)
    if "object" in kinds:
        if "properties" in schema:
            rules["properties"] = {name: guarded(inner, depth) for name, inner in schema["properties"].items()}
            rules.setdefault("required", list(schema["properties"]))
            rules["additionalProperties"] = False
        else:
            rules["additionalProperties"] = _free(depth)
            rules["patternProperties"] = {CARD_LIKE: {"not": {}}}
    return rules


def _free(depth: int) -> dict[str, Any]:
    # One schema for all types, as each keyword concerns one of them: servers go through a validator for each document.
    kinds = ["bool", "date", "null", "string", *sorted(_NUMBERS)]
    return guarded({"bsonType": [*kinds, "object", "array"] if depth > 0 else kinds}, depth - 1)


@cache
def collection_definitions(folder: Path = FOLDER) -> tuple[CollectionDefinition, ...]:
    """Return the definitions in a folder, ordered by name.

    Raises:
        UsageError: a file is no definition, or bears another name than its collection.
    """
    found = []
    for path in sorted(folder.glob("*.yml")):
        try:
            definition = CollectionDefinition.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (yaml.YAMLError, ValidationError) as error:
            raise UsageError(f"{path} does not define a collection: {str(error).splitlines()[0]}.") from error
        if definition.collection != path.stem:
            raise UsageError(f"{path} defines {definition.collection}: name the file after its collection.")
        found.append(definition)
    return tuple(found)


def definition_of(collection: str) -> CollectionDefinition:
    """Return the definition of a collection.

    Raises:
        UsageError: no file defines it.
    """
    known = {definition.collection: definition for definition in collection_definitions()}
    if collection not in known:
        raise UsageError(f"No such collection: {collection} (there are {', '.join(known)}).")
    return known[collection]

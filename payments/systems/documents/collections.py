"""The collections of the document store: one YAML file each says what it holds, what is refused and what is indexed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pymongo.database import Database

from payments.errors import UsageError
from payments.systems.documents.client import database

FOLDER = Path(__file__).parent / "collections"


class Index(BaseModel):
    """An index: its name, its keys in order (1 up, -1 down), and what else the server knows about indexes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    keys: dict[str, int]
    unique: bool = False


class CollectionDefinition(BaseModel):
    """One collection: its validator refuses documents; references and shard key tell how it relates and spreads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    collection: str
    purpose: str
    references: dict[str, str]
    shard_key: dict[str, int]
    indexes: tuple[Index, ...]
    validator: dict[str, Any]


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


def apply_collections(folder: Path = FOLDER) -> list[str]:
    """Create missing collections and indexes and bring validators in line; documents are never touched.

    Returns:
        What changed, one line each; empty when everything was in place.
    """
    store = database()
    existing = {found["name"]: found.get("options", {}) for found in store.list_collections()}
    changes: list[str] = []
    for definition in collection_definitions(folder):
        changes += _apply(store, definition, existing.get(definition.collection))
    return changes


@contextmanager
def indexes_afterwards(name: str, folder: Path = FOLDER) -> Iterator[None]:
    """Let the body fill an empty collection without its indexes and build them at once afterwards, also after an error.

    The embedded server keeps an index up to date at four times the cost of building it. A collection that holds
    documents keeps its indexes. After a kill in the body ``apply_collections`` builds what is missing.
    """
    store = database()
    definition = next(found for found in collection_definitions(folder) if found.collection == name)
    if store[name].find_one({}, {"_id": 1}) is None:
        for index in store[name].index_information().keys() & {index.name for index in definition.indexes}:
            store[name].drop_index(index)
    try:
        yield
    finally:
        _apply_indexes(store, definition)


def _apply(
    store: Database[dict[str, Any]], definition: CollectionDefinition, options: Mapping[str, Any] | None
) -> list[str]:
    name = definition.collection
    rules: dict[str, Any] = {
        "validator": definition.validator,
        "validationLevel": "strict",
        "validationAction": "error",
    }
    changes = []
    if options is None:
        store.create_collection(name, **rules)
        changes.append(f"{name}: created")
    elif any(options.get(rule) != value for rule, value in rules.items()):
        store.command("collMod", name, **rules)
        changes.append(f"{name}: validator changed")
    return changes + _apply_indexes(store, definition)


def _apply_indexes(store: Database[dict[str, Any]], definition: CollectionDefinition) -> list[str]:
    name = definition.collection
    changes = []
    present = store[name].index_information()
    for index in definition.indexes:
        keys = list(index.keys.items())
        found = present.get(index.name)
        if found is not None and found["key"] == keys and bool(found.get("unique")) == index.unique:
            continue
        if found is not None:
            store[name].drop_index(index.name)
        store[name].create_index(keys, name=index.name, unique=index.unique)
        changes.append(f"{name}: index {index.name} {'made anew' if found else 'made'}")
    return changes

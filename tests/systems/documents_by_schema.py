"""Documents made from the files of the collections: valid ones are drawn, invalid ones are those, spoiled in one place.

Both follow the JSON Schema of the files, not the validator that is made from it. A keyword that they do not know is an
error, so that a new kind of rule is tested or stands out.
"""

import copy
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from bson import Binary, Decimal128, ObjectId, encode
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from payments.systems.documents.definitions import CARD_LIKE, FREE_DEPTH, CollectionDefinition, definition_of

Document = dict[str, Any]
Schema = dict[str, Any]
Values = st.SearchStrategy[Any]

_KEYWORDS = {
    "bsonType", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "items",
    "properties", "required",
}  # fmt: skip
_MOST = 999_999_999_999
_AT_ONCE = 100
_NAMES = ("a", "note", "is_new", "42", "2026-06-30", "two words", "é", "X_1")
_SCALARS = ["bool", "date", "null", "int", "long", "double", "string"]
# Test numbers of four networks (Luhn-valid), as people write them.
CARDS = (
    "4242424242424242",
    "4242 4242 4242 4242",
    "4242-4242-4242-4242",
    "3782 822463 10005",
    "6011111111111117",
    "paid with 5555555555554444, thank you",
)
_CARD_NUMBERS = (4242424242424242, 378282246310005, 5555555555554444.0)
_SAMPLES: dict[str, Any] = {
    "string": "some text",
    "int": 7,
    "long": 2**33,
    "double": 1.5,
    "bool": True,
    "date": datetime(2026, 6, 30, tzinfo=UTC),
    "null": None,
    "binData": b"\x01",
    "objectId": ObjectId("0123456789abcdef01234567"),
    "decimal": Decimal128("1.5"),
    "array": [],
    "object": {},
}


@dataclass(frozen=True)
class Spoiled:
    """An invalid document, and what was done to it."""

    how: str
    document: Document


def document_schema(definition: CollectionDefinition, version: int) -> Schema:
    """Return the JSON Schema of the documents of a schema version, as the file says it."""
    fields = {
        "_id": {"bsonType": "string", "pattern": definition.id_pattern},
        **definition.versions[version].properties,
        **({} if definition.retention.days is None else {"expire_at": {"bsonType": ["date", "null"]}}),
        **({"written_at": {"bsonType": "date"}} if definition.is_landed else {}),
        "schema_version": {"bsonType": ["int", "long"], "enum": [version]},
    }
    required = [name for name in fields if name not in definition.versions[version].optional]
    return {"bsonType": "object", "properties": fields, "required": required}


def valid_documents(definition: CollectionDefinition, version: int, count: int) -> list[Document]:
    """Draw so many different valid documents of a schema version, the same ones in each run."""
    return copy.deepcopy(_drawn_documents(definition.collection, version, max(count, _AT_ONCE))[:count])


@cache
def _drawn_documents(collection: str, version: int, count: int) -> list[Document]:
    schema = document_schema(definition_of(collection), version)
    fields = {name: _values(inner) for name, inner in schema["properties"].items()}
    if "expire_at" in fields:  # what has expired would be removed while the test looks
        fields["expire_at"] = st.none() | _moments(2090)
    return _drawn(_named_fields(fields, schema["required"]), count)


def _drawn(values: Values, count: int) -> list[Any]:
    """Return so many different values, or all there are."""
    found: dict[bytes, Any] = {}

    @settings(
        derandomize=True,
        max_examples=count + count // 5 + 20,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(values)
    def collect(value: Any) -> None:
        found.setdefault(encode({"": value}), value)

    collect()
    return list(found.values())[:count]


def _kinds(schema: Schema) -> set[str]:
    kinds = schema["bsonType"]
    found = {kinds} if isinstance(kinds, str) else set(kinds)
    return found - {"number"} | {"int", "long", "double"} if "number" in found else found


def _free(depth: int) -> Schema:
    return {"bsonType": _SCALARS + (["object", "array"] if depth > 0 else [])}


def _values(schema: Schema, depth: int = FREE_DEPTH) -> Values:
    unknown = schema.keys() - _KEYWORDS
    assert not unknown, f"teach this generator {', '.join(sorted(unknown))}"
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    return st.one_of([_of_kind(kind, schema, depth) for kind in sorted(_kinds(schema) - {"long"})])


def _of_kind(kind: str, schema: Schema, depth: int) -> Values:
    low, high = max(schema.get("minimum", -_MOST), -_MOST), min(schema.get("maximum", _MOST), _MOST)
    simple: dict[str, Callable[[], Values]] = {
        "bool": st.booleans,
        "null": st.none,
        "date": lambda: _moments(2020),
        "binData": lambda: st.binary(max_size=40),
        "string": lambda: _texts(schema),
        "int": lambda: st.integers(low, high),
        "double": lambda: st.floats(low, high, allow_nan=False, allow_infinity=False),
    }
    if kind in simple:
        return simple[kind]()
    if kind == "array":
        least = schema.get("minItems", 0)
        inner = _values(schema["items"], depth) if "items" in schema else _values(_free(depth), depth - 1)
        return st.lists(inner, min_size=least, max_size=min(schema.get("maxItems", least + 2), least + 2))
    assert kind == "object", f"teach this generator values of type {kind}"
    if "properties" in schema:
        fields = {name: _values(inner, depth) for name, inner in schema["properties"].items()}
        return _named_fields(fields, schema.get("required", list(fields)))
    return st.dictionaries(st.sampled_from(_NAMES), _values(_free(depth), depth - 1), max_size=2)


def _named_fields(fields: dict[str, Values], required: list[str]) -> Values:
    return st.fixed_dictionaries(
        {name: fields[name] for name in required},
        optional={name: values for name, values in fields.items() if name not in required},
    )


def _moments(year: int) -> Values:
    start = datetime(year, 1, 1, tzinfo=UTC)
    return st.integers(0, 9 * 365 * 86_400_000).map(lambda number: start + timedelta(milliseconds=number))


def _texts(schema: Schema) -> Values:
    # Texts are drawn once for all fields of a kind: drawing them from their pattern is what costs.
    return st.sampled_from(
        _some_texts(schema.get("pattern"), schema.get("minLength", 0), schema.get("maxLength", 10_000))
    )


@cache
def _some_texts(pattern: str | None, least: int, most: int) -> list[str]:
    letters = st.characters(min_codepoint=32, max_codepoint=0x24FF, exclude_categories=("Cs", "Cc"))
    if pattern is None:
        texts = st.text(letters, min_size=least, max_size=min(most, 20))
    else:
        texts = st.from_regex(pattern, alphabet=letters)
    # A pattern ends before a last line break too, which is not what anybody means.
    return _drawn(texts.filter(lambda text: least <= len(text) <= most and "\n" not in text and _is_harmless(text)), 40)


def _is_harmless(text: str) -> bool:
    return not re.search(CARD_LIKE, text)


@dataclass(frozen=True)
class _Node:
    """A place in a document: the way there, its schema, what stands there, and how deep free content may still go."""

    path: tuple[str | int, ...]
    schema: Schema
    value: Any
    depth: int
    is_screened: bool

    @property
    def name(self) -> str:
        return ".".join(map(str, self.path)) or "document"


def spoiled_documents(
    definition: CollectionDefinition, version: int, document: Document, others: dict[int, Document], seed: int
) -> Iterator[Spoiled]:
    """Yield invalid documents: a valid one of a schema version, changed in one place such that it breaks a rule.

    Args:
        definition: the collection.
        version: the schema version of `document`.
        document: a valid document.
        others: a valid document of each schema version.
        seed: decides which of many equal ways to break a rule are taken.
    """
    schema, draw = document_schema(definition, version), random.Random(seed)  # noqa: S311 (no secret)
    for node in _nodes(schema, document, definition.unscreened):
        for how, value in _broken(node, draw):
            yield Spoiled(f"{node.name}: {how}", _changed(document, node.path, value))
    for unknown in (0, -1, max(definition.versions) + 1, 2**40):
        yield Spoiled(f"schema version {unknown}", {**document, "schema_version": unknown})
    for other, theirs in others.items():
        wanted = document_schema(definition, other)
        for name in sorted(wanted["properties"].keys() - schema["properties"].keys() & theirs.keys()):
            if name in theirs:
                yield Spoiled(f"{name} of version {other}", {**document, name: theirs[name]})
        misses, strange = set(wanted["required"]) - document.keys(), document.keys() - wanted["properties"].keys()
        if misses or strange:
            yield Spoiled(f"called version {other}", {**document, "schema_version": other})


def _nodes(
    schema: Schema,
    value: Any,
    unscreened: dict[str, str],
    path: tuple[str | int, ...] = (),
    depth: int = FREE_DEPTH,
) -> Iterator[_Node]:
    yield _Node(path, schema, value, depth, not (path and path[0] in unscreened))
    if isinstance(value, dict):
        for name, inner in value.items():
            if "properties" in schema:
                yield from _nodes(schema["properties"][name], inner, unscreened, (*path, name), depth)
            else:
                yield from _nodes(_free(depth), inner, unscreened, (*path, name), depth - 1)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            if "items" in schema:
                yield from _nodes(schema["items"], inner, unscreened, (*path, place), depth)
            else:
                yield from _nodes(_free(depth), inner, unscreened, (*path, place), depth - 1)


def _changed(document: Document, path: tuple[str | int, ...], value: Any) -> Document:
    if not path:
        changed: Document = value
        return changed
    copied = copy.deepcopy(document)
    place: Any = copied
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return copied


def _broken(node: _Node, draw: random.Random) -> Iterator[tuple[str, Any]]:
    """Yield what may not stand in a place, with a word on why."""
    schema, value = node.schema, node.value
    if node.path:
        yield from _wrong_types(schema, draw)
        yield from _cards(node)
    if "enum" in schema:
        return
    kinds = _kinds(schema)
    if kinds & {"int", "long", "double"}:
        yield from _out_of_range(schema, kinds)
    if "string" in kinds:
        yield from _wrong_texts(schema)
    if isinstance(value, list):
        yield from _wrong_lengths(schema, value)
    if isinstance(value, dict):
        if "properties" in schema:
            for name in schema.get("required", list(schema["properties"])):
                yield f"without {name}", {key: inner for key, inner in value.items() if key != name}
            yield "with an unknown field", {**value, "unknown_field": 1}
            yield "with a field named as a card", {**value, CARDS[0]: 1}
        else:
            yield "too deep", {**value, "a": _nested(node.depth + 1)}
            yield "binary within", {**value, "a": {"b": Binary(b"\x01")}}


def _wrong_types(schema: Schema, draw: random.Random) -> Iterator[tuple[str, Any]]:
    if "enum" in schema:
        wrong = [kind for kind, sample in _SAMPLES.items() if sample not in schema["enum"]]
    else:
        wrong = [kind for kind in _SAMPLES if kind not in _kinds(schema)]
    for kind in draw.sample(wrong, min(4, len(wrong))):
        yield f"a value of type {kind}", copy.deepcopy(_SAMPLES[kind])


def _cards(node: _Node) -> Iterator[tuple[str, Any]]:
    schema = node.schema
    kinds = {"string"} if "enum" in schema else _kinds(schema)
    if not node.is_screened:
        return
    if "string" in kinds:
        for card in CARDS:
            yield "a card number", card
    if kinds & {"string", "int", "long", "double"}:
        for number in _CARD_NUMBERS:
            yield "a card number as a number", number
    if "object" in kinds and "properties" not in schema:
        yield "a card number as a name", {CARDS[1]: True}
        yield "a card number within", {"note": {"text": CARDS[2]} if node.depth > 0 else CARDS[2]}
        yield "a card number in a list", {"notes": ["none", CARDS[0]] if node.depth > 0 else CARDS[0]}
        yield "a card number as a name within", {"note": {CARDS[2]: None}}


def _out_of_range(schema: Schema, kinds: set[str]) -> Iterator[tuple[str, Any]]:
    low, high = schema.get("minimum", -_MOST), schema.get("maximum", _MOST)
    if kinds & {"int", "long"}:
        yield "too small", int(low) - 1
        yield "too large", int(high) + 1
    if "double" in kinds:
        yield "too small", float(low) - 0.5
        yield "too large", float(high) + 0.5
        yield "not a number", float("nan")
        yield "infinite", float("inf")


def _wrong_texts(schema: Schema) -> Iterator[tuple[str, Any]]:
    if "maxLength" in schema:
        start = "/" if re.search(schema.get("pattern", ""), "/") else "a"
        yield "too long a text", start * (schema["maxLength"] + 1)
    if schema.get("minLength"):
        yield "too short a text", "a" * (schema["minLength"] - 1)
    if "pattern" in schema:
        for text in ("", "!", "ch", "acct_", "DE!", "a b"):
            if not re.search(schema["pattern"], text):
                yield "a text of another pattern", text


def _wrong_lengths(schema: Schema, value: list[Any]) -> Iterator[tuple[str, Any]]:
    if value and "maxItems" in schema:
        yield "too many", [copy.deepcopy(value[0]) for _ in range(schema["maxItems"] + 1)]
    if schema.get("minItems"):
        yield "too few", value[: schema["minItems"] - 1]


def _nested(levels: int) -> Any:
    """Return a number within so many objects and lists, in turn."""
    found: Any = 1
    for level in range(levels):
        found = {"a": found} if level % 2 else [found]
    return found

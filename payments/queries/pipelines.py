"""The example queries of the document store: aggregation pipelines in ``analyses/documents``, one YAML file each.

A pipeline names a parameter as ``{$param: name}``. Its first stage is a ``$match`` that one index serves, and it joins
other collections only by ``$lookup`` on a field that leads an index there; :mod:`payments.queries.plans`
checks both. Further conditions stand in a second ``$match``: the embedded server finds an index only for a filter that
it covers. Fields of an array's elements are read by ``$map``, as the embedded server follows no path through an array.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pymongo.database import Database
from pymongo.errors import PyMongoError

from payments.errors import UsageError
from payments.queries.answers import Answer, refuse_strangers
from payments.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "analyses" / "documents"
Pipeline = list[dict[str, Any]]
Value = str | int | datetime


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Lookup(_Strict):
    collection: str = Field(alias="in")
    where: dict[str, Any] = {}


class MostCommon(_Lookup):
    """The value that a field has in most documents (of equals the smallest): the busiest merchant, say."""

    most_common: str


class Latest(_Lookup):
    """The largest value of a field."""

    latest: str


class EndOfLastDay(_Lookup):
    """The midnight (UTC) after the latest moment of a field."""

    end_of_last_day: str


class DaysBefore(_Strict):
    """So many days before another parameter, a moment."""

    days: int
    before: str


class Below(_Strict):
    """So much less than another parameter, a whole number."""

    less: int
    than: str


Lookup = MostCommon | Latest | EndOfLastDay
Relative = DaysBefore | Below
Default = Lookup | Relative | int | str


class Parameter(_Strict):
    """What a query may be told: its type, what it means, and what stands for it when nobody says.

    A default that is looked up reads a whole collection; the query itself does not.
    """

    type: Literal["text", "integer", "moment"]
    meaning: str
    default: Default

    def read(self, name: str, text: str) -> Value:
        """Return a value given as text; a moment is ISO 8601, in UTC where it names no zone.

        Raises:
            UsageError: the text is no such value.
        """
        try:
            if self.type == "integer":
                return int(text)
            if self.type == "moment":
                moment = datetime.fromisoformat(text)
                return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except ValueError:
            like = "a whole number" if self.type == "integer" else "a moment such as 2026-03-01 or 2026-03-01T12:00:00"
            raise UsageError(f"--set {name}={text}: {name} is {like}.") from None
        return text


class DocumentQuery(_Strict):
    """One example query: ``columns`` are the fields of its answer, in order, each with what it means."""

    name: str
    question: str
    why: str
    collection: str
    parameters: dict[str, Parameter] = {}
    pipeline: tuple[dict[str, Any], ...]
    columns: dict[str, str]
    indexes: tuple[str, ...]

    @model_validator(mode="after")
    def _parameters_match(self) -> "DocumentQuery":
        used = set(_named(list(self.pipeline)))
        known: set[str] = set()
        for name, parameter in self.parameters.items():
            needed = set(_needed(parameter.default))
            if not needed <= known:
                raise ValueError(f"the default of {name} needs {sorted(needed - known)}, which must stand before it")
            known.add(name)
            used |= needed
        if used != known:
            raise ValueError(f"parameters used and declared differ: {sorted(used ^ known)}")
        return self

    def bound(self, values: Mapping[str, Value]) -> Pipeline:
        """Return the pipeline with its parameters filled in."""
        filled: Pipeline = _filled(list(self.pipeline), values)
        return filled


@cache
def document_queries(folder: Path = FOLDER) -> tuple[DocumentQuery, ...]:
    """Return the queries in a folder, ordered by name.

    Raises:
        UsageError: a file is no query.
    """
    found = []
    for path in sorted(folder.glob("*.yml")):
        try:
            found.append(DocumentQuery(name=path.stem, **yaml.safe_load(path.read_text(encoding="utf-8"))))
        except (yaml.YAMLError, ValidationError, TypeError) as error:
            reason = " ".join(line.strip() for line in str(error).splitlines()[:3])
            raise UsageError(f"{path} is no query: {reason}") from error
    return tuple(found)


def parameter_values(
    store: Database[dict[str, Any]], query: DocumentQuery, given: Mapping[str, str]
) -> dict[str, Value]:
    """Return a value for every parameter: the one given, else its default.

    Raises:
        UsageError: the query has no such parameter, a value does not fit, or there is nothing to take a default from.
    """
    refuse_strangers(query.name, given, query.parameters)
    values: dict[str, Value] = {}
    for name, parameter in query.parameters.items():
        if name in given:
            values[name] = parameter.read(name, given[name])
            continue
        found = _default(store, parameter.default, values)
        if found is None:
            source = parameter.default.collection if isinstance(parameter.default, _Lookup) else "the store"
            raise UsageError(f"{source} holds nothing to take {name} from: give --set {name}=...")
        values[name] = found
    return values


def run(store: Database[dict[str, Any]], query: DocumentQuery, values: Mapping[str, Value], limit: int) -> Answer:
    """Run a query and return at most ``limit`` rows, a value a column (None where a document has none).

    Raises:
        UsageError: the server refuses it.
    """
    try:
        documents = list(store[query.collection].aggregate([*query.bound(values), {"$limit": limit + 1}]))
    except PyMongoError as error:
        reason = str(error).splitlines()[0].partition(", full error:")[0]
        raise UsageError(f"{query.name} cannot be run: {reason}") from error
    rows = [[document.get(column) for column in query.columns] for document in documents[:limit]]
    return Answer(list(query.columns), rows, dict(values), len(documents) > limit)


def _default(store: Database[dict[str, Any]], default: Default, values: Mapping[str, Value]) -> Value | None:
    if isinstance(default, _Lookup):
        return _looked_up(store, default, values)
    return _relative(default, values) if isinstance(default, DaysBefore | Below) else default


def _looked_up(store: Database[dict[str, Any]], lookup: Lookup, values: Mapping[str, Value]) -> Value | None:
    if isinstance(lookup, MostCommon):
        best = {"$sort": {"count": -1, "_id": 1}}
        stages: Pipeline = [{"$group": {"_id": f"${lookup.most_common}", "count": {"$sum": 1}}}, best]
    else:
        field = lookup.latest if isinstance(lookup, Latest) else lookup.end_of_last_day
        stages = [{"$group": {"_id": None, "latest": {"$max": f"${field}"}}}]
    pipeline = [{"$match": _filled(lookup.where, values)}, *stages, {"$limit": 1}]
    found = next(iter(store[lookup.collection].aggregate(pipeline)), None)
    if found is None:
        return None
    value: Value | None = found.get("latest", found["_id"])
    if isinstance(lookup, EndOfLastDay) and isinstance(value, datetime):
        return value.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return value


def _relative(default: Relative, values: Mapping[str, Value]) -> Value | None:
    match default, values[default.before if isinstance(default, DaysBefore) else default.than]:
        case DaysBefore(days=days), datetime() as moment:
            return moment - timedelta(days=days)
        case Below(less=less), int() as number:
            return number - less
    return None


def _filled(part: Any, values: Mapping[str, Value]) -> Any:
    if isinstance(part, dict):
        if part.keys() == {"$param"}:
            return values[part["$param"]]
        return {key: _filled(inner, values) for key, inner in part.items()}
    return [_filled(inner, values) for inner in part] if isinstance(part, list) else part


def _needed(default: Default) -> Iterator[str]:
    """Yield the parameters that a default depends on."""
    match default:
        case DaysBefore(before=other) | Below(than=other):
            yield other
        case MostCommon(where=where) | Latest(where=where) | EndOfLastDay(where=where):
            yield from _named(where)


def _named(part: Any) -> Iterator[str]:
    """Yield the parameters that a part of a pipeline names."""
    if isinstance(part, dict):
        if part.keys() == {"$param"}:
            yield part["$param"]
        for inner in part.values():
            yield from _named(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _named(inner)

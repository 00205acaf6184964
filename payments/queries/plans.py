"""How the document store answers a pipeline: what each access reads, and by which index, as ``explain`` tells.

A server may explain the first stage only. So a ``$lookup`` is checked apart: the plan of the find that it repeats for
every document is asked for. Stages that read another collection in any other way count as a scan.
"""

from collections.abc import Iterator
from typing import Any

from pymongo.database import Database

from payments.queries.answers import Access
from payments.queries.pipelines import Pipeline

_BY_INDEX = {"IXSCAN", "IDHACK", "EXPRESS_IXSCAN", "EXPRESS_CLUSTERED_IXSCAN", "COUNT_SCAN", "DISTINCT_SCAN"}
_NOTHING_READ = "EOF"
_READS_WHOLE = ("$unionWith", "$graphLookup")
_ANY_KEY = "x"  # every field that a pipeline joins by is a text


def accesses(store: Database[dict[str, Any]], collection: str, pipeline: Pipeline) -> list[Access]:
    """Return how each part of a pipeline reaches its documents, the first stage first."""
    command = {"aggregate": collection, "pipeline": pipeline, "cursor": {}}
    reply = store.command({"explain": command, "verbosity": "executionStats"})
    plan: dict[str, Any] = next(_values(reply, "winningPlan"), {})
    # A server that explains what $lookup did counts the collections that it read from end to end.
    scanned = any(int(count) > 0 for count in _values(reply, "collectionScans"))
    first = Access(collection, "first stage", None if scanned else _index(plan), plan)
    return [first, *(_joined(store, stage) for stage in _stages(pipeline))]


def _joined(store: Database[dict[str, Any]], stage: dict[str, Any]) -> Access:
    kind, spec = next(iter(stage.items()))
    if kind in _READS_WHOLE or "foreignField" not in spec:
        other = spec if isinstance(spec, str) else spec.get("coll", spec.get("from", ""))
        return Access(other, f"{kind} without an equality", None, {})
    collection, field = spec["from"], spec["foreignField"]
    find = {"find": collection, "filter": {field: _ANY_KEY}}
    reply = store.command({"explain": find, "verbosity": "queryPlanner"})
    plan: dict[str, Any] = next(_values(reply, "winningPlan"), {})
    return Access(collection, f"{kind} by {field}", _index(plan), plan)


def _stages(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    """Yield the stages that read another collection, those within a $lookup or $facet included."""
    for stage in pipeline:
        for kind, spec in stage.items():
            if kind == "$lookup" or kind in _READS_WHOLE:
                yield {kind: spec}
            if kind == "$facet":
                for inner in spec.values():
                    yield from _stages(inner)
            elif isinstance(spec, dict) and isinstance(spec.get("pipeline"), list):
                yield from _stages(spec["pipeline"])


def _index(plan: dict[str, Any]) -> str | None:
    """Return the index that a plan reads by; None when any part of it looks at every document."""
    nodes = [node for node in _nodes(plan) if isinstance(node.get("stage"), str)]
    if any(node["stage"] == "COLLSCAN" for node in nodes):
        return None
    found = [node for node in nodes if node["stage"] in _BY_INDEX]
    if found:
        return str(found[0].get("indexName", "_id_"))
    return _NOTHING_READ if any(node["stage"] == _NOTHING_READ for node in nodes) else None


def _nodes(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
        for inner in part.values():
            yield from _nodes(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _nodes(inner)


def _values(part: Any, key: str) -> Iterator[Any]:
    for node in _nodes(part):
        if key in node:
            yield node[key]

"""Every example query of the document store reads by index and gives the answer that plain Python gives."""

import dataclasses
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo.database import Database
from typer.testing import CliRunner

from payments.cli import app
from payments.errors import UsageError
from payments.queries.catalogue import query_named
from payments.queries.pipelines import DocumentQuery, Value, document_queries, parameter_values, run
from payments.queries.plans import accesses
from payments.systems.documents.client import database
from payments.systems.documents.collections import apply_collections
from payments.systems.documents.definitions import definition_of
from tests.conftest import Servers
from tests.systems.documents_for_queries import CUSTOMERS, MERCHANTS, Store, documents
from tests.systems.query_answers import ANSWERS

QUERIES = {query.name: query for query in document_queries()}
ALL = 100_000
OTHERS: dict[str, list[Value]] = {
    "merchant": [*MERCHANTS, "acct_nobody"],
    "customer": [customer for merchant in MERCHANTS for customer in CUSTOMERS[merchant]],
    "entity": [*CUSTOMERS["acct_A"], "nobody"],
    "entity_type": ["merchant", "device"],
    "actor": ["usr_1", "op_1"],
    "decision": ["review", "block"],
    "steps": [1, 2],
    "least": [1, 4],
    "factor": [0, 9],
    "least_status": [400],
}
SHORTER: dict[str, Value] = {
    "since": datetime(2026, 2, 20, tzinfo=UTC),
    "until": datetime(2026, 2, 21, 10, 30, tzinfo=UTC),
    "about": datetime(2026, 2, 20, tzinfo=UTC),
    "known_at": datetime(2026, 2, 18, tzinfo=UTC),
    "after": 40,
    "through": 60,
}
each_query = pytest.mark.parametrize("query", QUERIES.values(), ids=list(QUERIES))


@dataclasses.dataclass(frozen=True)
class Filled:
    """A store that holds the documents, and the documents as they were made."""

    store: Database[dict[str, Any]]
    documents: Store


@pytest.fixture(scope="module")
def filled(servers: Servers, full_size: bool) -> Iterator[Filled]:
    """The documents of all collections, taken by their validators."""
    store = database()
    assert store.client.address == ("127.0.0.1", servers.documents_port)
    apply_collections()
    made = documents(seed=5, scale=4 if full_size else 1)
    for name in store.list_collection_names():
        store[name].delete_many({})
    for name, found in made.items():
        store[name].insert_many(found)
    yield Filled(store, made)
    for name in made:
        store[name].delete_many({})


def _parameters(filled: Filled, query: DocumentQuery) -> Iterator[dict[str, Value]]:
    """Yield the defaults, and values for other merchants, customers and shorter spans."""
    defaults = parameter_values(filled.store, query, {})
    yield defaults
    for name in OTHERS.keys() & defaults.keys():
        for value in OTHERS[name]:
            yield defaults | {name: value}
    yield defaults | {name: value for name, value in SHORTER.items() if name in defaults}


def test_each_query_is_asked_again_in_python() -> None:
    assert set(QUERIES) == set(ANSWERS)
    assert len(QUERIES) >= 14


@each_query
def test_a_query_gives_the_answer_of_plain_python(filled: Filled, query: DocumentQuery) -> None:
    asked = list(_parameters(filled, query))
    for values in asked:
        answer = run(filled.store, query, values, ALL)
        assert answer.columns == list(query.columns)
        assert answer.rows == ANSWERS[query.name](filled.documents, **values), values
    assert run(filled.store, query, asked[0], ALL).rows, "the defaults find nothing"


@each_query
def test_a_query_reads_by_the_indexes_that_it_names(filled: Filled, query: DocumentQuery) -> None:
    pipeline = query.bound(parameter_values(filled.store, query, {}))
    found = accesses(filled.store, query.collection, pipeline)
    assert {f"{access.relation}.{access.index}" for access in found} == set(query.indexes)
    lookups = [stage["$lookup"] for stage in pipeline if "$lookup" in stage]
    assert len(found) == 1 + len(lookups)
    for lookup in lookups:
        led = {next(iter(index.keys)) for index in definition_of(lookup["from"]).all_indexes} | {"_id"}
        assert lookup["foreignField"] in led


@pytest.mark.parametrize(
    ("collection", "pipeline"),
    [
        ("sessions", [{"$match": {"utm_source": "google"}}]),
        ("sessions", [{"$group": {"_id": "$merchant_id"}}]),
        ("sessions", [{"$match": {"customer_id": {"$type": "string"}}}]),
        (
            "sessions",
            [
                {"$match": {"merchant_id": "acct_A"}},
                {"$lookup": {"from": "feedback", "localField": "_id", "foreignField": "language", "as": "x"}},
            ],
        ),
        (
            "sessions",
            [
                {"$match": {"merchant_id": "acct_A"}},
                {"$lookup": {"from": "feedback", "pipeline": [{"$match": {"merchant_id": "acct_A"}}], "as": "x"}},
            ],
        ),
        ("sessions", [{"$match": {"merchant_id": "acct_A"}}, {"$unionWith": "session_overflows"}]),
        ("sessions", [{"$match": {"merchant_id": "acct_A"}}, {"$facet": {"a": [{"$unionWith": "feedback"}]}}]),
    ],
)
def test_a_planted_scan_is_seen(filled: Filled, collection: str, pipeline: list[dict[str, Any]]) -> None:
    assert None in {access.index for access in accesses(filled.store, collection, pipeline)}


def test_a_query_loses_its_index(filled: Filled) -> None:
    query = query_named("checkout_funnel")
    assert query.plan({}).is_by_index
    filled.store["click_events"].drop_index("by_merchant_and_time")
    try:
        assert not query.plan({}).is_by_index
    finally:
        apply_collections()


def test_the_command_prints_a_table_and_says_by_which_index(filled: Filled) -> None:
    asked = ["query", "reviews_waiting", "--set", "since=2026-02-01"]
    table = CliRunner().invoke(app, asked)
    assert table.exit_code == 0, table.output
    rows = run(filled.store, QUERIES["reviews_waiting"], _told(filled, {"since": "2026-02-01"}), ALL).rows
    assert len(rows) == 3
    for currency, count, amount, *_ in rows:
        assert re.search(rf"{currency} +│ +{count} +│ +{amount} ", table.output), table.output
    assert "3 rows" in table.output
    assert "since = 2026-02-01 00:00:00 UTC" in table.output

    first = CliRunner().invoke(app, [*asked, "--limit", "1"])
    assert "the first 1 rows" in first.output
    assert "USD" not in first.output

    plan = CliRunner().invoke(app, [*asked, "--explain"])
    assert "by_decision_and_time" in plan.output
    assert "Every access is by index: yes" in plan.output


def _told(filled: Filled, given: dict[str, str]) -> dict[str, Value]:
    return parameter_values(filled.store, QUERIES["reviews_waiting"], given)


def test_money_is_never_added_across_currencies() -> None:
    for query in QUERIES.values():
        if any("minor" in column for column in query.columns) or "minor" in str(query.pipeline):
            assert "currency" in query.columns, query.name


def test_a_query_uses_nothing_that_one_server_lacks() -> None:
    for query in QUERIES.values():
        assert not {"$where", "$function", "$accumulator", "$text", "$out", "$merge"} & set(_keys(list(query.pipeline)))


def _keys(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _keys(inner)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"shop": "acct_A"}, "there are: merchant, until, since"),
        ({"until": "yesterday"}, "until is a moment"),
    ],
)
def test_a_wrong_parameter_is_told(filled: Filled, given: dict[str, str], hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        parameter_values(filled.store, QUERIES["checkout_funnel"], given)


def test_without_documents_a_default_asks_for_a_value(documents: Database[dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="give --set merchant="):
        parameter_values(documents, QUERIES["checkout_funnel"], {})

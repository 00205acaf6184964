"""The example queries of the document store: pipelines in ``analyses/documents``."""

import json
from functools import partial

from payments.queries.answers import Access, Answer, Given, Plan, Query
from payments.systems.documents.client import database
from payments.systems.documents.plans import accesses
from payments.systems.documents.queries import DocumentQuery, document_queries, parameter_values, run

STORE = "documents"


def queries() -> list[Query]:
    """Return the queries of the document store."""
    return [
        Query(
            found.name, found.question, STORE, tuple(found.parameters), partial(_answer, found), partial(_plan, found)
        )
        for found in document_queries()
    ]


def _answer(query: DocumentQuery, given: Given, limit: int) -> Answer:
    store = database()
    found = run(store, query, parameter_values(store, query, given), limit + 1)
    return Answer(found.columns, found.rows[:limit], found.parameters, len(found.rows) > limit)


def _plan(query: DocumentQuery, given: Given) -> Plan:
    store = database()
    found = accesses(store, query.collection, query.bound(parameter_values(store, query, given)))
    text = "\n".join(
        f"{access.collection}, {access.what}:\n{json.dumps(access.plan, indent=2, default=str)}" for access in found
    )
    return Plan([Access(access.collection, access.what, access.index) for access in found], text)

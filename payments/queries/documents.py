"""The example queries of the document store: pipelines in ``analyses/documents``."""

import json
from functools import partial

from payments.queries.answers import Answer, Given, Plan, Query
from payments.queries.pipelines import DocumentQuery, document_queries, parameter_values, run
from payments.queries.plans import accesses
from payments.systems.documents.client import database

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
    return run(store, query, parameter_values(store, query, given), limit)


def _plan(query: DocumentQuery, given: Given) -> Plan:
    store = database()
    found = accesses(store, query.collection, query.bound(parameter_values(store, query, given)))
    text = "\n".join(
        f"{access.relation}, {access.what}:\n{json.dumps(access.plan, indent=2, default=str)}" for access in found
    )
    return Plan(found, text)

"""Documents from the embedded store to staging and marts: every collection, both schema versions, a broken chain."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pymongo.database import Database

from ingestion.documents import land_documents
from payments.settings import settings
from tests.dbt_project import NO_UNIT_TESTS, Dbt
from tests.warehouse.documents import (
    Document,
    audit_chain,
    feedback,
    feedback_2,
    session,
    session_2,
    write_documents,
)

pytestmark = pytest.mark.usefixtures("platform_home")

# Only tests whose models are all selected.
OWN_TESTS = ("--indirect-selection", "cautious", *NO_UNIT_TESTS)


@contextmanager
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(settings().warehouse_path), read_only=True) as con:
        con.execute("set TimeZone = 'UTC'")
        yield con


def rows(query: str) -> list[tuple[Any, ...]]:
    with warehouse() as con:
        return con.execute(query).fetchall()


def test_both_schema_versions_stand_side_by_side_and_an_unknown_one_in_quarantine(
    documents: Database[Document], dbt: Dbt
) -> None:
    # Through the validator, which knows both versions, and past it, as a writer of tomorrow would.
    documents["sessions"].insert_many([session("one"), session_2("two")])
    documents["feedback"].insert_many([feedback("one"), feedback_2("two"), feedback_2("three", charge=None)])
    for collection, document in (("sessions", session_2("new")), ("feedback", feedback_2("new"))):
        unknown = {**document, "schema_version": 3}
        documents.command("insert", collection, documents=[unknown], bypassDocumentValidation=True)
    land_documents(["sessions", "feedback"])

    staged = ("stg_documents__sessions", "stg_documents__feedback", "stg_platform__quarantine")
    outcome = dbt("build", "--select", "countries", *staged, *OWN_TESTS)

    assert outcome.succeeded, outcome.output
    assert rows(
        """
        select session_id, schema_version, page_count, event_count, has_overflow, is_deleted, is_expired
        from dev_staging.stg_documents__sessions
        order by session_id
        """
    ) == [("sess_one", 1, 2, None, None, False, False), ("sess_two", 2, 2, 1, False, False, False)]
    answers = '[{"question":"speed","score":7},{"question":"price","score":8}]'
    assert rows(
        """
        select feedback_id, schema_version, charge_id, charge_version, customer_version, answers, is_deleted
        from dev_staging.stg_documents__feedback
        order by feedback_id
        """
    ) == [
        ("fb_one", 1, "ch_byhand", None, None, None, False),
        ("fb_three", 2, None, None, 2, answers, False),
        ("fb_two", 2, "ch_byhand", 3, 2, answers, False),
    ]
    assert rows("select entity, rule from dev_staging.stg_platform__quarantine order by entity") == [
        ("feedback", "unknown_schema_version"),
        ("sessions", "unknown_schema_version"),
    ]


def test_documents_of_every_collection_become_rows_of_staging_and_facts(
    documents: Database[Document], dbt: Dbt
) -> None:
    write_documents(documents)
    land_documents()
    documents["api_logs"].delete_one({"_id": "req_byhand1"})
    land_documents(["api_logs"])

    staged = dbt("build", "--select", "path:seeds", "staging.documents", *OWN_TESTS)
    built = dbt("run", "--select", "+fct_webhook_deliveries", "+fct_api_requests", "+fct_page_events")

    assert staged.succeeded, staged.output
    assert built.succeeded, built.output
    counts = {
        model[len("stg_documents__") :]: rows(f"select count(*) from dev_staging.{model}")[0][0]
        for model in staged.statuses()
        if model.startswith("stg_documents__") and "__" not in model[len("stg_documents__") :]
    }
    assert {name: count for name, count in counts.items() if count} == {
        "sessions": 2,
        "click_events": 2,
        "feedback": 2,
        "api_logs": 1,
        "error_logs": 1,
        "webhook_deliveries": 2,
        "audit_events": 2,
        "customer_profiles": 1,
        "recommendations": 1,
        "ml_features": 1,
        "fraud_decisions": 2,
    }
    assert rows(
        """
        select delivery_id, state, attempt_count, last_status_code, seconds_to_delivery
        from dev_marts.fct_webhook_deliveries
        order by delivery_id
        """
    ) == [("whd_byhand1", "delivered", 2, 200, 300), ("whd_byhand2", "pending", 0, None, None)]
    assert rows("select count(*) from dev_marts.fct_api_requests") == [(0,)]  # removed at its source
    assert rows(
        "select event_no, event_type, seconds_since_previous from dev_marts.fct_page_events order by event_no"
    ) == [(1, "page_view", None), (2, "checkout_started", 0)]


@pytest.mark.parametrize("break_it", ["gap", "hash"])
def test_a_broken_audit_chain_fails_the_build(
    documents: Database[Document], dbt: Dbt, platform_home: Path, break_it: str
) -> None:
    assert platform_home.is_dir()
    first, second, third = audit_chain("a1" * 32, "b2" * 32, "c3" * 32)
    if break_it == "gap":
        third |= {"sequence": 4}
    else:
        third |= {"previous_hash": "a1" * 32}
    documents["audit_events"].insert_many([first, second, third])
    land_documents(["audit_events"])

    outcome = dbt("build", "--select", "stg_documents__audit_events", *OWN_TESTS)

    failed = [name for name, status in outcome.statuses().items() if status == "fail"]
    assert failed == ["assert_audit_chain_is_whole"]

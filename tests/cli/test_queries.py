"""The example queries by name: what there is, what a wrong name gets, and every one of the operational store."""

from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from payments.cli import app
from payments.errors import UsageError
from payments.queries.catalogue import all_queries, query_named
from payments.queries.pipelines import document_queries
from payments.settings import PROJECT_ROOT

# What psql would be told; the store is empty, so any value of the right type will do.
VALUES = {"subject_id": "00000000-0000-0000-0000-000000000000", "first_xid": "1", "last_xid": "2"}
MOMENTS = ("since", "until", "end_of_month", "day")


def test_all_queries_are_listed() -> None:
    listed = CliRunner().invoke(app, ["query"])
    assert listed.exit_code == 0
    queries = all_queries()
    assert len({query.name for query in queries}) == len(queries)
    for query in queries:
        assert f" {query.name} " in listed.output
    assert {query.store for query in queries} == {"documents", "operational store", "warehouse"}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("chekout_funel", "did you mean checkout_funnel"),
        ("charges_of_a_merchant", "did you mean charges-of-a-merchant"),
        ("zzz", "see payments query list"),
    ],
)
def test_an_unknown_name_gets_close_ones(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        query_named(name)


def test_what_is_set_must_be_a_pair() -> None:
    asked = CliRunner().invoke(app, ["query", "checkout_funnel", "--set", "merchant"])
    assert isinstance(asked.exception, UsageError)
    assert "--set merchant=..." in str(asked.exception)


def test_every_query_of_the_operational_store_runs_and_some_are_explained(oltp: psycopg.Connection) -> None:
    queries = [query for query in all_queries() if query.store == "operational store"]
    assert len(queries) > 40
    for number, query in enumerate(queries):
        given = [f"--set={name}={VALUES.get(name, 'x')}" for name in query.parameters if name not in MOMENTS]
        ran = CliRunner().invoke(app, ["query", query.name, *given])
        assert ran.exit_code == 0, (query.name, ran.exception)
        assert "0 rows" in ran.output
        if number % 10 == 0:
            explained = CliRunner().invoke(app, ["query", query.name, *given, "--explain"])
            assert "Every access is by index" in explained.output


def test_a_parameter_without_an_example_row_is_asked_for(oltp: psycopg.Connection) -> None:
    with pytest.raises(UsageError, match="needs --set merchant_id="):
        query_named("charges-of-a-merchant").answer({}, 10)


def test_a_query_cannot_write(oltp: psycopg.Connection) -> None:
    from payments.queries.operational import OperationalQuery, _answer

    query = OperationalQuery("x", "x", "x", "delete from core.charges returning *;\n")
    with pytest.raises(UsageError, match="read-only"):
        _answer(query, {}, 10)


def test_the_documentation_names_every_document_query() -> None:
    text = (PROJECT_ROOT / "docs" / "queries" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    wanted = [
        f"| [{query.name}](../../analyses/documents/{query.name}.yml) | {query.question} |"
        for query in document_queries()
    ]
    assert [row for row in rows if ".yml)" in row] == wanted


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text("question: why?\n")
    with pytest.raises(UsageError, match="is no query"):
        document_queries(tmp_path)

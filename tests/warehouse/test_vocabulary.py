"""What the tests of staging and the rules of the gate accept is what the stores accept: one vocabulary."""

import re
from typing import Any

import psycopg
import pytest
import yaml

from ingestion.contracts import entities
from payments.compliance.rules import DOCUMENT_WORDS, STATUSES
from payments.settings import PROJECT_ROOT
from payments.systems.documents.definitions import definition_of

STAGING = PROJECT_ROOT / "models" / "staging"
Words = dict[tuple[str, str], set[str]]


def model(source: str, entity: str) -> dict[str, Any]:
    """The properties of the staging model of an entity."""
    text = (STAGING / source / f"stg_{source}__{entity}.yml").read_text(encoding="utf-8")
    (found,) = yaml.safe_load(text)["models"]
    return dict(found)


def accepted_of(source: str) -> Words:
    """The values that the tests of staging accept, by entity and column."""
    return {
        (entity, column["name"]): set(test["accepted_values"]["arguments"]["values"])
        for entity in entities(source)
        for column in model(source, entity)["columns"]
        for test in column.get("data_tests", [])
        if "accepted_values" in test
    }


@pytest.fixture(scope="module")
def accepted() -> Words:
    """The values that the tests of staging accept of the operational store."""
    return accepted_of("oltp")


def words_of(oltp: psycopg.Connection) -> Words:
    """The values that the checks of the database accept, by entity and column."""
    checks = oltp.execute(
        """
        select n.nspname, r.relname, pg_get_constraintdef(c.oid)
        from pg_constraint as c
        inner join pg_class as r on c.conrelid = r.oid
        inner join pg_namespace as n on r.relnamespace = n.oid
        where c.contype = 'c' and n.nspname in ('core', 'ledger') and not r.relispartition
        """
    ).fetchall()
    found: Words = {}
    for schema, table, check in checks:
        listed = re.fullmatch(r"CHECK \(\((\w+) = ANY \(ARRAY\[(.*)\]\)\)\)", check)
        if listed:
            entity = f"ledger_{table}" if schema == "ledger" else table
            found[entity, listed[1]] = set(re.findall(r"'([^']*)'", listed[2]))
    return found


def test_staging_accepts_the_words_of_the_database(oltp: psycopg.Connection, accepted: Words) -> None:
    words = words_of(oltp)
    assert len(words) > 20, "the checks were not understood"
    codes = {code for (code,) in oltp.execute("select code from ledger.account_codes").fetchall()}
    words["ledger_accounts", "code"] = codes
    words["ledger_accounts", "normal_side"] = {"D", "C"}
    assert {key: value for key, value in accepted.items() if value != words[key]} == {}
    # Every state of an object is judged.
    assert {key for key in words if key[1] in {"status", "kind"}} <= accepted.keys()


def test_the_gate_judges_every_status_by_the_same_words(accepted: Words) -> None:
    ours = {f"stg_oltp__{entity}": words for (entity, column), words in accepted.items() if column == "status"}
    theirs = {name: set(words) for name, words in STATUSES.items() if name.startswith("stg_oltp__")}
    assert ours == theirs


def words_of_collections() -> Words:
    """The words that the validators of the document store accept, by collection and landed field."""
    return {
        (collection, name): set(schema["enum"]) - {None}
        for collection, entity in entities("documents").items()
        for version in definition_of(collection).versions.values()
        for name, schema in version.properties.items()
        if name in entity.column_names and set(schema.get("enum", ())) - {None}
    }


def test_staging_accepts_the_words_of_the_collections() -> None:
    words = words_of_collections()
    assert len(words) > 10, "the collections were not understood"
    assert accepted_of("documents") == words


def test_the_gate_judges_documents_by_the_same_words() -> None:
    words = words_of_collections()
    ours = {
        (name.removeprefix("stg_documents__"), column): set(found) for (name, column), found in DOCUMENT_WORDS.items()
    }
    assert ours == {key: words[key] for key in ours}
    assert ours.keys() >= {key for key in words if key[1] in {"decision", "outcome", "action"}}

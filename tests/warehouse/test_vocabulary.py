"""What the tests of staging and the rules of the gate accept is what the database accepts: one vocabulary."""

import re
from typing import Any

import psycopg
import pytest
import yaml

from ingestion.contracts import entities
from payments.compliance.rules import STATUSES
from payments.settings import PROJECT_ROOT

STAGING = PROJECT_ROOT / "models" / "staging" / "oltp"
Words = dict[tuple[str, str], set[str]]


def model(entity: str) -> dict[str, Any]:
    """The properties of the staging model of an entity."""
    text = (STAGING / f"stg_oltp__{entity}.yml").read_text(encoding="utf-8")
    (found,) = yaml.safe_load(text)["models"]
    return dict(found)


@pytest.fixture(scope="module")
def accepted() -> Words:
    """The values that the tests of staging accept, by entity and column."""
    return {
        (entity, column["name"]): set(test["accepted_values"]["arguments"]["values"])
        for entity in entities("oltp")
        for column in model(entity)["columns"]
        for test in column.get("data_tests", [])
        if "accepted_values" in test
    }


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

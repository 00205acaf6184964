"""Every rule of the gate trips on a violation planted in a warehouse file, and only that rule."""

import json
from collections import Counter
from pathlib import Path

import duckdb
import pytest

from payments.compliance.gate import GateCheck, last_result, run_gate
from payments.errors import UsageError
from payments.settings import settings

CARD = "4242424242424242"


def _plant(warehouse: Path, statement: str) -> None:
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute(statement)


def _type_of(warehouse: Path, relation: str, column: str) -> str:
    with duckdb.connect(str(warehouse)) as connection:
        (kind,) = [row[1] for row in connection.execute(f"describe good.{relation}").fetchall() if row[0] == column]
    return str(kind)


def _broken() -> list[GateCheck]:
    result = run_gate()
    assert result.passed == all(check.passed for check in result.checks)
    return [check for check in result.checks if not check.passed]


def test_a_warehouse_that_keeps_the_rules_opens_the_gate(warehouse: Path) -> None:
    result = run_gate()
    assert [check for check in result.checks if not check.passed] == []
    assert result.passed
    assert {check.name for check in result.checks} == {
        "no_card_number",
        "known_currency",
        "known_country",
        "status_in_set",
        "amount_in_range",
        "anomaly_score_in_range",
        "money_fields_present",
        "captured_within_amount",
        "masked_pan_format",
        "consent_present",
        "retention_present",
        "decision_in_set",
        "score_in_range",
        "outcome_in_set",
        "state_in_set",
        "actor_type_in_set",
        "action_in_set",
        "decision_is_explained",
        "audit_link_format",
        "no_email_address",
    }
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        staging = {
            row[0]
            for row in connection.execute(
                "select table_name from duckdb_tables() where schema_name = 'dev_staging'"
            ).fetchall()
        }
    assert {check.relation for check in result.checks if check.name == "no_card_number"} == staging


VIOLATIONS = [
    ("no_card_number", "stg_documents__click_events", f"page = '/thanks?card={CARD}'"),
    ("no_card_number", "stg_documents__click_events", """properties = '{"note": "4242 4242 4242 4242"}'"""),
    ("no_card_number", "stg_oltp__merchants", "business_name = 'Shop 3782-822463-10005'"),
    ("no_card_number", "stg_files__transactions", f"customer_id = '{CARD}'"),
    ("known_currency", "stg_oltp__charges", "currency = 'XXQ'"),
    ("known_currency", "stg_oltp__merchants", "default_currency = 'eur'"),
    ("known_country", "stg_oltp__charges", "ip_country = 'ZZ'"),
    ("known_country", "stg_oltp__payment_methods", "issuer_country = 'ZZ'"),
    ("status_in_set", "stg_oltp__charges", "status = 'refunded'"),
    ("status_in_set", "stg_files__transactions", "status = 'paid'"),
    ("amount_in_range", "stg_oltp__refunds", "amount_minor = 0"),
    ("amount_in_range", "stg_files__transactions", "amount_minor = -1"),
    ("amount_in_range", "stg_oltp__disputes", "amount_minor = 10000000000001"),
    ("known_currency", "stg_oltp__currency_conversions", "to_currency = 'XXQ'"),
    ("known_currency", "stg_oltp__coupons", "currency = 'XXQ'"),
    ("status_in_set", "stg_oltp__disputes", "status = 'warning'"),
    ("status_in_set", "stg_oltp__invoices", "status = 'overdue'"),
    ("amount_in_range", "stg_oltp__balance_transaction_fees", "amount_minor = 0"),
    ("amount_in_range", "stg_oltp__currency_conversions", "from_amount_minor = 0"),
    ("amount_in_range", "stg_oltp__invoices", "total_minor = -1"),
    ("amount_in_range", "stg_oltp__adjustments", "amount_minor = -10000000000001"),
    ("money_fields_present", "stg_oltp__invoices", "total_minor = null"),
    ("money_fields_present", "stg_oltp__currency_conversions", "from_currency = null"),
    ("anomaly_score_in_range", "stg_files__transactions", "anomaly_score = 1.5"),
    ("money_fields_present", "stg_oltp__refunds", "currency = null"),
    ("money_fields_present", "stg_files__transactions", "amount_minor = null"),
    ("captured_within_amount", "stg_oltp__charges", "amount_captured_minor = 1001"),
    ("captured_within_amount", "stg_oltp__charges", "amount_refunded_minor = null"),
    ("masked_pan_format", "stg_oltp__payment_methods", "last4 = '424242'"),
    ("masked_pan_format", "stg_oltp__payment_methods", "last4 = null"),
    ("masked_pan_format", "stg_oltp__payment_methods", "brand = 'vixa'"),
    ("masked_pan_format", "stg_oltp__payment_methods", "exp_month = 13"),
    ("masked_pan_format", "stg_oltp__payment_methods", "exp_year = 30"),
    ("masked_pan_format", "stg_oltp__payment_methods", "fingerprint = '424242xxxxxx4242'"),
    ("consent_present", "stg_oltp__customers", "has_marketing_consent = null"),
    ("retention_present", "stg_oltp__customers", "retention_until = null"),
    ("retention_present", "stg_oltp__customers", "retention_until = date '2026-05-31'"),
    ("decision_in_set", "stg_documents__fraud_scores", "decision = 'maybe'"),
    ("score_in_range", "stg_documents__fraud_scores", "score = -0.1"),
    ("no_card_number", "stg_documents__error_logs", f"message = 'declined {CARD}'"),
    ("no_card_number", "stg_documents__fraud_decisions", f"""features = '{{"card": "{CARD}"}}'"""),
    ("known_country", "stg_documents__sessions", "ip_country = 'ZZ'"),
    ("known_country", "stg_documents__customer_profiles", "country = 'ZZ'"),
    ("known_currency", "stg_documents__fraud_decisions", "currency = 'XXQ'"),
    ("amount_in_range", "stg_documents__fraud_decisions", "amount_minor = -1"),
    ("money_fields_present", "stg_documents__fraud_decisions", "amount_minor = null"),
    ("decision_in_set", "stg_documents__fraud_decisions", "decision = 'maybe'"),
    ("outcome_in_set", "stg_documents__fraud_decisions", "outcome = 'unknown'"),
    ("score_in_range", "stg_documents__fraud_decisions", "score = 1.1"),
    ("decision_is_explained", "stg_documents__fraud_decisions", "reasons = null"),
    ("state_in_set", "stg_documents__webhook_deliveries", "state = 'sent'"),
    ("actor_type_in_set", "stg_documents__audit_events", "actor_type = 'ghost'"),
    ("action_in_set", "stg_documents__audit_events", "action = 'guess'"),
    ("outcome_in_set", "stg_documents__audit_events", "outcome = 'genuine'"),
    ("audit_link_format", "stg_documents__audit_events", "hash = 'a1'"),
    ("audit_link_format", "stg_documents__audit_events", "sequence = 0"),
    ("no_email_address", "stg_documents__error_logs", "message = 'no reply for jo.doe+1@example.org'"),
    ("no_email_address", "stg_documents__error_logs", """context = '{"to": "jo@example.org"}'"""),
]


def test_every_planted_violation_is_counted_under_its_rule_and_relation(warehouse: Path) -> None:
    # Each violation is one more row, equal to the good one but for what is planted.
    for _, relation, assignment in VIOLATIONS:
        column, value = assignment.split(" = ", 1)
        changed = (
            f"select * replace (({value})::{_type_of(warehouse, relation, column)} as {column}) from good.{relation}"
        )
        _plant(warehouse, f"insert into dev_staging.{relation} {changed}")
    expected = Counter((rule, relation) for rule, relation, _ in VIOLATIONS)
    broken = _broken()
    assert {(check.name, check.relation): check.unexpected_count for check in broken} == expected
    assert not any(check.error for check in broken)


def test_consent_without_a_moment_closes_the_gate(warehouse: Path) -> None:
    _plant(warehouse, "update dev_staging.stg_oltp__customers set consent_at = null")
    assert {check.name for check in _broken()} == {"consent_present", "retention_present"}


def test_the_columns_that_hold_a_card_number_are_named_and_the_number_is_written_nowhere(warehouse: Path) -> None:
    _plant(warehouse, f"update dev_staging.stg_documents__click_events set page = '/c/{CARD}'")
    (found,) = _broken()
    assert found.columns == ("page",)
    written = (settings().home / "compliance" / "gate.json").read_text()
    assert "4242" not in written
    assert json.loads(written)["passed"] is False


def test_what_only_looks_like_a_card_number_passes(warehouse: Path) -> None:
    harmless = (
        "4242424242424243",  # fails the check digit
        "9999424242424242424242",  # no issuer, too long
        "a4242424242424242",  # part of a longer word, such as a digest
        "order 1751328000123 of 2026",  # a moment in milliseconds
    )
    for text in harmless:
        _plant(
            warehouse,
            "insert into dev_staging.stg_documents__click_events"
            f" select * replace ('{text}' as page) from good.stg_documents__click_events",
        )
    assert _broken() == []


def test_a_deleted_record_needs_no_more_than_its_key(warehouse: Path) -> None:
    _plant(
        warehouse,
        """
        update dev_staging.stg_oltp__customers
        set is_deleted = true, country = null, has_marketing_consent = null, consent_at = null, retention_until = null
        """,
    )
    assert _broken() == []


def test_a_staging_model_that_is_not_built_closes_the_gate(warehouse: Path) -> None:
    _plant(warehouse, "drop table dev_staging.stg_oltp__charges")
    (missing,) = _broken()
    assert (missing.name, missing.relation) == ("relation_built", "stg_oltp__charges")


def test_a_rule_that_cannot_be_evaluated_closes_the_gate(warehouse: Path) -> None:
    _plant(warehouse, "alter table dev_staging.stg_oltp__customers drop column consent_at")
    broken = _broken()
    assert {check.name for check in broken} == {"consent_present", "retention_present"}
    assert all("consent_at" in check.error for check in broken)


def test_empty_staging_models_open_the_gate(warehouse: Path) -> None:
    _plant(warehouse, "delete from dev_staging.stg_files__transactions")
    assert _broken() == []


@pytest.mark.usefixtures("warehouse")
def test_the_last_result_is_what_the_run_returned() -> None:
    with pytest.raises(UsageError, match="not run"):
        last_result()
    assert run_gate() == last_result()


def test_the_warehouse_is_free_for_writers_afterwards(warehouse: Path) -> None:
    run_gate()
    _plant(warehouse, "create table dev_staging.written_after_the_gate as select 1 as one")


@pytest.mark.parametrize("statement", ["drop schema dev_staging cascade", "drop schema dev_reference cascade"])
def test_without_models_the_gate_says_what_to_do(warehouse: Path, statement: str) -> None:
    _plant(warehouse, statement)
    with pytest.raises(UsageError, match="run dbt"):
        run_gate()

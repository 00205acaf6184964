"""`dbt build` on an empty platform, on a transaction file, and on a raw zone that someone has tampered with."""

import shutil
from functools import partial
from pathlib import Path

import duckdb
import pytest
from dbt.cli import main as dbt_main

from payments.queries.catalogue import all_queries
from payments.settings import settings
from payments.vault.cards import find_card_numbers
from tests.dbt_project import NO_UNIT_TESTS, Dbt
from tests.warehouse.conftest import Built
from tests.warehouse.raw_by_hand import tamper

VISA = "4242424242424242"


def test_an_empty_platform_builds_and_says_what_lands_data(
    dbt: Dbt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYMENTS_RAW", str(tmp_path / "raw"))
    monkeypatch.setenv("PAYMENTS_WAREHOUSE", str(tmp_path / "warehouse.duckdb"))

    # The next test runs the data tests where nothing but a file has landed.
    outcome = dbt("build", "--exclude-resource-type", "test")

    assert outcome.succeeded, outcome.output
    assert outcome.output.count("`payments land transactions FILE`") == 1
    assert set(outcome.statuses().values()) <= {"success", "pass", "no-op"}
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as con:
        counts = {
            table: con.execute(f"select count(*) from dev_marts.{table}").fetchall()[0][0]
            for table in ("fct_payments", "fct_refunds", "agg_revenue_daily", "dim_merchant", "dim_customer")
        }
    assert counts == {
        "fct_payments": 0,
        "fct_refunds": 0,
        "agg_revenue_daily": 0,
        "dim_merchant": 1,  # the unknown member
        "dim_customer": 1,
    }


def test_a_file_becomes_facts_to_the_cent(built: Built) -> None:
    assert built.outcome.succeeded, built.outcome.output
    assert "Nothing has landed" not in built.outcome.output
    expected = {
        currency: (
            sum(1 for row in built.rows if row["currency"] == currency),
            sum(row["amount_minor"] for row in built.rows if row["currency"] == currency),
            sum(
                row["amount_minor"]
                for row in built.rows
                if row["currency"] == currency and row["status"] not in {"failed", "pending"}
            ),
        )
        for currency in {row["currency"] for row in built.rows}
    }
    with built.connect() as con:
        facts = con.execute(
            """
            select currency, count(*), sum(amount_minor)::bigint, sum(captured_amount_minor)::bigint
            from dev_marts.fct_payments
            group by currency
            """
        ).fetchall()
        aggregated = con.execute(
            "select currency, sum(captured_amount_minor)::bigint from dev_marts.agg_revenue_daily group by currency"
        ).fetchall()
        refused = con.execute("select count(*) from dev_staging.stg_platform__quarantine").fetchall()
    assert {currency: tuple(rest) for currency, *rest in facts} == expected
    assert dict(aggregated) == {currency: captured for currency, (_, _, captured) in expected.items()}
    assert refused == [(1,)]


def test_members_that_only_facts_mention_are_inferred_and_no_fact_is_lost_by_a_join(built: Built) -> None:
    with built.connect() as con:
        merchants = con.execute(
            "select merchant_id from dev_marts.dim_merchant where is_inferred and merchant_id is not null order by 1"
        ).fetchall()
        joined = con.execute(
            """
            select count(*), count(*) filter (where m.merchant_id is null), count(*) filter (where d.country = 'ZZ')
            from dev_marts.fct_payments as p
            inner join dev_marts.dim_merchant as m using (merchant_key)
            inner join dev_marts.dim_customer as c using (customer_key)
            inner join dev_marts.dim_date as t on p.paid_on = t.date_day
            inner join dev_marts.dim_country as d on p.ip_country = d.country
            inner join dev_marts.dim_currency as e on p.currency = e.currency
            """
        ).fetchall()
    assert [name for (name,) in merchants] == [f"shop{n}" for n in range(6)]
    assert joined == [
        (
            len(built.rows),
            sum(row["merchant_id"] == "" for row in built.rows),
            sum(row["ip_country"] == "" for row in built.rows),
        )
    ]


def test_amounts_without_a_book_rate_have_no_value_in_the_reporting_currency(built: Built) -> None:
    with built.connect() as con:
        found = con.execute(
            """
            select distinct currency, reporting_amount_minor is null
            from dev_marts.fct_payments
            where currency in ('USD', 'BHD')
            order by currency
            """
        ).fetchall()
        dollars = con.execute(
            """
            select count(*) from dev_marts.fct_payments
            where currency = 'USD' and reporting_amount_minor <> amount_minor
            """
        ).fetchall()
    assert found == [("BHD", True), ("USD", False)]
    assert dollars == [(0,)]


def test_a_card_number_planted_behind_the_writers_back_stops_the_build(
    built: Built, dbt: Dbt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(built.raw, tmp_path / "raw")
    tamper(tmp_path / "raw", "transactions", "payment_method", f"card {VISA[:4]}-{VISA[4:8]}-{VISA[8:12]}-{VISA[12:]}")
    monkeypatch.setenv("PAYMENTS_RAW", str(tmp_path / "raw"))
    monkeypatch.setenv("PAYMENTS_WAREHOUSE", str(tmp_path / "warehouse.duckdb"))

    outcome = dbt("build", "--select", "stg_files__transactions+1", "+int_payments_unioned", *NO_UNIT_TESTS)

    statuses = outcome.statuses()
    assert not outcome.succeeded
    assert [name for name, status in statuses.items() if status == "fail"] == [
        "no_card_numbers_stg_files__transactions_"
    ]
    assert statuses["int_payments_unioned"] == "skipped"
    assert VISA not in outcome.output.replace("-", "")


CARD_TEXTS = [
    VISA,
    "4242 4242 4242 4242",
    "4242-4242-4242-4242",
    "4 2424242424242424-2",
    "4242  4242 4242 4242",  # two spaces part no number
    "4242.4242.4242.4242",
    "paid with 5555555555554444, thanks",
    "x5555555555554444",  # a letter before it: part of a word
    "5555555555554444x",
    "2223003122003222",
    "2720990000000007",
    "378282246310005",
    "6011111111111117",
    "6510000000000000",
    "6440000000000005",
    "3530111333300000",
    "6200000000000005",
    "6200000000000000003",
    "30569309025904",
    "36227206271667",
    "38520000023237",
    "4222222222222",
    "4000000000000000006",
    "4242424242424241",  # the check digit is wrong
    "1234567890123452",  # no issuer
    "order 12 4242 4242 4242 4242 34",
    "5555555555554444,4242424242424242",
    "4242424242424241 4242424242424242",
    "424242424242424",
    "42424242424242424242",
    "(4242424242424242)",
    "id_4242424242424242",
    "4242424242424242é",
    "",
    "no digits at all",
]


def test_both_screens_for_card_numbers_agree(built: Built) -> None:
    query = built.outcome.compiled("no_card_numbers_stg_files__transactions_")
    relation = '"warehouse"."dev_staging"."stg_files__transactions"'
    assert relation in query
    with duckdb.connect() as con:
        columns = "payment_method text, transaction_id text, merchant_id text, customer_id text, currency text"
        con.execute(f"create table staged ({columns}, ip_country text, device_type text, status text)")
        on_staged = query.replace(relation, "staged")
        found, expected = {}, {}
        for text in CARD_TEXTS:
            con.execute("delete from staged")
            con.execute("insert into staged (payment_method) values ($1)", [text])
            found[text] = bool(con.execute(on_staged).fetchall())
            expected[text] = bool(find_card_numbers(text))
    assert found == expected
    assert sum(expected.values()) >= 20


def test_every_analysis_is_answered(built: Built, dbt: Dbt, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # The project is parsed already.
        patch.setattr(dbt_main, "dbtRunner", partial(dbt_main.dbtRunner, manifest=dbt.parsed()))
        patch.setenv("PAYMENTS_WAREHOUSE", str(built.warehouse))
        patch.setenv("DBT_TARGET_PATH", str(tmp_path / "target"))
        patch.setenv("DBT_LOG_PATH", str(tmp_path / "logs"))
        settings.cache_clear()
        analyses = {query.name: query for query in all_queries() if query.store == "warehouse"}
        answers = {name: query.answer({}, 3) for name, query in analyses.items()}
        plan = analyses["declined_revenue_by_reason"].plan({})
    settings.cache_clear()
    # A file tells of payments, and this one of old ones: no question fails, and those about payments have an answer.
    answered = {name for name, answer in answers.items() if answer.rows}
    assert answered >= {
        "daily_revenue_smoothed",
        "declined_revenue_by_reason",
        "declines_recovered_by_retry",
        "merchants_by_share_of_revenue",
        "monthly_revenue_by_vertical",
        "net_revenue_by_month",
        "quarantine_rate_by_entity",
    }
    assert not answered & {"dispute_rate_by_merchant", "revenue_and_fraud_of_the_last_minutes"}
    assert "month_start_on" in answers["monthly_revenue_by_vertical"].columns
    assert any(access.relation.endswith("fct_payments") for access in plan.accesses)
    assert not plan.is_by_index

"""``sqlfluff lint`` refuses to add up money of several currencies, and nothing else."""

import pytest
import sqlfluff
from sqlfluff.core import FluffConfig, Linter

REFUSED = [
    "select sum(amount_minor) as a from payments",
    "select sum(payments.amount) as a from payments",
    "select avg(fee_minor) as a from payments group by merchant_key",
    "select cast(sum(captured_amount_minor - refunded_amount_minor) as bigint) as a from payments group by paid_on",
    "select sum(case when is_fraud then amount_minor else 0 end) as a from payments group by merchant_key",
    "select sum(reporting_amount_minor - fee_minor) as a from payments",
    "select sum(amount_minor) over (partition by merchant_key order by paid_on) as a from payments",
    "with a as (select sum(amount_minor) as b from payments group by paid_on) select currency from a group by currency",
    "select currency, (select sum(amount_minor) from refunds) as a from payments group by currency",
]
ACCEPTED = [
    "select currency, sum(amount_minor) as a from payments group by currency",
    "select sum(p.amount_minor) as a from payments as p group by p.merchant_key, p.from_currency",
    "select sum(reporting_amount_minor) as a from payments",
    "select sum(case when amount_minor > 0 then 1 else 0 end) as a from payments group by merchant_key",
    "select sum(amount_minor) over (partition by merchant_key, currency) as a from payments",
    "select sum(payment_count) as a, count(amount_minor) as b, max(amount_minor) as c from payments",
]


def broken(query: str) -> list[str]:
    """The rules that a query breaks, of those of this project."""
    return [found["code"] for found in sqlfluff.lint(f"{query}\n", dialect="duckdb", rules=["Payments_PM01"])]


@pytest.mark.parametrize("query", REFUSED)
def test_money_of_several_currencies_is_not_added_up(query: str) -> None:
    assert broken(query) == ["Payments_PM01"]


@pytest.mark.parametrize("query", ACCEPTED)
def test_what_has_one_currency_or_was_converted_is_added_up(query: str) -> None:
    assert broken(query) == []


def test_what_a_macro_unfolds_to_is_looked_at() -> None:
    macro = "{% macro total() %}sum(amount_minor){% endmacro %}"
    config = FluffConfig(overrides={"dialect": "duckdb", "rules": "Payments_PM01", "templater": "jinja"})
    found = Linter(config=config).lint_string(f"{macro}select {{{{ total() }}}} as a from payments\n")
    assert [violation.rule_code() for violation in found.get_violations()] == ["Payments_PM01"]
    assert (
        Linter(config=config)
        .lint_string(f"{macro}select {{{{ total() }}}} as a from payments group by currency\n")
        .get_violations()
        == []
    )

"""What is changed of a model's SQL, and that a test which looks at it notices."""

from pathlib import Path

import pytest

from payments.errors import UsageError
from payments.mutation.mutants import marked, mutants, template_of, within
from payments.mutation.trial import try_tests
from payments.settings import settings

MODEL = """with

refunds as (
    select * from {{ ref('refunds') }}
    where status not in ('failed', 'canceled') and created_at between a and b
),

final as (
    select distinct
        {{ surrogate_key(['refund_id']) }} as refund_key,
        cast(sum(amount_minor - fee_minor) as numeric(24, 4)) as amount,
        case when status = 'failed' then 0 else coalesce(n, 1) end as n
    from refunds
    left join charges
        on
            refunds.charge_id = charges.charge_id
            and refunds.created_at >= {{ moment() }}
    group by status
)

select * from final
"""


def compiled(source: str) -> str:
    """The marked source as dbt would compile it."""
    unfolded = {"{{ ref('refunds') }}": "raw.refunds", "{{ moment() }}": "least(x, 'y')"}
    text = marked(source)
    for expression, sql in unfolded.items():
        text = text.replace(expression, sql)
    return text.replace("{{ surrogate_key(['refund_id']) }}", "md5(coalesce(refund_id, '-'))")


def changes(source: str) -> set[str]:
    return {f"{mutant.before} -> {mutant.text}" for mutant in mutants(template_of(compiled(source)))}


def test_a_model_is_changed_in_one_small_place_at_a_time() -> None:
    assert changes(MODEL) == {
        "not -> ",
        "'failed' -> 'failed~'",
        "'canceled' -> 'canceled~'",
        "status not in ('failed', 'canceled') -> true",
        "created_at between a and b -> true",
        "and -> or",
        "distinct -> ",
        "sum -> max",
        "- -> +",
        "status = 'failed' -> false",
        "= -> <>",
        "0 -> 1",
        "1 -> 2",
        "coalesce(n, 1) -> n",
        "left -> inner",
        "refunds.charge_id = charges.charge_id -> true",
        "refunds.created_at >= jinja_2_ -> true",
        ">= -> >",
    }


def test_what_a_macro_unfolds_to_stays() -> None:
    template = template_of(compiled(MODEL))
    for mutant in mutants(template):
        changed = template.mutated(mutant)
        assert "raw.refunds" in changed
        assert "md5(coalesce(refund_id, '-'))" in changed
        assert changed != template.filled(template.text)
    dropped = next(mutant for mutant in mutants(template) if mutant.before.startswith("refunds.created_at"))
    assert "least" not in template.mutated(dropped)


def test_a_name_that_is_put_together_stays_whole() -> None:
    assert marked("select {{ a }}_count, '{{ b }}', {{ c }}") == (
        "select {{ a }}_count, '{{ b }}', /*<jinja*/{{ c }}/*jinja>*/"
    )


def test_a_mutant_stands_in_a_unit_test_as_it_does_in_the_model() -> None:
    model = template_of(compiled(MODEL))
    inputs = compiled(MODEL).replace("with\n", "with fixture as (select 1), ").replace("raw.refunds", "fixture")
    around = within(model, f"select * from (\n{inputs}\n) as actual")
    assert around is not None
    dropped = next(mutant for mutant in mutants(model) if mutant.kind == "distinct")
    statement = around(dropped)
    assert statement is not None
    assert "from fixture" in statement
    assert "distinct" not in statement
    assert statement.endswith(") as actual")
    assert within(model, "select 1") is None


@pytest.mark.usefixtures("platform_home")
def test_a_test_that_looks_at_a_place_notices_its_changes() -> None:
    assert not Path(settings().raw_zone).exists(), "the tables of the rates are seeds: nothing need have landed"
    trials = list(try_tests(["int_exchange_rates_daily"]))
    caught = {str(trial.mutant).partition(": ")[2]: trial.caught_by for trial in trials}
    assert caught["and -> or (connective)"] is not None, "days have one rate: their key is tested"
    assert caught["<= -> < (boundary)"] is None, "nothing tells yet on which day a rate begins to hold"


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UsageError, match="no model fct_nothing"):
        next(try_tests(["fct_nothing"]))

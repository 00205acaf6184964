"""A rule for sqlfluff: money of several currencies is never added up.

A sum (or average) of amounts has a meaning only within one currency, or where every amount was converted to the
reporting currency at a named rate. By the names of this project an amount is a column that ends in ``_minor`` or
``amount``, and what begins with ``reporting_`` was converted. What a macro unfolds to is looked at as well.
"""

import re
from collections.abc import Iterator

from sqlfluff.core.parser import BaseSegment
from sqlfluff.core.rules import BaseRule, LintResult, RuleContext
from sqlfluff.core.rules.crawlers import SegmentSeekerCrawler

_MONEY = re.compile(r"(.*_minor|(.*_)?amount)$")
_CONVERTED = re.compile(r"(.*_)?reporting_")
_ADDING = {"sum", "avg"}


class Rule_Payments_PM01(BaseRule):  # noqa: N801 (sqlfluff reads plugin and code from the name)
    """Money is summed over currencies.

    **Anti-pattern**

    Amounts of all currencies end up in one figure.

    .. code-block:: sql

        select
            merchant_key,
            sum(amount_minor) as amount_minor
        from payments
        group by merchant_key

    **Best practice**

    Group by the currency, or sum what was converted at the rate of its day.

    .. code-block:: sql

        select
            merchant_key,
            currency,
            sum(amount_minor) as amount_minor,
            sum(reporting_amount_minor) as reporting_amount_minor
        from payments
        group by merchant_key, currency
    """

    name = "payments.money_sum"
    groups = ("all", "payments")
    crawl_behaviour = SegmentSeekerCrawler({"function"})
    targets_templated = True

    def _eval(self, context: RuleContext) -> LintResult | None:
        function = context.segment
        name = function.get_child("function_name")
        if name is None or name.raw.lower() not in _ADDING:
            return None
        mixed = [column for column in _values(function) if _MONEY.match(column) and not _CONVERTED.match(column)]
        if not mixed or any(_names_currency(clause) for clause in _groups(function, context.parent_stack)):
            return None
        return LintResult(
            anchor=function,
            description=f"{name.raw}({mixed[0]}) adds up money of all currencies: group by currency, or convert first.",
        )


def _values(function: BaseSegment) -> Iterator[str]:
    """Yield the columns whose values a function adds up: the condition of a case decides, and is not added up."""
    contents = function.get_child("function_contents")
    for column in contents.recursive_crawl("column_reference") if contents else ():
        parents = [step.segment for step in contents.path_to(column)] if contents else []
        if not any(_is_condition(outer, inner) for outer, inner in zip(parents, [*parents[1:], column], strict=True)):
            yield column.raw.lower().rpartition(".")[2].strip('"')


def _is_condition(clause: BaseSegment, part: BaseSegment) -> bool:
    """Say whether a part of a when clause stands before its ``then``."""
    if not clause.is_type("when_clause"):
        return False
    words = [word for word in clause.segments if word.raw.upper() == "THEN"]
    return bool(words) and clause.segments.index(part) < clause.segments.index(words[0])


def _groups(function: BaseSegment, parents: tuple[BaseSegment, ...]) -> Iterator[BaseSegment]:
    """Yield what tells one group of rows from another: the partition of a window, else the grouping."""
    over = function.get_child("over_clause")
    if over is not None:
        yield from over.recursive_crawl("partitionby_clause")
        return
    select = next(parent for parent in reversed(parents) if parent.is_type("select_statement"))
    yield from select.get_children("groupby_clause")


def _names_currency(clause: BaseSegment) -> bool:
    columns = (column.raw.lower().strip('"') for column in clause.recursive_crawl("column_reference"))
    return any(column.endswith("currency") for column in columns)

"""Rules of this project for sqlfluff, which finds them by the entry point of this package."""

from typing import Any

from sqlfluff.core.plugin import hookimpl
from sqlfluff.core.rules import BaseRule


@hookimpl
def get_rules() -> list[type[BaseRule]]:
    """Tell sqlfluff which rules there are. It wants them imported no earlier."""
    from payments.lint.money_sum import Rule_Payments_PM01

    return [Rule_Payments_PM01]


@hookimpl
def load_default_config() -> dict[str, Any]:
    """Tell sqlfluff the settings of the rules: there are none."""
    return {}

"""Stands in for dbt's ``adapter`` while sqlfluff renders a model: a dispatched macro becomes a call of that name.

The linter looks at the shape of the SQL around it; which engine's text the macro gives makes no difference there.
"""

from collections.abc import Callable


def dispatch(name: str, package: str) -> Callable[..., str]:
    """Return a stand-in for the macro ``name``: it renders as a function call with the macro's arguments."""
    del package

    def call(*arguments: object) -> str:
        return f"{name}({', '.join(str(argument) for argument in arguments)})"

    return call

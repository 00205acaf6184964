"""What every example query gives, whichever store it asks: an answer, and the plan by which it is found."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from payments.errors import UsageError

Given = Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """The rows of a query, at most as many as wanted; ``is_cut`` says that there are more. Parameters are as used."""

    columns: list[str]
    rows: list[list[Any]]
    parameters: Mapping[str, object]
    is_cut: bool


@dataclass(frozen=True)
class Access:
    """One reading of a relation: what it reads for what, and by which index; None when it looks at all of it.

    ``plan`` is the plan of this access alone, where the store tells one for each.
    """

    relation: str
    what: str
    index: str | None
    plan: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    """How a query is answered: its accesses, and the plan in the store's own words."""

    accesses: list[Access]
    text: str

    @property
    def is_by_index(self) -> bool:
        """Whether every access goes through an index."""
        return all(access.index is not None for access in self.accesses)


@dataclass(frozen=True)
class Query:
    """An example query: what it asks and where it runs, and how to run and to explain it.

    ``answer`` takes the given parameters and the most rows that are wanted; ``plan`` takes the given parameters. Both
    raise ``UsageError`` for a parameter that does not fit and for a store that cannot be reached.
    """

    name: str
    question: str
    store: str
    parameters: tuple[str, ...]
    answer: Callable[[Given, int], Answer]
    plan: Callable[[Given], Plan]


def refuse_strangers(query: str, given: Given, known: Iterable[str]) -> None:
    """Raise UsageError when a parameter is given that the query does not have."""
    names = list(known)
    if strangers := sorted(given.keys() - set(names)):
        told = ", ".join(names) or "none"
        raise UsageError(f"{query} has no parameter {', '.join(strangers)} (there are: {told}).")

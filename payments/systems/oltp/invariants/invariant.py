"""What an invariant is: a query that returns what breaks it, and the rows it is asked of."""

from dataclasses import dataclass

SCHEMAS = ("core", "ledger", "identity", "vault", "rules", "ops", "api")


@dataclass(frozen=True)
class Invariant:
    """An invariant as a query with one text column, which names each thing that breaks it.

    ``asked_of`` is a table, or a query in brackets, whose rows are what the query looks at; ``{schemas}`` in either
    stands for the list of SCHEMAS.
    """

    name: str
    asked_of: str
    violations: str

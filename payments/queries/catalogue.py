"""All example queries, of every store, by name."""

from difflib import get_close_matches

from payments.errors import UsageError
from payments.queries import documents, operational, warehouse
from payments.queries.answers import Query


def all_queries() -> list[Query]:
    """Return every example query: those of the document store, the operational store and the warehouse, by name."""
    return [
        query
        for store in (documents, operational, warehouse)
        for query in sorted(store.queries(), key=lambda query: query.name)
    ]


def query_named(name: str) -> Query:
    """Return the query of a name.

    Raises:
        UsageError: there is none; the message gives the closest ones.
    """
    known = {query.name: query for query in all_queries()}
    if name in known:
        return known[name]
    # The stores spell with hyphens or underscores; a part of a name is a hint as well.
    folded = {other.replace("-", "_"): other for other in known}
    wanted = name.replace("-", "_")
    close = get_close_matches(wanted, folded, n=3, cutoff=0.5)
    close += [other for other in folded if wanted in other and other not in close][: 3 - len(close)]
    hint = f"did you mean {', '.join(folded[other] for other in close)}?" if close else "see payments query list."
    raise UsageError(f"There is no query {name}: {hint}")

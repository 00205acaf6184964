"""The example queries of the operational store: ``docs/queries/*.sql``, several to a file.

Each begins with its name and purpose and the index that answers it; its parameters are psql variables. One that nobody
gives is taken from an example row of the table, a moment from the clock.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import psycopg

from payments.errors import UsageError
from payments.queries.answers import Access, Answer, Given, Plan, Query, refuse_strangers
from payments.settings import PROJECT_ROOT
from payments.systems.oltp.connection import connect

STORE = "operational store"
FOLDER = PROJECT_ROOT / "docs" / "queries"
_QUERY = re.compile(r"^-- ([a-z-]+): (.+)\n-- index: (\S+)\n((?:(?!--).*\n)+)", re.MULTILINE)
_PARAMETER = re.compile(r":'(\w+)'")
_DAYS_BACK = {"since": 1, "until": 0, "end_of_month": 0, "day": 0}


@dataclass(frozen=True)
class OperationalQuery:
    """A documented query: its name, what it is for, the index that it needs, and its text with psql variables."""

    name: str
    purpose: str
    index: str
    text: str

    @property
    def parameters(self) -> list[str]:
        """The psql variables, each once, in order."""
        return list(dict.fromkeys(_PARAMETER.findall(self.text)))

    @property
    def table(self) -> str:
        """The table that the query is about: the first that it reads."""
        found = re.search(r"from (\w+\.\w+)", self.text)
        if found is None:
            raise UsageError(f"{self.name} reads no table.")
        return found.group(1)

    @property
    def bindable(self) -> str:
        """The text as psycopg takes it: parameters by name."""
        return _PARAMETER.sub(r"%(\1)s", self.text.strip().rstrip(";").replace("%", "%%"))


@cache
def operational_queries(folder: Path = FOLDER) -> tuple[OperationalQuery, ...]:
    """Return the documented queries.

    Raises:
        UsageError: a query is not written like the others.
    """
    found: list[OperationalQuery] = []
    for path in sorted(folder.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        of_file = [OperationalQuery(*match) for match in _QUERY.findall(text)]
        if len(of_file) != text.count("-- index: "):
            raise UsageError(f"{path} has a query that is not written like the others: name and purpose, index, text.")
        found += of_file
    return tuple(found)


def queries() -> list[Query]:
    """Return the queries of the operational store."""
    return [
        Query(q.name, q.purpose, STORE, tuple(q.parameters), partial(_answer, q), partial(_plan, q))
        for q in operational_queries()
    ]


def _answer(query: OperationalQuery, given: Given, limit: int) -> Answer:
    with _reading(query) as connection:
        values = _values(connection, query, given)
        cursor = _execute(connection, query.bindable, values)
        rows = [list(row) for row in cursor.fetchmany(limit + 1)]
        columns = [column.name for column in cursor.description or ()]
    return Answer(columns, rows[:limit], values, len(rows) > limit)


def _plan(query: OperationalQuery, given: Given) -> Plan:
    with _reading(query) as connection:
        values = _values(connection, query, given)
        row = _execute(connection, f"explain (format json, verbose) {query.bindable}", values).fetchone()
        lines = _execute(connection, f"explain {query.bindable}", values).fetchall()
    if row is None:
        raise UsageError(f"PostgreSQL gives no plan of {query.name}.")
    return Plan(list(_accesses(row[0][0]["Plan"])), "\n".join(line for (line,) in lines))


@contextmanager
def _reading(query: OperationalQuery) -> Iterator[psycopg.Connection]:
    """Open the store for reading; what it refuses there becomes one line."""
    with connect() as connection:
        connection.read_only = True
        try:
            yield connection
        except psycopg.Error as error:
            raise UsageError(f"{query.name} cannot be run: {str(error).splitlines()[0]}") from error


def _execute(connection: psycopg.Connection, text: str, values: Given) -> psycopg.Cursor[tuple[Any, ...]]:
    # The client binds the parameters as texts without a type, as psql does with its variables.
    return psycopg.ClientCursor(connection).execute(text.encode(), dict(values))


def _values(connection: psycopg.Connection, query: OperationalQuery, given: Given) -> dict[str, str]:
    refuse_strangers(query.name, given, query.parameters)
    now = datetime.now(UTC)
    moments = {name: (now - timedelta(days=days)).isoformat() for name, days in _DAYS_BACK.items()}
    values = {name: moments[name] for name in query.parameters if name in moments} | dict(given)
    missing = [name for name in query.parameters if name not in values]
    values |= _example(connection, query, missing)
    if wanted := [name for name in missing if name not in values]:
        raise UsageError(f"{query.name} needs {' '.join(f'--set {name}=...' for name in wanted)}")
    return values


def _example(connection: psycopg.Connection, query: OperationalQuery, names: list[str]) -> dict[str, str]:
    """Return the values of columns in some row of the query's table; empty when no row has them all."""
    columns = connection.execute(f"select * from {query.table} limit 0".encode()).description or ()
    if not names or not set(names) <= {column.name for column in columns}:
        return {}
    texts = ", ".join(f"{name}::text" for name in names)
    row = connection.execute(
        f"select {texts} from {query.table} where num_nulls({', '.join(names)}) = 0 limit 1".encode()
    ).fetchone()
    return {} if row is None else dict(zip(names, row, strict=True))


def _accesses(node: dict[str, Any]) -> Iterator[Access]:
    if "Relation Name" in node:
        index = next((inner["Index Name"] for inner in _nodes(node) if "Index Name" in inner), None)
        yield Access(f"{node['Schema']}.{node['Relation Name']}", node["Node Type"].lower(), index)
    for child in node.get("Plans", ()):
        yield from _accesses(child)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)

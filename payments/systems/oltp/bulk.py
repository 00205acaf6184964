"""Loading a history by COPY: constraints that are checked row by row step aside and are checked at once afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import Connection, sql

from payments.systems.oltp.check import GUARDED_BY_TRIGGERS, ask

_SCHEMAS = ["core", "ledger", "identity", "vault"]


class BulkLoadError(Exception):
    """The loaded rows break an invariant that a trigger guards; nothing of them was kept."""


@contextmanager
def bulk_load(connection: Connection) -> Iterator[None]:
    """Drop the foreign keys and switch the triggers off for the body, then put both back and check all rows at once.

    Everything happens in the transaction of the connection (in one of its own when it has none): a kill, or an error in
    the body, leaves the store as it was. Others cannot use the tables meanwhile.

    Raises:
        psycopg.errors.ForeignKeyViolation: a loaded row refers to nothing.
        BulkLoadError: the loaded rows break what the triggers guard.
    """
    with connection.transaction():
        # Deferred triggers of earlier statements must have run before their tables can be altered.
        connection.execute("set constraints all immediate")
        connection.execute("set local maintenance_work_mem = '512MB'")
        connection.execute("set local work_mem = '128MB'")
        tables = _tables(connection)
        foreign_keys = _foreign_keys(connection)
        for table, name, _ in foreign_keys:
            _execute(connection, "alter table {} drop constraint {}", table, sql.Identifier(name))
        for table in tables:
            _execute(connection, "alter table {} disable trigger user", table)
        yield
        for table in tables:
            _execute(connection, "analyze {}", table)
        for table, name, definition in foreign_keys:
            _execute(connection, "alter table {} add constraint {} {}", table, sql.Identifier(name), definition)
        for table in tables:
            _execute(connection, "alter table {} enable trigger user", table)
        connection.execute("set constraints all deferred")
        broken = [result for result in ask(connection, GUARDED_BY_TRIGGERS) if not result.passed]
        if broken:
            raise BulkLoadError("; ".join(f"{result.name}: {result.detail}" for result in broken))


def _tables(connection: Connection) -> list[sql.Composable]:
    rows = connection.execute(
        "select schemaname, tablename from pg_tables where schemaname = any(%s) order by 1, 2", (_SCHEMAS,)
    )
    return [sql.Identifier(schema, table) for schema, table in rows]


def _foreign_keys(connection: Connection) -> list[tuple[sql.Composable, str, sql.Composable]]:
    """Return table, name and definition of each foreign key, as the catalogue has them."""
    rows = connection.execute(
        """
        select n.nspname, r.relname, c.conname, pg_get_constraintdef(c.oid)
        from pg_constraint as c
        inner join pg_class as r on c.conrelid = r.oid
        inner join pg_namespace as n on r.relnamespace = n.oid
        where c.contype = 'f' and n.nspname = any(%s)
        order by 1, 2, 3
        """,
        (_SCHEMAS,),
    ).fetchall()
    return [(sql.Identifier(schema, table), name, sql.SQL(definition)) for schema, table, name, definition in rows]


def _execute(connection: Connection, statement: str, *parts: sql.Composable) -> None:
    connection.execute(sql.SQL(statement).format(*parts))

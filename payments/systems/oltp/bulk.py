"""Loading a history by COPY: constraints that are checked row by row step aside and are checked at once afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from payments.systems.oltp.check import GUARDED_BY_TRIGGERS, ask

_SCHEMAS = ["core", "ledger", "identity", "vault", "ops"]


class BulkLoadError(Exception):
    """The loaded rows break an invariant that a trigger guards; nothing of them was kept."""


@contextmanager
def bulk_load(connection: Connection, name: str) -> Iterator[None]:
    """Drop the foreign keys and switch the triggers off for the body, then put both back and check all rows at once.

    Everything happens in the transaction of the connection (in one of its own when it has none): a kill, or an error in
    the body, leaves the store as it was. Others cannot use the tables meanwhile. The audit trail gets one line with the
    number of rows of each table. The caller seals the ledger (`seal`) when the transaction is through.

    Args:
        connection: of a superuser or the owner of the tables.
        name: of what is loaded, for the audit trail.

    Raises:
        psycopg.errors.ForeignKeyViolation: a loaded row refers to nothing.
        BulkLoadError: the loaded rows break what the triggers guard.
    """
    with connection.transaction():
        # Deferred triggers of earlier statements must have run before their tables can be altered.
        connection.execute("set constraints all immediate")
        connection.execute("set local maintenance_work_mem = '512MB'")
        connection.execute("set local work_mem = '128MB'")
        connection.execute("set local default_statistics_target = 20")
        triggered = _triggered_tables(connection)
        foreign_keys = _foreign_keys(connection)
        for table, key, _ in foreign_keys:
            _execute(connection, "alter table {} drop constraint {}", table, sql.Identifier(key))
        for table in triggered:
            _execute(connection, "alter table {} disable trigger user", table)
        before = _inserted(connection)
        yield
        loaded = {key: rows - before.get(key, 0) for key, rows in _inserted(connection).items()}
        # A small sample of the whole is what the keys below are planned with; the partitions get their statistics from
        # autovacuum, which this does not keep from them.
        for loaded_table in sorted(loaded):
            _execute(connection, "analyze only {}", sql.Identifier(*loaded_table.split(".")))
        for table, key, definition in foreign_keys:
            _execute(connection, "alter table {} add constraint {} {}", table, sql.Identifier(key), definition)
        for table in triggered:
            _execute(connection, "alter table {} enable trigger user", table)
        connection.execute("set constraints all deferred")
        broken = [result for result in ask(connection, GUARDED_BY_TRIGGERS) if not result.passed]
        if broken:
            raise BulkLoadError("; ".join(f"{result.name}: {result.detail}" for result in broken))
        # Row by row the triggers would have told of each; of a load one line tells.
        counts = {key: rows for key, rows in sorted(loaded.items()) if rows}
        connection.execute("call ops.record(null, 'all', 'bulk load', %s, %s)", (name, Jsonb({"rows": counts})))


def _triggered_tables(connection: Connection) -> list[sql.Composable]:
    """Return every table, and every partition, that has a trigger of its own."""
    rows = connection.execute(
        """
        select distinct n.nspname, r.relname
        from pg_trigger as t
        inner join pg_class as r on t.tgrelid = r.oid
        inner join pg_namespace as n on r.relnamespace = n.oid
        where n.nspname = any(%s) and not t.tgisinternal
        order by 1, 2
        """,
        (_SCHEMAS,),
    )
    return [sql.Identifier(schema, table) for schema, table in rows]


def _foreign_keys(connection: Connection) -> list[tuple[sql.Composable, str, sql.Composable]]:
    """Return table, name and definition of each foreign key as it was declared; partitions have theirs from it."""
    rows = connection.execute(
        """
        select n.nspname, r.relname, c.conname, pg_get_constraintdef(c.oid)
        from pg_constraint as c
        inner join pg_class as r on c.conrelid = r.oid
        inner join pg_namespace as n on r.relnamespace = n.oid
        where c.contype = 'f' and c.conparentid = 0 and n.nspname = any(%s)
        order by 1, 2, 3
        """,
        (_SCHEMAS,),
    ).fetchall()
    return [(sql.Identifier(schema, table), name, sql.SQL(definition)) for schema, table, name, definition in rows]


def _inserted(connection: Connection) -> dict[str, int]:
    """Return how many rows this transaction inserted into each table, partitions counted with their table."""
    rows = connection.execute(
        """
        select n.nspname || '.' || c.relname, sum(s.n_tup_ins)::bigint
        from pg_stat_xact_user_tables as s
        inner join pg_class as c on coalesce(pg_partition_root(s.relid), s.relid) = c.oid
        inner join pg_namespace as n on c.relnamespace = n.oid
        where n.nspname = any(%s) and s.n_tup_ins > 0
        group by 1
        """,
        (_SCHEMAS,),
    )
    return dict(rows.fetchall())


def _execute(connection: Connection, statement: str, *parts: sql.Composable) -> None:
    connection.execute(sql.SQL(statement).format(*parts))

"""Writing a history into the operational store: COPY of CSV text, all tables in the caller's one transaction."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import pyarrow as pa
import pyarrow.csv
from psycopg import Connection, sql

from payments.simulation.columns import Table
from payments.simulation.plan import Plan
from payments.systems.oltp.bulk import bulk_load

_BATCH_ROWS = 25_000
_BATCHES_AHEAD = 16
_WITHOUT_HEADER = pyarrow.csv.WriteOptions(include_header=False)


def write_tables(
    connection: Connection, plan: Plan, tables: list[Table], advance: Callable[[str, int, int], None]
) -> None:
    """Copy the tables; indexes and constraints step aside for it and are complete again when this returns.

    The server sorts the indexes of a table while the batches of the next tables are made in a thread beside it.

    Args:
        connection: within a transaction, which the caller commits.
        plan: of the history, which names the load and says which months it needs.
        tables: in any order, each at most once.
        advance: called with the table's name, the rows just written, and how many there are in all.

    Raises:
        psycopg.Error: a row breaks a constraint of the store.
        BulkLoadError: the rows break what triggers guard on the live path.
    """
    connection.execute("select ops.ensure_months(%s, %s)", (plan.start, plan.end))
    # The load itself is told of in the audit trail of today.
    connection.execute("select ops.ensure_months(current_date, current_date)")
    with bulk_load(connection, plan.name):
        indexes = {table.name: _take_indexes_away(connection, table.name) for table in tables}
        with ThreadPoolExecutor(max_workers=1) as maker:
            made = _made_ahead(tables, maker)
            for table in tables:
                statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(
                    sql.Identifier(*table.name.split(".")), sql.SQL(", ").join(map(sql.Identifier, table.columns))
                )
                with connection.cursor() as cursor, cursor.copy(statement) as copy:
                    for rows, text in islice(made, len(slices(table))):
                        copy.write(text)
                        advance(table.name, rows, table.rows)
                for index in indexes[table.name]:
                    connection.execute(index)


def csv_text(batch: pa.RecordBatch) -> memoryview:
    """Return a batch as CSV in the form of COPY: a null is empty, a text stands in quotes."""
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(batch, sink, _WITHOUT_HEADER)
    return memoryview(sink.getvalue())


def slices(table: Table) -> list[slice]:
    """Return the slices in which a table is made."""
    starts = range(0, table.rows, _BATCH_ROWS)
    return [slice(start, min(start + _BATCH_ROWS, table.rows)) for start in starts]


def _made_ahead(tables: list[Table], maker: ThreadPoolExecutor) -> Iterator[tuple[int, memoryview]]:
    """Yield the number of rows and the text of every batch of every table; a few are always being made ahead."""

    def make(table: Table, rows: slice) -> tuple[int, memoryview]:
        return rows.stop - rows.start, csv_text(table.batch(rows))

    ahead: deque[Future[tuple[int, memoryview]]] = deque()
    for table in tables:
        for rows in slices(table):
            ahead.append(maker.submit(make, table, rows))
            if len(ahead) > _BATCHES_AHEAD:
                yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def _take_indexes_away(connection: Connection, table: str) -> list[sql.SQL | sql.Composed]:
    """Drop the indexes of a table, and the constraints that rest on one; return the statements that make them again.

    Sorting a whole index once is several times faster than growing it row by row.
    """
    name = sql.Identifier(*table.split("."))
    found = connection.execute(
        """
        select
            n.nspname,
            i.relname,
            c.conname,
            pg_get_constraintdef(c.oid),
            -- Of a partitioned table the catalogue describes the index without those of the partitions.
            regexp_replace(pg_get_indexdef(x.indexrelid), '^(.+?) ON ONLY ', '\\1 ON ')
        from pg_index as x
        inner join pg_class as i on x.indexrelid = i.oid
        inner join pg_namespace as n on i.relnamespace = n.oid
        left join pg_constraint as c on x.indexrelid = c.conindid and c.conrelid = x.indrelid
        where x.indrelid = to_regclass(%s)
        order by x.indexrelid
        """,
        (table,),
    ).fetchall()
    again: list[sql.SQL | sql.Composed] = []
    for schema, index, constraint, definition, statement in found:
        if constraint is None:
            connection.execute(sql.SQL("drop index {}").format(sql.Identifier(schema, index)))
            again.append(sql.SQL(statement))
        else:
            named = sql.Identifier(constraint)
            connection.execute(sql.SQL("alter table {} drop constraint {}").format(name, named))
            again.append(sql.SQL("alter table {} add constraint {} {}").format(name, named, sql.SQL(definition)))
    return again

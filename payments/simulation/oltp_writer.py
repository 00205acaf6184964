"""Writing a history into the operational store: COPY of CSV text, all tables in the caller's one transaction."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.csv
from psycopg import Connection, sql

from payments.simulation.tables import Table
from payments.systems.oltp.bulk import bulk_load

_BATCH_ROWS = 25_000
_WITHOUT_HEADER = pa.csv.WriteOptions(include_header=False)


def write_tables(connection: Connection, tables: list[Table], advance: Callable[[str, int, int], None]) -> None:
    """Copy the tables in their order; foreign keys and triggers are checked set-based at the end, before this returns.

    Args:
        connection: within a transaction, which the caller commits.
        tables: in an order that satisfies the foreign keys.
        advance: called with the table's name, the rows just written, and how many there are in all.

    Raises:
        psycopg.Error: a row breaks a constraint of the store.
    """
    with bulk_load(connection), ThreadPoolExecutor(max_workers=1) as maker:
        for table in tables:
            copy_table(connection, table, maker, advance)


def copy_table(
    connection: Connection, table: Table, maker: ThreadPoolExecutor, advance: Callable[[str, int, int], None]
) -> None:
    """Copy one table; while the server takes one batch, the next one is made beside it."""
    statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(
        sql.Identifier(*table.name.split(".")), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for rows, text in _made_ahead(table, maker):
            copy.write(text)
            advance(table.name, rows, table.rows)


def csv_text(batch: pa.RecordBatch) -> memoryview:
    """Return a batch as CSV in the form of COPY: a null is empty, a text stands in quotes."""
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(batch, sink, _WITHOUT_HEADER)
    return memoryview(sink.getvalue())


def batches(table: Table, batch_rows: int = _BATCH_ROWS) -> Iterator[slice]:
    """Return the slices in which a table is made."""
    for start in range(0, table.rows, batch_rows):
        yield slice(start, min(start + batch_rows, table.rows))


def _made_ahead(table: Table, maker: ThreadPoolExecutor) -> Iterator[tuple[int, memoryview]]:
    def make(rows: slice) -> tuple[int, memoryview]:
        return rows.stop - rows.start, csv_text(table.batch(rows))

    waiting = None
    for rows in batches(table):
        following = maker.submit(make, rows)
        if waiting is not None:
            yield waiting.result()
        waiting = following
    if waiting is not None:
        yield waiting.result()

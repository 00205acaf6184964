"""The bulk path: rows by COPY are held to what single rows are held to, and a failure leaves nothing."""

import psycopg
import pytest
from psycopg import errors, sql

from payments.systems.oltp.bulk import BulkLoadError, bulk_load
from payments.systems.oltp.check import check
from payments.systems.oltp.connection import connect
from payments.systems.oltp.ledger import seal
from tests.conftest import empty_oltp
from tests.systems.shop import busy_day

Tables = dict[tuple[str, str], bytes]


def shape(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    """Return constraints and triggers of the store as the catalogue has them."""
    return connection.execute(
        """
        select n.nspname, c.conrelid::regclass::text, c.conname, pg_get_constraintdef(c.oid), c.convalidated::text
        from pg_constraint as c inner join pg_namespace as n on c.connamespace = n.oid
        where n.nspname in ('core', 'ledger', 'identity', 'vault', 'ops')
        union all
        select n.nspname, r.relname, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled::text
        from pg_trigger as t
        inner join pg_class as r on t.tgrelid = r.oid
        inner join pg_namespace as n on r.relnamespace = n.oid
        where n.nspname in ('core', 'ledger', 'identity', 'vault', 'ops') and not t.tgisinternal
        order by 1, 2, 3
        """
    ).fetchall()


def copy_out(connection: psycopg.Connection) -> Tables:
    """Return every filled table but the reference data as COPY text, in an order that foreign keys would refuse."""
    names = connection.execute(
        """
        select n.nspname, c.relname
        from pg_class as c inner join pg_namespace as n on c.relnamespace = n.oid
        where n.nspname in ('core', 'ledger')
            and c.relkind in ('r', 'p')
            and not c.relispartition
            and c.relname not in ('currencies', 'countries', 'merchant_categories', 'account_codes')
        order by 1 desc, 2 desc
        """
    ).fetchall()
    tables: Tables = {}
    for schema, table in names:
        with connection.cursor().copy(
            sql.SQL("copy (select * from {}) to stdout").format(sql.Identifier(schema, table))
        ) as copy:
            tables[schema, table] = b"".join(bytes(block) for block in copy)
    return tables


def load(connection: psycopg.Connection, tables: Tables, then: str = "select") -> None:
    """Load tables in bulk, with one more statement before the load ends."""
    with bulk_load(connection, "a busy day"):
        copy_in(connection, tables)
        connection.execute(then.encode())


def copy_in(connection: psycopg.Connection, tables: Tables) -> None:
    for (schema, table), rows in tables.items():
        with connection.cursor().copy(sql.SQL("copy {} from stdin").format(sql.Identifier(schema, table))) as copy:
            copy.write(rows)


@pytest.fixture
def history(oltp: psycopg.Connection) -> Tables:
    """A busy day as COPY text; the store itself is emptied again."""
    busy_day(oltp)
    tables = copy_out(oltp)
    empty_oltp(oltp)
    return tables


def test_bulk_and_live_path_satisfy_the_same_checks(oltp: psycopg.Connection, history: Tables) -> None:
    before = shape(oltp)
    with connect() as connection:
        load(connection, history)
    assert shape(oltp) == before
    assert copy_out(oltp) == history
    assert [result for result in check() if not result.passed] == []
    with pytest.raises(errors.InsufficientPrivilege):
        oltp.execute("delete from ledger.entries")


def test_live_traffic_goes_on_in_the_transaction_of_the_load(oltp: psycopg.Connection, history: Tables) -> None:
    with connect() as connection:
        load(connection, history)
        connection.execute("select core.refund_charge('acct_shop', 'ch_8')")
    assert oltp.execute("select amount_refunded_minor from core.charges where charge_id = 'ch_8'").fetchone() == (
        8_000,
    )
    assert all(result.passed for result in check())


def test_a_load_is_told_of_in_the_audit_trail_and_its_postings_are_sealed(
    oltp: psycopg.Connection, history: Tables
) -> None:
    with connect() as connection:
        load(connection, history)
    counts = {f"{schema}.{table}": rows.count(b"\n") for (schema, table), rows in history.items() if rows}
    told = oltp.execute("select row_key, changes -> 'rows' from ops.audit_log").fetchall()
    assert told == [("a busy day", counts)]
    assert seal(oltp) == counts["ledger.transactions"]
    assert seal(oltp) == 0
    assert oltp.execute("select * from ledger.broken_seals()").fetchall() == []


@pytest.mark.parametrize(
    "fault",
    [
        "update ledger.entries set amount_minor = amount_minor + 1 where entry_no = 1",
        "update core.charges set amount_refunded_minor = 0",
        "update core.charges set is_disputed = false",
    ],
)
def test_rows_that_a_trigger_would_refuse_are_refused(oltp: psycopg.Connection, history: Tables, fault: str) -> None:
    before = shape(oltp)
    with connect() as connection, pytest.raises(BulkLoadError):
        load(connection, history, fault)
    assert shape(oltp) == before
    assert oltp.execute("select count(*) from core.charges").fetchone() == (0,)


def test_rows_that_refer_to_nothing_are_refused(oltp: psycopg.Connection, history: Tables) -> None:
    before = shape(oltp)
    with connect() as connection, pytest.raises(errors.ForeignKeyViolation):
        load(connection, {name: rows for name, rows in history.items() if name != ("core", "customers")})
    assert shape(oltp) == before


def test_an_error_in_the_body_leaves_everything_as_it_was(oltp: psycopg.Connection, history: Tables) -> None:
    before = shape(oltp)
    with connect() as connection:
        connection.execute("select")  # a transaction of the caller, who carries on after the error
        with pytest.raises(errors.DivisionByZero):
            load(connection, history, "select 1 / 0")
        connection.commit()
    assert shape(oltp) == before
    assert oltp.execute("select count(*) from core.charges").fetchone() == (0,)

"""Every change of an audited table leaves who, when, what and why, in its own transaction."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import make_conninfo

from payments.systems.oltp.connection import connect, dsn
from tests.conftest import Servers, empty_oltp
from tests.systems.two_merchants import OURS, THEIRS, open_two_merchants

# A change that each table allows: the row by its key, what is set, and what the trail says of it (old, new).
CHANGES: dict[str, tuple[str, str, dict[str, list[object]]]] = {
    "core.merchants": (OURS, "business_name = 'New'", {"business_name": [f"Business of {OURS}", "New"]}),
    "core.customers": ("cus_1", "city = 'Paris'", {"city": ["Lyon", "Paris"]}),
    "core.payment_methods": (
        "pm_1",
        "exp_year = 2031, exp_month = 1",
        {"exp_year": [2030, 2031], "exp_month": [12, 1]},
    ),
    "core.payment_intents": (
        "pi_1",
        "cancellation_reason = 'duplicate'",
        {"cancellation_reason": [None, "duplicate"]},
    ),
    "core.charges": ("ch_1", "device_id = 'd1'", {"device_id": [None, "d1"]}),
    "core.refunds": ("re_1", "failure_reason = 'lost'", {"failure_reason": [None, "lost"]}),
    "core.disputes": ("dp_1", "status = 'under_review'", {"status": ["needs_response", "under_review"]}),
    "core.setup_intents": ("seti_1", "usage = 'on_session'", {"usage": ["off_session", "on_session"]}),
    "core.reviews": ("prv_1", "opened_reason = 'manual'", {"opened_reason": ["rule", "manual"]}),
    "core.early_fraud_warnings": ("issfr_1", "is_actionable = false", {"is_actionable": [True, False]}),
    "core.products": ("prod_1", "is_active = false", {"is_active": [True, False]}),
    "core.prices": ("price_1", "unit_amount_minor = 950", {"unit_amount_minor": [900, 950]}),
    "core.coupons": ("co_1", "is_valid = false", {"is_valid": [True, False]}),
    "core.subscriptions": ("sub_1", "status = 'paused'", {"status": ["active", "paused"]}),
    "core.subscription_items": ("", "quantity = 2", {"quantity": [1, 2]}),
    "core.discounts": ("", "ends_at = '2027-01-01'", {"ends_at": [None, "2027-01-01T00:00:00+00:00"]}),
    "core.invoices": ("in_1", "due_at = null", {"due_at": ["2026-04-09T12:00:00+00:00", None]}),
    "core.invoice_lines": ("", "quantity = 3", {"quantity": [1, 3]}),
    "core.checkout_sessions": ("cs_1", "status = 'complete'", {"status": ["open", "complete"]}),
    "core.payouts": ("po_1", "arrival_date = '2026-04-01'", {"arrival_date": ["2026-03-22", "2026-04-01"]}),
    "core.transfers": ("tr_1", "amount_reversed_minor = 700", {"amount_reversed_minor": [0, 700]}),
    "core.topups": ("tu_1", "status = 'reversed'", {"status": ["succeeded", "reversed"]}),
    "core.adjustments": (
        "adj_1",
        "status = 'rejected', decided_by = 'eve', decided_at = '2026-04-01'",
        {
            "status": ["proposed", "rejected"],
            "decided_by": [None, "eve"],
            "decided_at": [None, "2026-04-01T00:00:00+00:00"],
        },
    ),
    "identity.customers": ("cus_1", "name_encrypted = '\\xff'", {"name_encrypted": ["\\x01", "\\xff"]}),
}
APPEND_ONLY = {"core.application_fees", "core.credit_notes", "core.currency_conversions"}
# What tells of itself: append-only, and following from a row that is audited.
NOT_AUDITED = {
    "core.balance_transactions",
    "core.balance_transaction_fees",
    "core.payout_balance_transactions",
    "core.settlements",
}


@pytest.fixture(scope="module")
def store(servers: Servers) -> Iterator[psycopg.Connection]:
    """The store with two merchants."""
    with connect(autocommit=True) as connection:
        assert connection.info.port == servers.oltp_port
        empty_oltp(connection)
        open_two_merchants(connection)
        yield connection


def _tables(connection: psycopg.Connection, condition: str) -> set[str]:
    rows = connection.execute(
        f"""
        select format('%I.%I', n.nspname, c.relname)
        from pg_class as c
        inner join pg_namespace as n on c.relnamespace = n.oid
        where n.nspname in ('core', 'identity') and c.relkind in ('r', 'p') and not c.relispartition and {condition}
        """.encode()
    )
    return {name for (name,) in rows}


def _lines(connection: psycopg.Connection, table: str) -> list[tuple[object, ...]]:
    return connection.execute(
        """
        select actor, login, reason, request_id, merchant_id, operation, row_key, changes, at
        from ops.audit_log
        where table_name = %s and recorded_xid = pg_current_xact_id()
        """,
        (table,),
    ).fetchall()


def _count(connection: psycopg.Connection) -> int:
    row = connection.execute("select count(*) from ops.audit_log").fetchone()
    assert row is not None
    return int(row[0])


def test_every_tenant_table_is_audited_or_tells_of_itself(store: psycopg.Connection) -> None:
    audited = _tables(store, "exists (select from pg_trigger as t where t.tgrelid = c.oid and t.tgname = 'audited')")
    tenants = _tables(
        store, "exists (select from pg_attribute as a where a.attrelid = c.oid and a.attname = 'merchant_id')"
    )
    assert audited == CHANGES.keys() | APPEND_ONLY
    assert tenants == audited | NOT_AUDITED


@pytest.mark.parametrize("table", CHANGES)
def test_an_update_leaves_who_when_what_and_why(store: psycopg.Connection, table: str) -> None:
    key, assignment, changes = CHANGES[table]
    column = store.execute(
        """
        select a.attname from pg_index as i
        inner join pg_attribute as a on i.indrelid = a.attrelid and a.attnum = i.indkey[i.indnkeyatts - 1]
        where i.indrelid = %s::regclass and i.indisprimary
        """,
        (table,),
    ).fetchone()
    assert column is not None
    before = _count(store)
    with store.transaction(force_rollback=True):
        store.execute(
            "set local app.actor = 'ann'; set local app.reason = 'ticket 7'; set local app.request_id = 'r-7'"
        )
        row = store.execute(
            f"select {column[0]} from {table} where merchant_id = %s and {column[0]} like %s limit 1".encode(),
            (OURS, f"{key}%"),
        ).fetchone()
        assert row is not None
        store.execute(
            f"update {table} set {assignment} where merchant_id = %s and {column[0]} = %s".encode(), (OURS, row[0])
        )
        [(*who_and_what, at)] = _lines(store, table)
        assert who_and_what == ["ann", "postgres", "ticket 7", "r-7", OURS, "update", row[0], changes]
        assert isinstance(at, datetime)
        assert abs(datetime.now(UTC) - at) < timedelta(minutes=5)
    assert _count(store) == before


def test_every_row_was_recorded_when_it_was_made(store: psycopg.Connection) -> None:
    for table in sorted(CHANGES.keys() | APPEND_ONLY):
        rows = store.execute(f"select merchant_id, count(*) from {table} group by 1 order by 1".encode()).fetchall()
        inserts = store.execute(
            """
            select merchant_id, count(distinct row_key)
            from ops.audit_log
            where table_name = %s and operation = 'insert'
            group by 1
            order by 1
            """,
            (table,),
        ).fetchall()
        assert rows == inserts != [], table


@pytest.mark.parametrize("table", sorted(CHANGES.keys() | APPEND_ONLY | NOT_AUDITED | {"vault.subjects"}))
def test_nothing_is_removed_without_a_trace(store: psycopg.Connection, table: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege, match="append-only: DELETE is refused"):
        store.execute(f"delete from {table}".encode())
    if table in APPEND_ONLY | NOT_AUDITED:
        with pytest.raises(errors.InsufficientPrivilege, match="append-only: UPDATE is refused"):
            store.execute(f"update {table} set merchant_id = merchant_id".encode())


def test_the_trail_itself_cannot_be_changed(store: psycopg.Connection) -> None:
    for statement in ("update ops.audit_log set actor = 'nobody'", "delete from ops.audit_log"):
        with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
            store.execute(statement.encode())


def test_an_update_that_changes_nothing_is_a_line_without_changes(store: psycopg.Connection) -> None:
    with store.transaction(force_rollback=True):
        store.execute("update core.products set product_name = product_name where merchant_id = %s", (OURS,))
        [line] = _lines(store, "core.products")
        assert line[7] == {}


def test_a_session_may_say_whom_it_acts_for_but_not_who_logged_in(store: psycopg.Connection) -> None:
    store.execute("create role trial_clerk login password 'trial' in role payments_app")
    try:
        with psycopg.connect(make_conninfo(dsn(), user="trial_clerk", password="trial")) as login:
            login.execute("select set_config('app.merchant_id', %s, true)", (THEIRS,))
            login.execute("update core.customers set city = 'Nice'")
            login.execute("set local app.actor = 'postgres'")
            login.execute("update core.customers set city = 'Lille'")
            login.commit()
        lines = store.execute(
            "select actor, login, changes from ops.audit_log where login = 'trial_clerk' order by audit_id"
        ).fetchall()
        assert lines == [
            ("trial_clerk", "trial_clerk", {"city": ["Lyon", "Nice"]}),
            ("postgres", "trial_clerk", {"city": ["Nice", "Lille"]}),
        ]
    finally:
        store.execute("drop role trial_clerk")


def test_a_request_is_recorded_with_its_key(store: psycopg.Connection) -> None:
    with store.transaction(force_rollback=True):
        store.execute("select set_config('app.merchant_id', %s, true)", (OURS,))
        store.execute(
            """select api.call(%s, 'key-77', 'topups.create', '{"amount_minor": 5, "currency": "EUR"}')""", (OURS,)
        )
        [line] = _lines(store, "core.topups")
        assert line[3:6] == ("key-77", OURS, "insert")

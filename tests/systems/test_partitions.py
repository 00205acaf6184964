"""Months are made ahead, rows that came too early move into them, old ones go into files, and nothing is ever lost."""

import csv
import gzip
import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import errors
from typer.testing import CliRunner

from payments.cli import app
from payments.errors import UsageError
from payments.settings import PROJECT_ROOT
from payments.systems import statuses
from payments.systems.oltp.connection import connect
from payments.systems.oltp.partitions import create_months, later, month_of, partitions, retire, stray_rows

MARCH, APRIL, MAY = date(2019, 3, 1), date(2019, 4, 1), date(2019, 5, 1)
TABLES = ("ledger.entries", "ops.audit_log", "ops.outbox")


@pytest.fixture
def store(oltp: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The emptied store with a merchant; the months of 2019 that a test makes are gone at the end."""
    oltp.execute(
        """
        insert into core.merchants (
            merchant_id, business_name, mcc, country, default_currency, created_at, updated_at
        )
        values ('acct_old', 'Old shop', '5812', 'FR', 'EUR', now(), now())
        """
    )
    create_months()
    yield oltp
    oltp.execute("rollback")
    for partition in partitions():
        if partition.month is not None and partition.month.year == 2019:
            oltp.execute(f"drop table {partition.name}".encode())


def _happen(connection: psycopg.Connection, month: date, rows: int = 3) -> None:
    """Let postings, events and audit lines of an old month come in, with texts that are hard to write as CSV."""
    for number in range(rows):
        moment = datetime(month.year, month.month, 10 + number, tzinfo=UTC)
        connection.execute(
            "select core.create_topup('acct_old', 100, 'EUR', %s, %s)", (f"tu_{month:%m}{number}", moment)
        )
        connection.execute(
            """
            insert into ops.outbox (merchant_id, event_id, event_type, object_id, object_version, payload, created_at)
            values ('acct_old', %s, 'topup.succeeded', 'tu', 1, '{"text": "a \\"quoted\\", line\\nand another"}', %s)
            """,
            (f"evt_{month:%m}{number}", moment),
        )
        connection.execute(
            """
            insert into ops.audit_log (actor, reason, merchant_id, table_name, operation, row_key, changes, at)
            values ('ann', E'two\\nlines, and a comma', 'acct_old', 'core.topups', 'insert', 'tu', '{}', %s)
            """,
            (moment,),
        )


def _rows(connection: psycopg.Connection, table: str) -> list[tuple[object, ...]]:
    return connection.execute(f"select * from {table} order by 1, 2, 3".encode()).fetchall()


def _names() -> set[str]:
    return {partition.name for partition in partitions()}


def test_months_are_written_as_yyyy_mm() -> None:
    assert month_of("2026-02") == date(2026, 2, 1)
    assert [later(date(2026, 11, 1), n) for n in (-11, 0, 1, 2)] == [
        date(2025, 12, 1),
        date(2026, 11, 1),
        date(2026, 12, 1),
        date(2027, 1, 1),
    ]
    for text in ("2026", "2026-13", "2026-00", "26-01", "2026-1", "2026-01-01", "0000-01"):
        with pytest.raises(UsageError, match="YYYY-MM"):
            month_of(text)


def test_this_month_and_the_next_two_are_made_once(store: psycopg.Connection) -> None:
    today = datetime.now(UTC).date().replace(day=1)
    expected = {f"{table}_{later(today, n):%Y_%m}" for table in TABLES for n in range(3)}
    assert expected <= _names()
    assert create_months() == []
    assert sorted(create_months(ahead=3)) == [f"{table}_{later(today, 3):%Y_%m}" for table in TABLES]
    for table in TABLES:
        store.execute(f"drop table {table}_{later(today, 3):%Y_%m}".encode())


def test_rows_that_came_before_their_month_move_into_it(store: psycopg.Connection) -> None:
    _happen(store, MARCH)
    _happen(store, MAY)
    before = {table: _rows(store, table) for table in TABLES}
    assert stray_rows() == {"ledger.entries": 12, "ops.audit_log": 6, "ops.outbox": 6}
    shown = CliRunner().invoke(app, ["partitions", "status"])
    assert shown.exit_code == 1
    assert "ledger.entries: 12 rows outside their month" in shown.output
    assert "24 rows outside their month: run payments partitions create" in statuses()[0].missing

    assert sorted(create_months()) == [f"{table}_2019_{month}" for table in TABLES for month in ("03", "05")]
    assert set(stray_rows().values()) == {0}
    assert {table: _rows(store, table) for table in TABLES} == before
    assert CliRunner().invoke(app, ["partitions", "status"]).exit_code == 0
    assert not any("outside their month" in text for text in statuses()[0].missing)

    # What guards the table guards the new months, and the default ones after they were taken off and put back.
    for table in TABLES:
        for part in (f"{table}_2019_03", f"{table}_default"):
            assert _row_triggers(store, part) == _row_triggers(store, table)
        with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
            store.execute(f"delete from {table}_2019_03".encode())
    with pytest.raises(errors.CheckViolation, match="does not balance"):
        store.execute(
            """
            insert into ledger.entries_2019_03
            select (jsonb_populate_record(e, '{"entry_no": 9, "account_entry_no": 9}')).*
            from ledger.entries_2019_03 as e limit 1
            """
        )
    store.execute("select core.create_topup('acct_old', 100, 'EUR', 'tu_x', '2019-05-30')")
    assert set(stray_rows().values()) == {0}


def _row_triggers(connection: psycopg.Connection, table: str) -> list[str]:
    rows = connection.execute(
        "select tgname::text from pg_trigger where tgrelid = %s::regclass and tgname !~ '^RI_' order by 1", (table,)
    )
    return [name for (name,) in rows]


def test_truncate_is_refused_in_every_partition(store: psycopg.Connection) -> None:
    _happen(store, MARCH, rows=1)
    create_months()
    protected = [
        name
        for (name,) in store.execute(
            """
            select distinct p.relid::regclass::text
            from pg_trigger as t
            cross join lateral (
                select t.tgrelid as relid
                union
                select q.relid from pg_partition_tree(t.tgrelid) as q
            ) as p
            where t.tgname = 'no_truncate'
            order by 1
            """
        )
    ]
    assert {"ledger.entries", "ledger.entries_default", "ops.outbox_2019_03", "core.charges_p3"} <= set(protected)
    for name in protected:
        with pytest.raises(errors.InsufficientPrivilege, match="append-only: TRUNCATE is refused"):
            store.execute(f"truncate {name} cascade".encode())
    # Nothing that holds the business is left out.
    unprotected = store.execute(
        """
        select c.oid::regclass::text from pg_class as c
        inner join pg_namespace as n on c.relnamespace = n.oid
        where n.nspname in ('core', 'ledger', 'ops', 'identity') and c.relkind in ('r', 'p')
            and c.oid::regclass::text <> all(%s) and not c.relname ~ '^idempotency_keys'
        order by 1
        """,
        (protected,),
    ).fetchall()
    assert [name for (name,) in unprotected] == [
        "core.countries",
        "core.currencies",
        "core.merchant_categories",
        "ledger.account_codes",
        "ops.monthly_tables",
    ]


def test_retired_months_stand_in_files_and_nowhere_else(store: psycopg.Connection, tmp_path: Path) -> None:
    for month in (MARCH, APRIL, MAY):
        _happen(store, month)
    create_months()
    kept = {table: _rows(store, table) for table in ("ledger.entries", "ops.outbox_2019_05")}
    expected = {name: _rows(store, name) for name in ("ops.outbox_2019_03", "ops.audit_log_2019_04")}

    retired = retire(MAY, tmp_path / "archive")
    assert [(r.table, r.month, r.rows) for r in retired] == [
        (table, month, 3) for table in ("ops.audit_log", "ops.outbox") for month in (MARCH, APRIL)
    ]
    assert not {name for name in _names() if re.search("(outbox|audit_log)_2019_0[34]", name)}
    assert {table: _rows(store, table) for table in kept} == kept
    for r in retired:
        assert hashlib.sha256(r.file.read_bytes()).hexdigest() == r.sha256
        assert r.file.with_name(r.file.name + ".sha256").read_text() == f"{r.sha256}  {r.file.name}\n"
    for name, rows in expected.items():
        assert _read_back(store, tmp_path / "archive" / f"{name}.csv.gz", name.removesuffix(name[-8:])) == rows
    lines = store.execute(
        "select table_name, row_key, changes from ops.audit_log where operation = 'retire' order by audit_id"
    ).fetchall()
    assert lines == [
        (r.table, f"{r.month:%Y-%m}", {"rows": 3, "file": r.file.name, "sha256": r.sha256}) for r in retired
    ]
    assert retire(MAY, tmp_path / "archive") == []


def _read_back(connection: psycopg.Connection, file: Path, table: str) -> list[tuple[object, ...]]:
    """Load a retired file into a scratch table of the same shape and return its rows."""
    with connection.transaction(force_rollback=True):
        connection.execute(f"create temporary table back (like {table})".encode())
        with connection.cursor().copy("copy back from stdin (format csv, header match)") as copy:
            copy.write(gzip.decompress(file.read_bytes()))
        return _rows(connection, "back")


def test_a_month_that_came_back_does_not_replace_its_file(store: psycopg.Connection, tmp_path: Path) -> None:
    _happen(store, MARCH)
    create_months()
    first = retire(APRIL, tmp_path, ("ops.outbox",))[0]
    content = first.file.read_bytes()
    store.execute("insert into ops.outbox values ('acct_old', 'evt_late', 'late', 'x', 1, '{}', '2019-03-20')")
    with pytest.raises(UsageError, match=r"outside their month in ops\.outbox: run payments partitions create"):
        retire(APRIL, tmp_path)
    create_months()
    second = retire(APRIL, tmp_path, ("ops.outbox",))[0]
    assert second.file.name == "ops.outbox_2019_03.2.csv.gz"
    assert first.file.read_bytes() == content
    with gzip.open(second.file, "rt", newline="") as lines:
        assert [row[1] for row in csv.reader(lines)] == ["event_id", "evt_late"]


def test_killed_before_the_drop_a_month_is_in_both_places(store: psycopg.Connection, tmp_path: Path) -> None:
    _happen(store, MARCH)
    create_months()
    rows = _rows(store, "ops.outbox_2019_03")
    with connect() as reader:
        # A reader of the table lets the copy happen, and the drop wait.
        reader.execute("select count(*) from ops.outbox")
        with subprocess.Popen(
            [
                sys.executable,
                "-m",
                "payments",
                "partitions",
                "retire",
                "--before",
                "2019-04",
                "--table",
                "ops.outbox",
                "--to",
                str(tmp_path),
            ],
            cwd=PROJECT_ROOT,
            env=os.environ,
            stderr=subprocess.PIPE,
        ) as running:
            waits = "select from pg_stat_activity where wait_event_type = 'Lock' and query like 'drop table%'"
            while store.execute(waits.encode()).fetchone() is None:
                assert running.poll() is None, running.stderr and running.stderr.read()
            running.send_signal(signal.SIGKILL)
            running.wait()
    assert (tmp_path / "ops.outbox_2019_03.csv.gz").exists()
    while store.execute(waits.encode()).fetchone() is not None:  # until the server has noticed
        pass
    assert _rows(store, "ops.outbox_2019_03") == rows
    retired = retire(APRIL, tmp_path, ("ops.outbox",))
    assert [(r.rows, r.file.name) for r in retired] == [(3, "ops.outbox_2019_03.csv.gz")]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ops.outbox_2019_03.csv.gz",
        "ops.outbox_2019_03.csv.gz.sha256",
    ]


def test_what_cannot_be_retired_is_refused_in_one_line(store: psycopg.Connection, tmp_path: Path) -> None:
    today = datetime.now(UTC).date().replace(day=1)
    with pytest.raises(UsageError, match="only months that have ended"):
        retire(later(today, 1), tmp_path)
    with pytest.raises(UsageError, match="Ledger entries are never retired"):
        retire(today, tmp_path, ("ledger.entries",))
    with pytest.raises(UsageError, match=r"core\.charges is not retired"):
        retire(today, tmp_path, ("core.charges",))
    assert list(tmp_path.iterdir()) == []


def test_every_key_of_a_tenant_leads_with_its_merchant(oltp: psycopg.Connection) -> None:
    """What lets a merchant move to another machine: no uniqueness and no reference between tenants spans merchants."""
    keys = oltp.execute(
        """
        select
            c.conrelid::regclass || ' ' || c.conname,
            c.contype,
            (select a.attname from pg_attribute as a where a.attrelid = c.conrelid and a.attnum = c.conkey[1])
        from pg_constraint as c
        inner join pg_class as r on c.conrelid = r.oid
        inner join pg_attribute as m on r.oid = m.attrelid and m.attname = 'merchant_id'
        left join pg_attribute as n on c.confrelid = n.attrelid and n.attname = 'merchant_id'
        where c.conparentid = 0
            and not r.relispartition
            and (c.contype in ('p', 'u') or (c.contype = 'f' and n.attname is not null))
        """
    ).fetchall()
    assert len(keys) > 80
    assert {name for name, _, first in keys if first != "merchant_id"} == {
        # An identity, of one server; and the other side of the two operations that touch two merchants.
        "ops.audit_log audit_log_pkey",
        "core.application_fees application_fees_application_merchant_id_fkey",
        "core.payment_intents payment_intents_application_merchant_id_fkey",
        "core.transfers transfers_destination_merchant_id_fkey",
    }

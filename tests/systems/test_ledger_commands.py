"""The ledger commands: what they print, write, refuse, and how they end."""

import csv
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pyarrow.parquet
import pytest
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner, Result

from payments.cli import app
from payments.errors import UsageError
from payments.settings import settings
from payments.systems.oltp.connection import connect, dsn
from payments.systems.oltp.ledger import TrialBalanceLine, close_period, export, out_of_balance, seal, trial_balance
from tests.conftest import Servers, empty_oltp
from tests.systems.two_merchants import OURS, open_two_merchants


@pytest.fixture(scope="module")
def store(servers: Servers) -> Iterator[psycopg.Connection]:
    """The store with two merchants."""
    with connect(autocommit=True) as connection:
        assert connection.info.port == servers.oltp_port
        empty_oltp(connection)
        open_two_merchants(connection)
        yield connection


def _payments(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def _refused(*arguments: str) -> str:
    result = _payments(*arguments)
    assert isinstance(result.exception, UsageError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_sealing_covers_what_is_new(store: psycopg.Connection) -> None:
    seal(store)
    assert seal(store) == 0
    for number in range(3):
        store.execute("select core.create_topup(%s, 100, 'EUR', %s)", (OURS, f"tu_seal{number}"))
    assert _payments("ledger", "seal").output == "sealed 3 postings\n"
    assert store.execute("select seal_no from ledger.broken_seals()").fetchall() == []


def test_a_closed_month_takes_no_postings(store: psycopg.Connection) -> None:
    late = "select core.create_topup(%s, 100, 'EUR', 'tu_late', '2018-01-15')"
    with store.transaction(force_rollback=True):
        store.execute(late, (OURS,))
    assert _payments("ledger", "close", "2018-01").output == "2018-01 is closed\n"
    close_period(date(2018, 1, 1))
    with pytest.raises(psycopg.errors.CheckViolation, match="2018-01 is closed"):
        store.execute(late, (OURS,))
    assert "after its end" in _refused("ledger", "close", f"{datetime.now(UTC):%Y-%m}")
    assert "YYYY-MM" in _refused("ledger", "close", "January")


def test_the_trial_balance_balances_up_to_any_day(store: psycopg.Connection) -> None:
    whole = trial_balance()
    assert {line.currency for line in whole} == {"EUR", "USD"}
    assert out_of_balance(whole) == {}
    before = {(x.currency, x.code): x for x in trial_balance(date(2026, 3, 10))}
    assert ("EUR", "payout_in_transit") not in before  # paid out on the 20th
    assert before["EUR", "invoice_receivable"].balance_minor == 2 * 1700
    assert trial_balance(date(2026, 3, 9)) == []
    result = _payments("ledger", "trial-balance", "--until", "2026-03-31")
    assert result.exit_code == 0
    assert "payout_in_transit" in result.output
    assert "YYYY-MM-DD" in _refused("ledger", "trial-balance", "--until", "yesterday")


def test_a_currency_that_does_not_balance_fails_the_command(store: psycopg.Connection) -> None:
    assert out_of_balance([TrialBalanceLine("EUR", "bank", 7, 2, 5), TrialBalanceLine("EUR", "suspense", 0, 4, 4)]) == {
        "EUR": 1
    }
    store.execute("begin")
    try:
        store.execute("set local session_replication_role = replica")
        store.execute("update ledger.entries set amount_minor = amount_minor + 1 where side = 'D' and currency = 'USD'")
        store.execute("commit")
        result = _payments("ledger", "trial-balance")
    finally:
        store.execute("begin")
        store.execute("set local session_replication_role = replica")
        store.execute("update ledger.entries set amount_minor = amount_minor - 1 where side = 'D' and currency = 'USD'")
        store.execute("commit")
    assert result.exit_code == 1
    assert "USD: debits exceed credits by" in result.output


def test_csv_and_parquet_hold_the_general_ledger(store: psycopg.Connection, tmp_path: Path) -> None:
    expected = store.execute(
        "select * from ledger.general_ledger order by posted_at, merchant_id, ledger_transaction_id, entry_no"
    ).fetchall()
    assert export(tmp_path / "all.parquet") == len(expected)
    table = pyarrow.parquet.read_table(tmp_path / "all.parquet")
    assert list(zip(*(column.to_pylist() for column in table.columns), strict=True)) == expected

    result = _payments("ledger", "export", str(tmp_path / "all.csv"))
    assert f"wrote {len(expected)} entries" in result.output
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["ledger_transaction_id"], int(r["entry_no"]), int(r["balance_after_minor"])) for r in rows] == [
        (row[3], row[4], row[12]) for row in expected
    ]
    assert {bool(r["debit_minor"]) != bool(r["credit_minor"]) for r in rows} == {True}

    for ending in ("csv", "parquet"):
        counts = [
            export(tmp_path / f"part.{ending}", first, last)
            for first, last in (
                (None, date(2026, 3, 10)),
                (date(2026, 3, 11), date(2026, 3, 19)),
                (date(2026, 3, 20), None),
            )
        ]
        assert min(counts) > 0
        assert sum(counts) == len(expected)
    assert export(tmp_path / "none.parquet", date(2001, 1, 1), date(2001, 1, 2)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "all.csv", "all.parquet", "none.parquet", "part.csv", "part.parquet",
    ]  # fmt: skip


def test_an_export_that_cannot_be_is_refused(store: psycopg.Connection, tmp_path: Path) -> None:
    assert ".csv or .parquet" in _refused("ledger", "export", str(tmp_path / "ledger.xlsx"))
    assert "make it first" in _refused("ledger", "export", str(tmp_path / "missing" / "ledger.csv"))
    days = ("--from", "2026-03-02", "--to", "2026-03-01")
    assert "run backwards" in _refused("ledger", "export", str(tmp_path / "ledger.csv"), *days)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def operators(store: psycopg.Connection) -> Iterator[dict[str, str]]:
    """The connection strings of two operators."""
    names = ("trial_ann", "trial_bob")
    found = {}
    for name in names:
        store.execute(f"create role {name} login password 'trial' in role payments_operator".encode())
        found[name] = make_conninfo(dsn(), user=name, password="trial")
    yield found
    for name in names:
        store.execute(f"drop role {name}".encode())


def test_one_operator_proposes_and_another_decides(
    store: psycopg.Connection, operators: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def become(name: str) -> None:
        monkeypatch.setenv("PAYMENTS_OLTP_DSN", operators[name])
        settings.cache_clear()

    def available() -> int:
        row = store.execute("select ledger.available(%s, 'EUR')", (OURS,)).fetchone()
        assert row is not None
        return int(row[0])

    proposal = ("ledger", "adjust", "propose", OURS, "--currency", "EUR", "--reason", "fee charged twice")
    before = available()
    try:
        become("trial_ann")
        taken, given = (_payments(*proposal, "--amount-minor", amount).output.strip() for amount in ("-250", "400"))
        assert "cannot decide it" in _refused("ledger", "adjust", "approve", OURS, taken)
        assert available() == before
        become("trial_bob")
        assert _payments("ledger", "adjust", "approve", OURS, taken).exit_code == 0
        assert _payments("ledger", "adjust", "reject", OURS, given).exit_code == 0
        assert available() == before - 250
        assert "rejected to approved is illegal" in _refused("ledger", "adjust", "approve", OURS, given)
        assert "does not exist" in _refused("ledger", "adjust", "approve", OURS, "adj_none")
        assert "acct_nobody" in _refused(
            *("acct_nobody" if word == OURS else word for word in proposal), "--amount-minor", "5"
        )
        assert "adjustments_reason_check" in _refused(*proposal[:-1], "short", "--amount-minor", "5")
        # An operator's login is enough for the other commands, too.
        for command in (
            ("ledger", "seal"),
            ("ledger", "trial-balance"),
            ("partitions", "status"),
            ("partitions", "create"),
        ):
            assert not isinstance(_payments(*command).exception, psycopg.Error)
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    decided = store.execute(
        "select proposed_by, decided_by, status from core.adjustments where adjustment_id = any(%s) order by status",
        ([taken, given],),
    ).fetchall()
    assert decided == [("trial_ann", "trial_bob", "approved"), ("trial_ann", "trial_bob", "rejected")]

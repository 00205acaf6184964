"""The snapshot of merchants: changed, closed and gone, at the times of the source and never of the run."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from tests.dbt_project import Dbt
from tests.warehouse.raw_by_hand import Row, commit

JANUARY, MAY, JULY = (datetime(2026, month, 1, 12, tzinfo=UTC) for month in (1, 5, 7))


def merchant(merchant_id: str, name: str, updated_at: datetime) -> Row:
    return {
        "merchant_id": merchant_id,
        "business_name": name,
        "mcc": "5411",
        "country": "DE",
        "default_currency": "EUR",
        "status": "active",
        "fee_basis_points": 290,
        "fee_fixed_minor": 30,
        "created_at": JANUARY,
        "updated_at": updated_at,
    }


def test_versions_hold_from_and_until_the_times_of_the_source(
    dbt: Dbt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, warehouse = tmp_path / "raw", tmp_path / "warehouse.duckdb"
    monkeypatch.setenv("PAYMENTS_RAW", str(raw))
    monkeypatch.setenv("PAYMENTS_WAREHOUSE", str(warehouse))
    batches: list[tuple[datetime, list[tuple[str, Row]]]] = [
        (JANUARY, [("r", merchant("acct_A", "Old", JANUARY)), ("r", merchant("acct_B", "Stays", JANUARY))]),
        (MAY, [("u", merchant("acct_A", "New", MAY))]),
        (JULY, [("d", merchant("acct_A", "New", MAY))]),
    ]
    for sequence, (at, rows) in enumerate(batches, start=1):
        commit(raw, sequence, "merchants", rows, at)
        outcome = dbt("build", "--select", "stg_oltp__merchants", "int_merchants_current", "snap_merchants",
                      "hist_merchants", "--exclude", "test_type:data")  # fmt: skip
        assert outcome.succeeded, outcome.output

    with duckdb.connect(str(warehouse), read_only=True) as con:
        con.execute("set TimeZone = 'UTC'")
        versions = con.execute(
            """
            select
                merchant_id, business_name, dbt_is_deleted,
                strftime(dbt_valid_from, '%Y-%m-%d'), strftime(dbt_valid_to, '%Y-%m-%d')
            from dev_snapshots.snap_merchants
            order by merchant_id, dbt_valid_from
            """
        ).fetchall()
        from_log = con.execute(
            """
            select
                merchant_id, business_name, is_deleted_at_end,
                strftime(valid_from, '%Y-%m-%d'), strftime(valid_to, '%Y-%m-%d')
            from dev_history.hist_merchants
            order by merchant_id, valid_from
            """
        ).fetchall()
    assert from_log == [
        ("acct_A", "Old", False, "2026-01-01", "2026-05-01"),
        ("acct_A", "New", True, "2026-05-01", "2026-07-01"),
        ("acct_B", "Stays", False, "2026-01-01", None),
    ], "what is rebuilt from the log is what the snapshots kept"
    assert versions == [
        ("acct_A", "Old", "False", "2026-01-01", "2026-05-01"),
        ("acct_A", "New", "False", "2026-05-01", "2026-07-01"),
        ("acct_A", "New", "True", "2026-07-01", None),
        ("acct_B", "Stays", "False", "2026-01-01", None),
    ]

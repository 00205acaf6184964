"""Features see the past alone: recounted by hand, the same when the future is cut off, and a planted leak is caught."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest

from tests.warehouse.conftest import Built
from tests.warehouse.history import DAYS, START

PAYMENTS = '"warehouse"."dev_intermediate"."int_payments_converted"'
Record = dict[str, Any]


@pytest.fixture(scope="module")
def model(built: Built) -> str:
    """The SQL of the feature model as it ran."""
    code = built.outcome.compiled("feat_payments")
    assert PAYMENTS in code
    return code


def features(built: Built, model: str, payments: str) -> list[Record]:
    """Run the feature model on a query of payments."""
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(f"attach '{str(built.warehouse).replace(chr(39), chr(39) * 2)}' as warehouse (read_only)")
        found = con.execute(f"select * from ({model.replace(PAYMENTS, f'({payments})')}) order by payment_id")
        names = [column[0] for column in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def as_known_at(moment: datetime) -> str:
    """The payments up to a moment, with the labels known by then."""
    at = f"timestamptz '{moment.isoformat()}'"
    return f"""
        select * replace (
            case when fraud_known_at <= {at} then is_fraud end as is_fraud,
            case when fraud_known_at <= {at} then fraud_known_at end as fraud_known_at
        )
        from {PAYMENTS}
        where paid_at <= {at}
    """


def without_labels(rows: list[Record]) -> list[Record]:
    return [{k: v for k, v in row.items() if k not in {"is_fraud", "fraud_known_at"}} for row in rows]


def truncation_differences(built: Built, model: str) -> int:
    """Rows whose features change when everything after some moment is taken away."""
    full = without_labels(features(built, model, f"select * from {PAYMENTS}"))
    differences = 0
    for day in (9, 23, 41, DAYS - 3):
        moment = START + timedelta(days=day, seconds=day * 1_237)
        cut = without_labels(features(built, model, as_known_at(moment)))
        assert cut, "nothing was compared"
        differences += sum(a != b for a, b in zip([r for r in full if r["paid_at"] <= moment], cut, strict=True))
    return differences


def test_cutting_off_the_future_changes_no_feature(built: Built, model: str) -> None:
    assert truncation_differences(built, model) == 0


@pytest.mark.parametrize(
    ("sound", "leaking"),
    [
        # A label that counts from the payment on, not from when it became known.
        (r"date_trunc\('second', fraud_known_at\)", "date_trunc('second', paid_at)"),
        # A past that reaches one order key too far.
        (r"unbounded preceding and 1 preceding", "unbounded preceding and 86400000000 following"),
    ],
)
def test_a_planted_leak_is_caught(built: Built, model: str, sound: str, leaking: str) -> None:
    mutated, count = re.subn(sound, leaking, model)
    assert count > 0
    assert truncation_differences(built, mutated) > 0


def test_features_equal_a_plain_recount(built: Built, model: str) -> None:
    rows = features(built, model, f"select * from {PAYMENTS}")
    sent = {row["transaction_id"]: row for row in built.rows}
    assert len(rows) == len(sent)
    day, week = timedelta(days=1), timedelta(days=7)
    checked = 0
    for row in rows:
        own = sent[row["payment_id"]]
        place = seconds(row["order_key"])
        earlier = [
            other
            for other in rows
            if other["order_key"] <= row["order_key"] and sent[other["payment_id"]]["customer_id"] == own["customer_id"]
        ]
        past = [other for other in earlier if other is not row]
        in_week = [other for other in earlier if other["order_key"] > row["order_key"] - 7 * 86_400 * 1_000_000]
        assert row["customer_payments_7d"] == len(in_week)
        assert row["customer_mean_value_7d"] == sum(r["reporting_value_minor"] for r in in_week) / len(in_week)
        assert row["customer_past_payments"] == len(past)
        failed = [r for r in past if sent[r["payment_id"]]["status"] == "failed" and within(r, row, 86_400)]
        assert row["customer_failed_1d"] == len(failed)
        highest = max((r["reporting_value_minor"] for r in past), default=None)
        assert row["value_to_customer_max"] == (row["reporting_value_minor"] / highest if highest else None)
        previous = max((seconds(r["order_key"]) for r in past), default=None)
        assert row["customer_seconds_since_previous"] == (None if previous is None else place - previous)

        if own["merchant_id"]:
            known = [
                datetime.fromisoformat(other["fraud_known_at"])
                for other in sent.values()
                if other["merchant_id"] == own["merchant_id"]
                and other["fraud_known_at"]
                and datetime.fromisoformat(other["fraud_known_at"]) <= row["paid_at"]
            ]
            assert row["merchant_known_frauds"] == len(known)
            assert row["merchant_known_frauds_7d"] == sum(at > row["paid_at"] - week for at in known)
            assert row["merchant_known_frauds_1d"] == sum(at > row["paid_at"] - day for at in known)
            checked += bool(known)
        else:
            assert row["merchant_known_frauds"] == 0
    assert checked > 50, "hardly any payment had a known fraud: the recount proves little"


def seconds(order_key: int) -> int:
    return order_key // 1_000_000


def within(other: Record, row: Record, length: int) -> bool:
    """Whether a payment lies in the half-open window before another, by order key."""
    return bool(other["order_key"] > row["order_key"] - length * 1_000_000)


def test_the_order_key_is_unique_and_tells_the_second(built: Built, model: str) -> None:
    rows = features(built, model, f"select * from {PAYMENTS}")
    keys = [row["order_key"] for row in rows]
    assert len(set(keys)) == len(keys)
    assert len({seconds(key) for key in keys}) < len(keys), "no two payments share a second: ties go untested"
    for row in rows:
        assert datetime.fromtimestamp(seconds(row["order_key"]), UTC) == row["paid_at"].replace(microsecond=0)

"""Features see the past alone: recounted by hand, the same when the future is cut off, and a planted leak is caught.
What is kept ready for the next payment is what the model says of it."""

import csv
import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.cdc.copied_state import LABEL_DELAY_DAYS, online_features, prepare_connection
from ml.online import NextPayment, features_of
from payments.systems.oltp.migrations import SEEDS
from tests.systems.shop import Shop
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


# Reported in dollars: two decimals, none, three, and a currency that has no rate to round by.
CURRENCIES = {"EUR": 2, "JPY": 0, "KWD": 3, "USD": 2}
NOT_KEPT_READY = {
    *("anomaly_score", "is_at_terminal", "is_new_device", "is_new_country", "is_country_changed"),
    *("is_outside_issuer_country", "is_outside_home_country"),
}
META = {
    *("payment_key", "payment_id", "source", "merchant_id", "customer_key", "card_key", "amount_minor", "currency"),
    *("order_key", "paid_at", "is_fraud", "fraud_known_at"),
}


def in_dollars(amount: int, currency: str, moment: datetime) -> int:
    """The amount at the book rate of its day, half to even."""
    with (SEEDS / "exchange_rates.csv").open() as file:
        rates = {row["valid_from"]: row for row in csv.DictReader(file) if row["currency"] == currency}
    if not rates:
        return amount
    day = max([day for day in rates if day <= moment.date().isoformat()], default=min(rates))
    exact = Decimal(amount) * Decimal(rates[day]["rate_to_usd"]) * Decimal(10) ** (2 - CURRENCIES[currency])
    return int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))


def paid(shops: list[Shop], now: datetime, draw: Random) -> None:
    """Payments of one person with one card at two merchants: many of the last days, some declined, some disputed."""
    spans = (300, 3_000, 80_000, 600_000, 1_200_000, 2_500_000, 3_100_000)
    seconds = {draw.randrange(1, spans[number % len(spans)]) for number in range(60)}
    for back in sorted(seconds, reverse=True):
        at = now - timedelta(seconds=back, microseconds=draw.randrange(900_000))
        shop = draw.choice(shops).later(seconds=(at - shops[0].at).total_seconds())
        currency = draw.choice(list(CURRENCIES))
        amount = draw.choice([draw.randint(100, 499), draw.randint(500, 9_000), 60_000])
        failure = "card_declined" if draw.random() < 0.2 else None
        charge_id = shop.confirm(shop.intend(amount, currency), None, failure)
        if failure is None and draw.random() < 0.4:
            late = min(timedelta(seconds=draw.randrange(60, 900_000)), now - at)
            shop.later(seconds=late.total_seconds()).dispute(charge_id, fee=0)


def as_payments(oltp: psycopg.Connection, folder: Path, coming: Record) -> str:
    """The charges of the operational store as the model's input, with one more that comes next."""
    charges = oltp.execute(
        """
        select
            charges.merchant_id, charges.charge_id, charges.customer_id, charges.amount_minor, charges.currency,
            charges.status, charges.created_at, min(disputes.created_at) as fraud_known_at
        from core.charges left join core.disputes using (merchant_id, charge_id)
        where charges.created_at <= %s
        group by charges.merchant_id, charge_id
        """,
        (coming["created_at"],),
    )
    names = [column.name for column in charges.description or []]
    rows = [*(dict(zip(names, row, strict=True)) for row in charges), coming]
    records = [
        {
            **dict.fromkeys(("anomaly_score", "issuer_country", "customer_country", "device_id")),
            **dict.fromkeys(("ip_network_token", "device_type", "ip_country")),
            "payment_key": row["charge_id"],
            "payment_id": row["charge_id"],
            "source": "oltp",
            "merchant_id": row["merchant_id"],
            "customer_key": row["customer_id"],
            "customer_id": row["customer_id"],
            "person_token": "nt_1",
            "card_token": "fp_1",
            "currency": row["currency"],
            "paid_at": row["created_at"],
            "is_fraud": row["fraud_known_at"] is not None,
            "fraud_known_at": row["fraud_known_at"],
            "amount_minor": row["amount_minor"],
            "reporting_amount_minor": in_dollars(row["amount_minor"], row["currency"], row["created_at"]),
            "status": row["status"],
        }
        for row in rows
    ]
    moment = pa.timestamp("us", tz="UTC")
    types: dict[str, pa.DataType] = {
        "anomaly_score": pa.float64(),
        "paid_at": moment,
        "fraud_known_at": moment,
        "is_fraud": pa.bool_(),
    }
    types |= {"amount_minor": pa.int64(), "reporting_amount_minor": pa.int64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in records[0]])
    path = folder / f"payments-{coming['created_at'].timestamp()}.parquet"
    pq.write_table(pa.Table.from_pylist(records, schema), path)
    return f"select * from read_parquet('{path}')"


def test_what_is_kept_ready_is_what_the_model_says_of_the_next_payment(
    built: Built, model: str, oltp: psycopg.Connection, tmp_path: Path
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    shops = [Shop(oltp, at=now - timedelta(days=60)).open(), Shop(oltp, "acct_two", "cus_two", "pm_two").open()]
    shops[1] = Shop(oltp, "acct_two", "cus_two", "pm_two", at=shops[0].at)
    paid(shops, now, Random(11))  # noqa: S311 (a repeatable draw)
    prepare_connection(oltp)
    assert LABEL_DELAY_DAYS == 7, "as label_delay_days says"
    frauds = 0
    for back in (0, 200, 5_000, 90_000, 700_000, 2_000_000):
        as_of = now - timedelta(seconds=back)
        coming: Record = {
            **{"merchant_id": "acct_two", "charge_id": "ch_next", "customer_id": "cus_two", "status": "succeeded"},
            **{"amount_minor": 450 + back, "currency": "EUR", "created_at": as_of, "fraud_known_at": None},
        }
        (expected,) = [
            row for row in features(built, model, as_payments(oltp, tmp_path, coming)) if row["payment_id"] == "ch_next"
        ]
        asked = {"customer": "nt_1", "card": "fp_1", "merchant": "acct_two"}
        documents = {
            kind: online_features(oltp, kind, {entity: 1}, as_of).documents[0] for kind, entity in asked.items()
        }
        known_merchants = oltp.execute(
            "select count(*) from core.charges where merchant_id = 'acct_two' and created_at <= %s", (as_of,)
        ).fetchone()
        value = in_dollars(coming["amount_minor"], "EUR", as_of)
        got = features_of(NextPayment(value, as_of, known_merchants == (0,)), **documents)
        told = {
            name: value
            for name, value in expected.items()
            if name not in META | NOT_KEPT_READY and not name.startswith(("device_", "network_"))
        }
        assert got == told
        frauds += bool(got["customer_known_frauds"])
    assert frauds > 2, "hardly any moment has a past with a known fraud: the comparison proves little"

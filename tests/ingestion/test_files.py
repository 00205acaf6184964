"""Transaction files: what lands, what is quarantined and why, and that landing the same again changes nothing."""

import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from ingestion.files import land_transactions
from ingestion.landing import EntityCounts
from payments.errors import UsageError
from tests.ingestion.raw import Row, latest, pin, refused, rows

pytestmark = pytest.mark.usefixtures("platform_home")

CARD = "4111111111111111"


def good(number: int) -> Row:
    return {
        "transaction_id": f"t{number}",
        "merchant_id": f"m{number % 7}",
        "customer_id": f"c{number % 50}",
        "amount": f"{number % 90}.{number % 100:02d}",
        "currency": "EUR",
        "transaction_at": f"2026-01-{number % 28 + 1:02d}T10:00:00Z",
    }


def json_lines(path: Path, records: list[Row | str]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


def csv_file(path: Path, *lines: str) -> Path:
    path.write_text("transaction_id,customer_id,amount,currency,transaction_at,status\n" + "\n".join(lines) + "\n")
    return path


def land(path: Path, mapping: Path | None = None, currency: str | None = None) -> EntityCounts:
    report = land_transactions(path, mapping, currency)
    (counts,) = report.entities
    assert counts.read == counts.accepted + counts.unchanged + counts.quarantined
    return counts


def numbers(counts: EntityCounts) -> tuple[int, int, int, int]:
    return counts.read, counts.accepted, counts.unchanged, counts.quarantined


@pytest.mark.parametrize("is_seen_in_an_earlier_file", [False, True])
def test_good_rows_land_and_bad_rows_are_quarantined_each_with_its_reason(
    tmp_path: Path, is_seen_in_an_earlier_file: bool
) -> None:
    bad: list[Row | str] = [
        {**good(2001), "transaction_at": "2026-02-30"},
        {**good(2002), "amount": "-5.00"},
        {**good(2003), "currency": "XXZ"},
        {name: value for name, value in good(2004).items() if name != "transaction_id"},
        {**good(17), "amount": "999.99"},
        {**good(2005), "amount": "twelve"},
        '{"transaction_id": "t2006", "amount":',
    ]
    records: list[Row | str] = [good(number) for number in range(1000)]
    random.Random(1).shuffle(bad)  # noqa: S311 - test data
    if is_seen_in_an_earlier_file:
        land(json_lines(tmp_path / "first.jsonl", [good(17)]))
        mixed = [*bad, *records[:17], *records[18:], good(3000)]
    else:
        mixed = [*records[:500], *bad, *records[500:]]
    path = json_lines(tmp_path / "mixed.jsonl", mixed)

    assert numbers(land(path)) == (1007, 1000, 0, 7)
    reasons = {row["rule"]: row["reason"] for row in refused("files", "transactions")}
    assert reasons == {
        "wrong_time": "transaction_at 2026-02-30 is no moment from 1970 to 2099 such as 2026-06-30T12:00:00Z",
        "negative_amount": "amount -5.00 is negative",
        "unknown_currency": "currency XXZ is no ISO 4217 code",
        "missing_id": "transaction_id is missing",
        "wrong_amount": "amount twelve is no plain decimal number",
        "broken_json": "the line is no JSON",
        **(
            {"other_content": "id seen before with other content: amount_minor"}
            if is_seen_in_an_earlier_file
            else {"conflicting_duplicate": "same id, other content in one batch"}
        ),
    }
    assert len(latest("files", "transactions")) == 1000 + is_seen_in_an_earlier_file
    assert sum(row["amount_minor"] for row in latest("files", "transactions") if row["transaction_id"] == "t17") == 1717

    assert numbers(land(path)) == (1007, 0, 1000, 7)
    assert len(refused("files", "transactions")) == 7, "what stands in quarantine is counted, not written again"


def test_csv_with_wrong_rows(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path / "bank [export] *.csv",
        "a,c1,1.00,EUR,2026-01-01,",
        "b,c1,2.00,EUR",
        "c,c1,3.00,EUR,2026-01-01,,extra",
        'd,"c ""x"", y\nz",4.00,EUR,2026-01-01,failed',
        'e,"never closed,5.00,EUR,2026-01-01,',
        "f,c1,6.00,EUR,2026-01-01 12:30:00+02:00,PENDING",
        'g,plain "quote,7.00,EUR,2026-01-01,',
    )
    with path.open("ab") as file:
        file.write(b"h,c\xff,8.00,EUR,2026-01-01,\r\n\r\ni,c1,9.00,EUR,2026-01-01,\r\n")

    assert numbers(land(path)) == (9, 5, 0, 4)
    landed = {row["transaction_id"]: row for row in rows("files", "transactions")}
    assert sorted(landed) == ["a", "d", "f", "g", "i"]
    assert landed["d"]["customer_id"] == 'c "x", y\nz'
    assert [landed[key]["status"] for key in "adf"] == ["succeeded", "failed", "pending"]
    assert landed["f"]["transaction_at"] == datetime(2026, 1, 1, 10, 30, tzinfo=UTC)
    assert {row["record"][0]: (row["rule"], row["reason"]) for row in refused("files", "transactions")} == {
        "b": ("broken_row", "the row has 4 fields, the header 6"),
        "c": ("broken_row", "the row has 7 fields, the header 6"),
        "e": ("broken_row", "a quote is never closed"),
        "h": ("broken_row", "the line is not UTF-8"),
    }


def test_csv_with_semicolons_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("\ufefftransaction_id;merchant_id;amount;transaction_at\r\n1;ä;1.5;2026-01-01\r\n".encode())
    assert numbers(land(path, currency="eur")) == (1, 1, 0, 0)
    (row,) = rows("files", "transactions")
    assert (row["merchant_id"], row["amount_minor"], row["currency"]) == ("ä", 150, "EUR")


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("0", "EUR", 0),
        ("0.00", "EUR", 0),
        ("-0.00", "EUR", 0),
        ("12", "EUR", 1200),
        ("12.3", "EUR", 1230),
        ("+12.3400", "USD", 1234),
        (".5", "USD", 50),
        ("5.", "USD", 500),
        ("1500", "JPY", 1500),
        ("1500.0", "JPY", 1500),
        ("1.234", "KWD", 1234),
        ("100000000000.00", "EUR", 10**13),
        ("100000000000.01", "EUR", "amount_out_of_range"),
        ("92233720368547758.08", "EUR", "amount_out_of_range"),
        ("12.345", "EUR", "too_many_decimals"),
        ("0.001", "EUR", "too_many_decimals"),
        ("1500.5", "JPY", "too_many_decimals"),
        ("1.2345", "KWD", "too_many_decimals"),
        ("-0.01", "EUR", "negative_amount"),
        ("1,234.50", "EUR", "wrong_amount"),
        ("1e3", "EUR", "wrong_amount"),
        ("NaN", "EUR", "wrong_amount"),
        ("€5", "EUR", "wrong_amount"),
        ("", "EUR", "missing_amount"),
        ("1", "", "missing_currency"),
        ("1", "eur", 100),
    ],
)
def test_amounts_are_exact_or_refused(tmp_path: Path, amount: str, currency: str, minor: int | str) -> None:
    path = csv_file(tmp_path / "a.csv", f'x,c,"{amount}",{currency},2026-01-01,')
    land(path)
    if isinstance(minor, int):
        assert [row["amount_minor"] for row in rows("files", "transactions")] == [minor]
    else:
        assert [row["rule"] for row in refused("files", "transactions")] == [minor]


def test_binary_numbers_land_while_they_are_exact(tmp_path: Path) -> None:
    path = json_lines(
        tmp_path / "a.jsonl",
        [
            {**good(1), "amount": 0.1},
            {**good(2), "amount": 12345678901234567.89},
            {**good(3), "amount": "99999999999.99"},
            {**good(4), "amount": 7},
            {**good(5), "amount": None, "amount_minor": 12},
            {**good(6), "amount": "1.20", "amount_minor": 120},
            {**good(7), "amount": "1.20", "amount_minor": 121},
            {**good(8), "amount_minor": 1.5, "amount": None},
            {**good(9), "amount": True},
            {**good(10), "amount": {"value": 1}},
        ],
    )
    land(path)
    assert {row["transaction_id"]: row["amount_minor"] for row in rows("files", "transactions")} == {
        "t1": 10,
        "t3": 9999999999999,
        "t4": 700,
        "t5": 12,
        "t6": 120,
    }
    assert {json.loads(row["record"])["transaction_id"]: row["rule"] for row in refused("files", "transactions")} == {
        "t2": "inexact_amount",
        "t7": "amounts_disagree",
        "t8": "wrong_amount_minor",
        "t9": "wrong_amount",
        "t10": "wrong_amount",
    }


def test_other_fields_are_checked(tmp_path: Path) -> None:
    wrong: dict[str, Row] = {
        "unknown_status": {"status": "lost"},
        "unknown_country": {"ip_country": "ZZ"},
        "wrong_score": {"anomaly_score": 1.5},
        "wrong_label": {"is_fraud": "maybe"},
        "wrong_label_time": {"fraud_known_at": "soon"},
        "missing_party": {"customer_id": "", "merchant_id": None},
        "missing_time": {"transaction_at": " "},
        "zero_byte": {"device_type": "a\0b"},
    }
    path = json_lines(
        tmp_path / "a.jsonl",
        [
            *({**good(place), **change} for place, change in enumerate(wrong.values())),
            {**good(100), "ip_country": "de", "anomaly_score": "0.25", "is_fraud": "1", "status": "Refunded"},
        ],
    )
    assert numbers(land(path)) == (9, 1, 0, 8)
    assert sorted(row["rule"] for row in refused("files", "transactions")) == sorted(wrong)
    (row,) = rows("files", "transactions")
    assert (row["ip_country"], row["anomaly_score"], row["is_fraud"], row["status"]) == ("DE", 0.25, True, "refunded")
    assert row["fraud_known_at"] is None


def test_a_parquet_file_with_a_mapping(tmp_path: Path) -> None:
    path, mapping = tmp_path / "handbook.parquet", Path("ingestion/mappings/fraud_handbook.yml")
    duckdb.execute(
        f"""
        copy (
            select
                i::integer as id,
                timestamp '2018-04-01 00:00:31' + to_seconds(i) as tx_datetime,
                (i % 10)::smallint as customer_id,
                (i % 3)::smallint as terminal_id,
                (i / 100)::decimal(10, 2) as tx_amount,
                (i % 5 = 0)::tinyint as tx_fraud,
            from range(1000) as numbers (i)
        ) to '{path}'
        """
    )
    assert numbers(land(path, mapping)) == (1000, 1000, 0, 0)
    landed = rows("files", "transactions")
    assert sum(row["amount_minor"] for row in landed) == 499_500
    first = landed[5]
    assert (first["transaction_id"], first["customer_id"], first["merchant_id"]) == ("5", "5", "2")
    assert (first["currency"], first["status"], first["is_fraud"]) == ("EUR", "succeeded", True)
    assert first["fraud_known_at"] == datetime(2018, 4, 8, 0, 0, 36, tzinfo=UTC)
    assert landed[1]["fraud_known_at"] is None
    assert [row["_position"] for row in landed] == sorted({row["_position"] for row in landed})
    assert numbers(land(path, mapping)) == (1000, 0, 1000, 0)


def test_binary_amounts_of_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    duckdb.execute(
        f"""
        copy (
            select
                unnest(['a', 'b', 'c']) as transaction_id,
                unnest([12.3::double, 0.1::double + 0.2::double, 123456789012345.67::double]) as amount,
                'm' as merchant_id, 'USD' as currency, timestamptz '2026-01-01 00:00:00+02' as transaction_at,
        ) to '{path}'
        """
    )
    land(path)
    (row,) = rows("files", "transactions")
    assert (row["amount_minor"], row["transaction_at"]) == (1230, datetime(2025, 12, 31, 22, tzinfo=UTC))
    assert [row["rule"] for row in refused("files", "transactions")] == ["inexact_amount", "too_many_decimals"]


def test_same_id_again(tmp_path: Path) -> None:
    path = json_lines(
        tmp_path / "a.jsonl",
        [
            {**good(1), "amount": "bad"},
            good(1),
            good(1),
            {**good(1), "status": "failed"},
            {**good(1), "amount": "1.010"},
        ],
    )
    assert numbers(land(path)) == (5, 1, 2, 2)
    assert [row["rule"] for row in refused("files", "transactions")] == ["conflicting_duplicate", "wrong_amount"]


def test_only_status_labels_and_score_may_change(tmp_path: Path) -> None:
    land(json_lines(tmp_path / "a.jsonl", [good(1), good(2)]))
    later = {**good(1), "status": "refunded", "is_fraud": True, "fraud_known_at": "2026-03-01", "anomaly_score": 0.5}
    changes: list[Row | str] = [
        later,
        {**good(2), "merchant_id": "m9"},
    ]
    assert numbers(land(json_lines(tmp_path / "b.jsonl", changes))) == (2, 1, 0, 1)
    change = rows("files", "transactions")[-1]
    assert (change["_op"], change["status"], change["is_fraud"]) == ("u", "refunded", True)
    assert json.loads(change["_before"])["status"] == "succeeded"
    for name in ("customer_id", "currency", "transaction_at", "payment_method", "device_type", "ip_country"):
        other = {"currency": "USD", "transaction_at": "2026-05-05", "ip_country": "FR"}.get(name, "other")
        counts = land(json_lines(tmp_path / "c.jsonl", [{**later, name: other}]))
        assert numbers(counts) == (1, 0, 0, 1), name
    reasons = [row["reason"] for row in refused("files", "transactions")]
    assert reasons[0] == "id seen before with other content: merchant_id"
    assert reasons[-1] == "id seen before with other content: ip_country"


def test_card_numbers_never_reach_the_raw_zone(tmp_path: Path) -> None:
    spaced = "5555 5555-5555 4444"
    path = json_lines(
        tmp_path / "cards.jsonl",
        [
            good(1),
            {**good(2), "customer_id": CARD},
            {**good(3), "payment_method": f"card {spaced}", "device_type": f"x\n{CARD}"},
            {**good(4), "amount": "bad", "note": spaced},
            {**good(5), "amount": CARD + " x", "currency": f" {CARD}"},
            {**good(6), "unmapped": CARD},
            '{"transaction_id": "\\u0034111111111111111", "amount"',
            f'{{"broken": "{CARD}"',
        ],
    )
    counts = land(path)
    assert numbers(counts) == (8, 2, 0, 6)
    found = refused("files", "transactions")
    rules = Counter(row["rule"] for row in found)
    assert rules == {"card_number": 6}
    everything = json.dumps([found, rows("files", "transactions"), pin().commits[-1].model_dump_json()], default=str)
    assert CARD not in everything
    assert spaced not in everything
    assert "card number (visa) in column customer_id" in {row["reason"] for row in found}
    assert any("************1111" in row["record"] for row in found)


@pytest.mark.parametrize(
    ("name", "content", "mapping", "currency", "message"),
    [
        ("a.xlsx", "", None, None, "must end in .csv"),
        ("a.csv", "", None, None, "no header line"),
        ("a.csv", "id,id\n", None, None, "repeated name"),
        ("a.csv", "transaction_id,amount,customer_id\n", None, None, "no column transaction_at"),
        ("a.csv", "transaction_id,amount,transaction_at\n", None, None, "customer_id or merchant_id"),
        ("a.parquet", "no parquet", None, None, "as Parquet"),
        ("a.json", '[{"a": 1}]', None, None, "JSON array"),
        ("a.jsonl", "", "columns: [", None, "no YAML"),
        ("a.jsonl", "", "colums: {}", None, "colums"),
        ("a.jsonl", "", "columns: {id: x}", None, "no such field: id"),
        ("a.jsonl", "", "columns: {amount: x, currency: x}", None, "same column"),
        ("a.jsonl", "", "label_delay_days: -1", None, "label_delay_days"),
        ("a.csv", "id,amount\n", "columns: {transaction_id: key}", None, "names a column"),
        ("a.jsonl", "", "defaults: {currency: XXZ}", None, "XXZ"),
        ("a.jsonl", "", None, "EURO", "EURO"),
    ],
)
def test_what_the_user_can_mend_is_one_line(  # noqa: PLR0913, PLR0917 - one argument a column of the table above
    tmp_path: Path, name: str, content: str, mapping: str | None, currency: str | None, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    mapping_path = None
    if mapping is not None:
        mapping_path = tmp_path / "mapping.yml"
        mapping_path.write_text(mapping)
    with pytest.raises(UsageError, match=message) as caught:
        land_transactions(path, mapping_path, currency)
    assert "\n" not in str(caught.value)
    assert pin().sequence == 0


def test_a_missing_file_and_a_missing_mapping(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        land_transactions(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="Cannot read the mapping"):
        land_transactions(csv_file(tmp_path / "a.csv"), tmp_path / "none.yml")


def test_a_file_without_rows_is_a_batch_of_nothing(tmp_path: Path) -> None:
    assert numbers(land(csv_file(tmp_path / "a.csv"))) == (0, 0, 0, 0)
    assert pin().sequence == 1


def test_random_mixtures_landed_twice_change_nothing(tmp_path: Path, full_size: bool) -> None:
    draw = random.Random(5)  # noqa: S311 - test data
    state: list[Row] = []
    for turn in range(20 if full_size else 4):
        records: list[Row | str] = []
        for _ in range(draw.randrange(1, 300)):
            record = good(draw.randrange(200))
            changes: list[Row] = [
                {},
                {},
                {"status": draw.choice(["failed", "refunded", "lost", None])},
                {"amount": draw.choice(["1.00", "x", "-1", "1.234", None, CARD])},
                {"transaction_at": str(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=draw.randrange(3)))},
                {"anomaly_score": str(Decimal(draw.randrange(120)) / 100)},
                {"customer_id": draw.choice([None, CARD, "c1"]), "merchant_id": None},
            ]
            change = draw.choice(changes)
            records.append({**record, **change} if draw.random() < 0.95 else json.dumps(record)[:-3])
        path = json_lines(tmp_path / f"{turn}.jsonl", records)
        first = land(path)
        before, quarantined = latest("files", "transactions"), len(refused("files", "transactions"))
        assert len(before) >= len(state)
        again = land(path)
        assert (again.accepted, again.deleted) == (0, 0)
        assert (again.read, again.quarantined) == (first.read, first.quarantined)
        state = latest("files", "transactions")
        assert state == before
        assert len(refused("files", "transactions")) == quarantined
        assert len({row["_key"] for row in state}) == len(state)

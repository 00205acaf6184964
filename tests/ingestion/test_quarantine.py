"""Quarantine of files: listing, and landing again after a fix."""

import json
from pathlib import Path

import pytest

from ingestion.files import land_transactions
from ingestion.quarantine import QuarantineCount, count_quarantine, list_quarantine, replay, show_quarantine
from payments.errors import UsageError
from tests.ingestion.raw import latest, refused

pytestmark = pytest.mark.usefixtures("platform_home")

HEADER = "transaction_id,merchant_id,amount,currency,transaction_at\n"


def test_records_leave_quarantine_once_they_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        HEADER + 'a,m,1.00,,2026-01-01\nb,"m, ä",2.00,,2026-01-01\nc,m,3.00,EUR\n'
        "d,m,x,EUR,2026-01-01\ne,m 4111111111111111,5.00,,2026-01-01\nf,m,6.00,EUR,2026-01-01\n"
    )
    report = land_transactions(path)
    assert [(count.rule, count.records) for count in count_quarantine()] == [
        ("broken_row", 1),
        ("card_number", 1),
        ("missing_currency", 2),
        ("wrong_amount", 1),
    ]
    assert isinstance(count_quarantine()[0], QuarantineCount)
    assert "--currency" in next(item.reason for item in list_quarantine() if item.rule == "missing_currency")

    (counts,) = replay(report.batch_id, default_currency="EUR").entities
    assert (counts.read, counts.accepted, counts.quarantined) == (3, 2, 1)
    landed = {row["transaction_id"]: row["merchant_id"] for row in latest("files", "transactions")}
    assert landed == {"a": "m", "b": "m, ä", "f": "m"}
    assert sorted(item.rule for item in list_quarantine()) == ["broken_row", "card_number", "wrong_amount"]
    assert {item.batch_id for item in list_quarantine()} == {report.batch_id}
    assert len(refused("files", "transactions")) == 5, "a record that is refused again is not written again"

    (again,) = replay(report.batch_id).entities
    assert (again.read, again.quarantined) == (1, 1)
    land_transactions(path)
    assert sum(item.rule == "missing_currency" for item in list_quarantine()) == 2, "refused again after it was settled"


def test_replay_uses_the_mapping_of_the_batch_or_a_better_one(tmp_path: Path) -> None:
    path, mapping, better = tmp_path / "a.jsonl", tmp_path / "m.yml", tmp_path / "better.yml"
    path.write_text(json.dumps({"id": 7, "shop": "m", "sum": 1.5, "at": "2026-01-01", "when": "2026-02-02"}) + "\n")
    columns = "columns: {transaction_id: id, merchant_id: shop, amount: sum, currency: cur, transaction_at: "
    mapping.write_text(columns + "at}")
    better.write_text(columns + "when}\ndefaults: {currency: USD}")
    report = land_transactions(path, mapping)
    (same,) = replay(report.batch_id).entities
    assert (same.accepted, same.quarantined) == (0, 1)
    (counts,) = replay(report.batch_id, mapping=better).entities
    assert (counts.accepted, counts.quarantined) == (1, 0)
    (row,) = latest("files", "transactions")
    assert (row["currency"], row["transaction_at"].month) == ("USD", 2)
    assert list_quarantine() == []
    with pytest.raises(UsageError, match="no open record"):
        replay(report.batch_id)


def test_a_record_refused_by_another_rule_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER + "a,m,1.005,,2026-01-01\n")
    report = land_transactions(path)
    replay(report.batch_id, default_currency="EUR")
    (item,) = list_quarantine()
    assert (item.rule, item.batch_id) == ("too_many_decimals", "files-000000000002")
    (counts,) = replay(item.batch_id, default_currency="KWD").entities
    assert counts.accepted == 1
    assert list_quarantine() == []


def test_one_record_is_shown_by_its_id_or_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER + "a,m,1.00,,2026-01-01\na,m,1.00,,2026-01-01\nb,m,x,EUR,2026-01-01\n")
    report = land_transactions(path)
    for item in list_quarantine():
        assert show_quarantine(item.quarantine_id[:12].upper()) == item
        assert (item.batch_id, item.origin.endswith("a.csv")) == (report.batch_id, True)
    (wrong,) = list_quarantine(rule="wrong_amount")
    assert (wrong.record.count("b"), list_quarantine(source="oltp")) == (1, [])
    assert list_quarantine(report.batch_id, source="files", entity="transactions") == list_quarantine()
    for unknown in ("", "zzz"):
        with pytest.raises(UsageError, match="quarantine list"):
            show_quarantine(unknown)


def test_an_empty_quarantine_and_unknown_batches() -> None:
    assert list_quarantine() == []
    assert count_quarantine() == []
    with pytest.raises(UsageError, match="No batch files-000000000009"):
        replay("files-000000000009")

"""Copies in the document store: equal to the operational store, whatever comes twice, late or to an end half-way."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from pymongo.database import Database
from pymongo.errors import ServerSelectionTimeoutError

from ingestion.cdc import copies
from ingestion.cdc.copied_state import basis_points
from ingestion.cdc.copies import GENERATION, CopyReport, advance_copies
from ingestion.cdc.stream import drain
from ingestion.compaction import compact
from ingestion.raw_zone import RawZone
from payments.settings import settings
from payments.simulation.traffic import run_traffic
from payments.systems.documents.conflicts import recent_conflicts
from payments.systems.documents.together import remove
from payments.systems.documents.versioned import Outcome, delete_copies, set_owned, upsert, upsert_many
from tests.systems.shop import MERCHANT, Shop
from tests.systems.test_versioned import DISPUTES, NOW, decision, profile

pytestmark = pytest.mark.usefixtures("platform_home", "without_slot", "documents")

Document = dict[str, Any]
Store = Database[Document]
COPIES = ("customer_profiles", "merchant_risk", "online_features")


def copied() -> CopyReport:
    """Land and copy all that is committed."""
    drain()
    report = advance_copies()
    assert report.failure is None
    assert report.lag_seconds == 0
    return report


def stored(documents: Store) -> dict[str, Document]:
    return {f"{name}/{found['_id']}": found for name in COPIES for found in documents[name].find()}


def versions(documents: Store, collection: str) -> dict[str, int]:
    return {found["_id"]: found["version"] for found in documents[collection].find()}


class Rows:
    """The operational store, read as a whole and recounted by hand."""

    def __init__(self, oltp: psycopg.Connection) -> None:
        self._oltp = oltp
        self.customers = self._all("customers")
        self.merchants = self._all("merchants")
        self.charges = self._all("charges")
        self.refunds = self._all("refunds")
        self.disputes = self._all("disputes")
        self.warnings = self._all("early_fraud_warnings")

    def _all(self, table: str) -> list[Document]:
        found = self._oltp.execute(f"select * from core.{table}".encode())
        names = [column.name for column in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found]

    def profile(self, customer: Document) -> Document:
        own = [row for row in self.charges if row["customer_id"] == customer["customer_id"]]
        own.sort(key=lambda row: (row["created_at"], row["charge_id"]), reverse=True)
        paid = [row for row in own if row["status"] == "succeeded"]
        spent = {
            currency: [row["amount_captured_minor"] for row in paid if row["currency"] == currency]
            for currency in sorted({row["currency"] for row in paid})
        }
        named = ("charge_id", "amount_minor", "currency", "status")
        return {
            "merchant_id": customer["merchant_id"],
            "country": customer["country"],
            "payment_count": len(paid),
            "first_paid_at": milliseconds(min((row["created_at"] for row in paid), default=None)),
            "last_paid_at": milliseconds(max((row["created_at"] for row in paid), default=None)),
            "spent": [
                {"currency": currency, "amount_minor": sum(amounts), "payment_count": len(amounts)}
                for currency, amounts in spent.items()
            ],
            "recent_charges": [
                {**{name: row[name] for name in named}, "created_at": milliseconds(row["created_at"])}
                for row in own[:10]
            ],
            "updated_at": milliseconds(max(row["updated_at"] for row in [customer, *own])),
        }

    def window(self, merchant_id: str, as_of: datetime, days: int) -> Document:
        kinds = {
            "payment": [row for row in self.charges if row["status"] == "succeeded"],
            "failure": [row for row in self.charges if row["status"] == "failed"],
            "refund": [row for row in self.refunds if row["status"] not in ("failed", "canceled")],
            "dispute": [
                row
                for row in self.disputes
                if not row["status"].startswith("warning_") and row["status"] != "prevented"
            ],
            "warning": [
                {**charge, "created_at": row["created_at"]}
                for row in self.warnings
                for charge in self.charges
                if charge["charge_id"] == row["charge_id"]
            ],
        }
        within = {
            kind: [
                row
                for row in rows
                if row["merchant_id"] == merchant_id and as_of - timedelta(days=days) < row["created_at"] <= as_of
            ]
            for kind, rows in kinds.items()
        }
        paid, failed = len(within["payment"]), len(within["failure"])
        entries = []
        for currency in sorted({row["currency"] for rows in within.values() for row in rows}):
            entry: Document = {"currency": currency}
            for kind, rows in within.items():
                own = [row for row in rows if row["currency"] == currency]
                amount = "amount_captured_minor" if kind in ("payment", "warning") else "amount_minor"
                entry |= {f"{kind}_count": len(own), f"{kind}_minor": sum(row[amount] for row in own)}
            entries.append(entry)
        return {
            "days": days,
            "payment_count": paid,
            "failure_rate": basis_points(failed, paid + failed),
            **{f"{kind}_rate": basis_points(len(within[kind]), paid) for kind in ("refund", "dispute", "warning")},
            "by_currency": entries,
        }


def milliseconds(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def source_time() -> datetime:
    last = RawZone(settings().raw_zone).pin().last_of("oltp")
    assert last is not None
    return last.source_at


def assert_equal_to_the_source(oltp: psycopg.Connection, documents: Store) -> None:
    rows = Rows(oltp)
    profiles = {found["_id"]: found for found in documents["customer_profiles"].find()}
    assert profiles.keys() == {row["customer_id"] for row in rows.customers}
    for customer in rows.customers:
        found = profiles[customer["customer_id"]]
        expected = rows.profile(customer)
        assert {name: found[name] for name in expected} == expected
    risks = {found["_id"]: found for found in documents["merchant_risk"].find()}
    assert risks.keys() == {row["merchant_id"] for row in rows.merchants}
    for merchant_id, risk in risks.items():
        # As of the last batch that touched it; nothing has left a window since.
        as_of = source_time()
        assert risk["as_of"] <= as_of
        assert risk["refresh_at"] is None or risk["refresh_at"] > as_of - timedelta(milliseconds=1)
        assert risk["windows"] == [rows.window(merchant_id, as_of, days) for days in (1, 7, 30)]


def test_copies_are_what_the_operational_store_says(oltp: psycopg.Connection, documents: Store) -> None:
    Shop(oltp).open()
    copied()
    for seed in (3, 4):
        report = run_traffic(tps=0, seconds=1, clients=3, seed=seed)
        assert report.acknowledged
        assert copied().written > 0
        assert_equal_to_the_source(oltp, documents)
    paid = [found for found in documents["merchant_risk"].find() if found["windows"][0]["payment_count"]]
    assert len(paid) > 1
    before = stored(documents)
    assert copied().written == 0

    # The same batches again, all at once: not a document changes, not even its time.
    documents["copy_progress"].update_one({"_id": "copies"}, {"$set": {"sequence": 0}})
    again = advance_copies()
    assert again.failure is None
    assert (again.written, again.deleted) == (0, 0)
    assert again.repeated >= len(before)
    assert stored(documents) == before
    assert recent_conflicts() == []


def test_a_crash_or_a_store_that_is_down_repeats_the_work(
    oltp: psycopg.Connection, documents: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(oltp).open()
    copied()
    shop.pay(1_000)
    drain()
    with monkeypatch.context() as patch:
        patch.setattr(copies, "_write_progress", _die)
        with pytest.raises(KilledError):
            advance_copies()
    written = stored(documents)
    assert written["customer_profiles/cus_ada"]["payment_count"] == 1
    shop.later(seconds=1).pay(500)
    assert copied().written > 0
    profile_now = stored(documents)["customer_profiles/cus_ada"]
    assert (profile_now["payment_count"], profile_now["spent"][0]["amount_minor"]) == (2, 1_500)
    assert profile_now["version"] == GENERATION + last_change()
    assert_equal_to_the_source(oltp, documents)

    # A store that is down is no crash: the call says so, and the next one goes on.
    shop.later(seconds=2).pay(700)
    drain()
    with monkeypatch.context() as patch:
        patch.setattr(copies, "upsert_many", _unreachable)
        report = advance_copies()
        assert report.failure == "no server"
        assert report.sequence < source_sequence()
        assert report.lag_seconds is not None
        assert report.lag_seconds > 0
        patch.setattr(copies, "_read_progress", _unreachable)
        assert advance_copies().lag_seconds is None
    assert documents["customer_profiles"].distinct("payment_count") == [2]
    report = advance_copies()
    assert (report.failure, report.lag_seconds, report.sequence) == (None, 0, source_sequence())
    assert documents["customer_profiles"].distinct("payment_count") == [3]

    # Records that were merged away are still those of this raw zone.
    for seconds in (3, 4):
        shop.later(seconds=seconds).pay(900)
        drain()
    compact()
    copied()
    assert versions(documents, "customer_profiles") == {"cus_ada": GENERATION + last_change()}


def source_sequence() -> int:
    last = RawZone(settings().raw_zone).pin().last_of("oltp")
    assert last is not None
    return last.sequence


def last_change() -> int:
    """The last batch that has customers or charges; others say only how far the log was read."""
    batches = RawZone(settings().raw_zone).pin().batches("oltp")
    return max(
        batch.sequence for batch in batches if {part.entity for part in batch.entities} & {"customers", "charges"}
    )


class KilledError(Exception):
    """Stands for the end of the process."""


def _die(*_: object) -> None:
    raise KilledError


def _unreachable(*_: object) -> None:
    raise ServerSelectionTimeoutError("no server")


def test_owners_keep_their_fields_and_requests_stand(oltp: psycopg.Connection, documents: Store) -> None:
    shop = Shop(oltp).open()
    other = Shop(oltp, "acct_two", "cus_bob", "pm_bob")
    other.open()
    # What a simulation wrote in bulk gives way to the first copy; the segment is the warehouse's.
    upsert("customer_profiles", profile(customer="cus_ada", segment="loyal"))
    copied()
    shop.pay(1_000)
    copied()
    found = documents["customer_profiles"].find_one({"_id": "cus_ada"})
    assert found is not None
    assert (found["segment"], found["payment_count"]) == ("loyal", 1)
    assert documents["customer_profiles"].find_one({"_id": "cus_bob"}, {"segment": 1, "_id": 0}) == {"segment": "new"}

    remove("customer_profiles", ["cus_ada"], "erasure")
    shop.pay(2_000)
    assert copied().removed == 1
    documents["copy_progress"].update_one({"_id": "copies"}, {"$set": {"sequence": 0}})
    assert advance_copies().failure is None
    assert set(versions(documents, "customer_profiles")) == {"cus_bob"}


def test_what_is_gone_is_gone_until_it_is_made_again(oltp: psycopg.Connection, documents: Store) -> None:
    shop = Shop(oltp).open()
    shop.pay(1_000)
    copied()
    before = versions(documents, "customer_profiles")
    rows = {
        table: oltp.execute(f"select * from {table} where merchant_id = %s".encode(), (MERCHANT,)).fetchall()
        for table in ("core.customers", "core.payment_methods")
    }
    with oltp.transaction():
        oltp.execute("set local session_replication_role = replica")
        for table in ("charges", "payment_methods", "customers"):
            oltp.execute(f"delete from core.{table}".encode())
    report = copied()
    assert report.deleted >= 2, "the profile and what is known of the person"
    assert versions(documents, "customer_profiles") == {}
    assert documents["online_features"].find_one({"_id": "customer:nt_1"}) is None
    # A late message is not taken; one from after the end is.
    late = {**profile(customer="cus_ada"), "version": before["cus_ada"]}
    assert upsert("customer_profiles", late) is Outcome.REMOVED
    documents["copy_progress"].update_one({"_id": "copies"}, {"$set": {"sequence": 0}})
    assert advance_copies().deleted == 0
    assert versions(documents, "customer_profiles") == {}
    with oltp.transaction():
        oltp.execute("set local session_replication_role = replica")
        for table, found in rows.items():
            marks = ", ".join(["%s"] * len(found[0]))
            oltp.execute(f"insert into {table} values ({marks})".encode(), found[0])
    copied()
    assert versions(documents, "customer_profiles") == {"cus_ada": GENERATION + last_change()}


def test_tombstones_with_versions(documents: Store) -> None:
    upsert_many("customer_profiles", [profile(1, 5), profile(2, 5), profile(3, 5)])
    remove("customer_profiles", ["cus_3"], "erasure")
    gone = {"cus_1": 7, "cus_2": 4, "cus_3": 9, "cus_4": 2}
    assert delete_copies("customer_profiles", gone, "gone") == {
        Outcome.WRITTEN: 2,
        Outcome.STALE: 1,
        Outcome.REMOVED: 1,
    }
    assert versions(documents, "customer_profiles") == {"cus_2": 5}
    assert delete_copies("customer_profiles", {"cus_1": 7, "cus_4": 1}, "gone") == {
        Outcome.REPEATED: 1,
        Outcome.STALE: 1,
    }
    late = [profile(1, 7), profile(3, 99), profile(4, 2)]
    assert upsert_many("customer_profiles", late) == {Outcome.REMOVED: 3}
    assert [upsert("customer_profiles", profile(1, 7)), upsert("customer_profiles", profile(1, 8))] == [
        Outcome.REMOVED,
        Outcome.WRITTEN,
    ]
    assert upsert_many("customer_profiles", [profile(4, 3)]) == {Outcome.WRITTEN: 1}
    assert versions(documents, "customer_profiles") == {"cus_1": 8, "cus_2": 5, "cus_4": 3}
    remove("customer_profiles", ["cus_1"], "erasure")
    assert delete_copies("customer_profiles", {"cus_1": 50}, "gone") == {Outcome.REMOVED: 1}
    assert upsert("customer_profiles", profile(1, 60)) is Outcome.REMOVED, "a request outweighs every version"


def test_another_raw_zone_is_another_generation(
    oltp: psycopg.Connection, documents: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(oltp).open()
    for amount in (1_000, 2_000):
        shop.pay(amount)
        copied()
    assert versions(documents, "customer_profiles") == {"cus_ada": GENERATION + last_change()}
    monkeypatch.setenv("PAYMENTS_RAW", str(settings().raw_zone) + " anew")
    settings.cache_clear()
    shop.pay(3_000)
    copied()
    assert versions(documents, "customer_profiles") == {"cus_ada": 2 * GENERATION + last_change()}
    assert_equal_to_the_source(oltp, documents)


def test_losers_are_kept_for_review(oltp: psycopg.Connection, documents: Store) -> None:
    shop = Shop(oltp).open()
    copied()
    # Somebody gave the profile a version that the log has not reached: the copy loses, for all to see.
    upsert("customer_profiles", profile(customer="cus_ada", version=7 * GENERATION))
    # A merchant that no validator takes must not hold up the others.
    documents.command("collMod", "merchant_risk", validator={"version": {"$lt": GENERATION}})
    shop.pay(1_000)
    assert copied().refused == 1
    upsert("fraud_decisions", decision())
    outcome = ("fraud_decisions", "ch_1", DISPUTES)
    assert set_owned(*outcome, {"outcome": "fraud", "outcome_at": NOW}, "outcome_at") is Outcome.WRITTEN
    late = {"outcome": "genuine", "outcome_at": NOW - timedelta(days=1)}
    for _ in range(2):
        assert set_owned(*outcome, late, "outcome_at") is Outcome.STALE
    same = {"outcome": "fraud", "outcome_at": NOW - timedelta(days=2)}
    assert set_owned(*outcome, same, "outcome_at") is Outcome.STALE
    with pytest.raises(ValueError, match="does not own"):
        set_owned("fraud_decisions", "ch_1", DISPUTES, {"score": 0.1, "outcome_at": NOW}, "outcome_at")

    found = {
        (each.collection, each.document_id, each.field, each.rule, each.lost_owner, each.kept_owner): each
        for each in recent_conflicts()
    }
    operational = "the operational store"
    assert found.keys() == {
        ("customer_profiles", "cus_ada", "version", "ahead", operational, None),
        ("merchant_risk", MERCHANT, "version", "refused", operational, None),
        ("fraud_decisions", "ch_1", "outcome", "stale", DISPUTES, DISPUTES),
        ("fraud_decisions", "ch_1", "score", "foreign", DISPUTES, "the decision service"),
    }
    ahead = found["customer_profiles", "cus_ada", "version", "ahead", operational, None]
    assert (ahead.lost_version, ahead.kept_version) == (GENERATION + last_change(), 7 * GENERATION)
    stale = found["fraud_decisions", "ch_1", "outcome", "stale", DISPUTES, DISPUTES]
    assert (stale.lost_version, stale.kept_version) == (
        milliseconds(NOW - timedelta(days=1)),
        milliseconds(NOW),
    )


def test_windows_move_with_the_time_of_the_source(oltp: psycopg.Connection, documents: Store) -> None:
    now = datetime.now(UTC)
    shop = Shop(oltp, at=now - timedelta(days=8)).open()
    shop.pay(1_000)
    Shop(oltp, "acct_two", "cus_bob", "pm_bob").open()
    replace(shop, at=now - timedelta(days=1) + timedelta(seconds=4)).pay(3_000)
    copied()

    def counts() -> list[int]:
        found = documents["merchant_risk"].find_one({"_id": MERCHANT})
        assert found is not None
        return [window["payment_count"] for window in found["windows"]]

    assert counts() == [1, 1, 2]
    found = documents["merchant_risk"].find_one({"_id": MERCHANT})
    assert found is not None
    # Nobody touches the merchant again: another one's change tells what time it is.
    while source_time() < found["refresh_at"]:
        oltp.execute("update core.merchants set business_name = 'Other' where merchant_id = 'acct_two'")
        copied()
    assert counts() == [0, 1, 2]
    assert_equal_to_the_source(oltp, documents)

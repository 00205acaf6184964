"""Versioned writes under concurrency and repeated delivery, and changes of several documents, with and without
transactions."""

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import WriteError

from payments.errors import UsageError
from payments.settings import PROJECT_ROOT
from payments.systems.documents import together, versioned
from payments.systems.documents.capabilities import Capabilities, capabilities
from payments.systems.documents.together import change_together, finish_pending, read_together, remove
from payments.systems.documents.versioned import Outcome, Remove, SetOwned, Step, Upsert, set_owned, upsert, upsert_many

Document = dict[str, Any]
Store = Database[Document]
NOW = datetime(2026, 6, 30, 12, 0, 0, 123_456, tzinfo=UTC)
MOMENT = NOW.replace(microsecond=123_000)
CLIENTS = 16
DISPUTES = "disputes and warnings, as they become known"
both_ways = pytest.mark.parametrize("in_transaction", [True, False], ids=["transaction", "journal"])


def profile(number: int = 1, version: int = 1, customer: str = "", **other: Any) -> Document:
    return {
        "_id": customer or f"cus_{number}",
        "merchant_id": "acct_1",
        "version": version,
        "country": "FR",
        "segment": "new",
        "payment_count": version,
        "first_paid_at": None,
        "last_paid_at": None,
        "spent": [{"currency": "EUR", "amount_minor": 100, "payment_count": 1}],
        "recent_charges": [],
        "updated_at": NOW,
        "schema_version": 1,
        **other,
    }


def decision(number: int = 1, version: int = 1, **other: Any) -> Document:
    return {
        "_id": f"ch_{number}",
        "merchant_id": "acct_1",
        "version": version,
        "charge_version": 1,
        "amount_minor": 100,
        "currency": "EUR",
        "model_version": None,
        "score": 0.5,
        "decision": "allow",
        "reasons": [],
        "features": {"amount": {"z": 1.5}},
        "latency_ms": 3,
        "decided_at": NOW,
        "outcome": None,
        "outcome_at": None,
        "schema_version": 1,
        **other,
    }


def fraud(number: int = 1, at: datetime = NOW, outcome: str = "fraud") -> SetOwned:
    return SetOwned("fraud_decisions", f"ch_{number}", DISPUTES, {"outcome": outcome, "outcome_at": at}, "outcome_at")


def versions(store: Store, collection: str = "customer_profiles") -> dict[str, int]:
    return {found["_id"]: found["version"] for found in store[collection].find()}


def test_the_highest_version_wins_in_any_order(documents: Store, full_size: bool) -> None:
    ids, highest = (40, 25) if full_size else (8, 12)
    messages = [(number, version) for number in range(ids) for version in range(1, highest + 1)] * 2
    Random(4).shuffle(messages)  # noqa: S311 (a repeatable order)
    with ThreadPoolExecutor(CLIENTS) as pool:
        outcomes = Counter(pool.map(lambda message: upsert("customer_profiles", profile(*message)), messages))
    assert versions(documents) == {f"cus_{number}": highest for number in range(ids)}
    assert {found["payment_count"] for found in documents["customer_profiles"].find()} == {highest}
    assert outcomes.keys() <= {Outcome.WRITTEN, Outcome.STALE, Outcome.REPEATED}
    assert outcomes.total() == len(messages)
    assert ids <= outcomes[Outcome.WRITTEN] <= ids * highest
    assert outcomes[Outcome.REPEATED] >= ids, "the second message of the highest version is repeated"


def test_an_insertion_lost_to_an_older_version_is_still_written(documents: Store) -> None:
    """All begin at once on a document that does not exist: a duplicate key alone must not count as late."""
    for number in range(20):
        barrier = threading.Barrier(8)

        def write(version: int, number: int = number, barrier: threading.Barrier = barrier) -> Outcome:
            barrier.wait()
            return upsert("customer_profiles", profile(number, version))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(1, 9)))
    assert set(versions(documents).values()) == {8}


def test_many_at_once(documents: Store) -> None:
    batch = [profile(number, 3) for number in range(50)]
    assert upsert_many("customer_profiles", batch) == Counter({Outcome.WRITTEN: 50})
    mixed = [
        *(profile(number, 2) for number in range(10)),
        *(profile(number, 3) for number in range(10, 20)),
        *(profile(number, 4 + number % 2) for number in range(20, 60)),
        profile(20, 4),
        profile(21, 4),
    ]
    assert upsert_many("customer_profiles", iter(mixed)) == Counter(
        {Outcome.WRITTEN: 40, Outcome.STALE: 11, Outcome.REPEATED: 11}
    )
    assert versions(documents) == {
        **{f"cus_{number}": 3 for number in range(20)},
        **{f"cus_{number}": 4 + number % 2 for number in range(20, 60)},
    }


def test_many_writers_of_many(documents: Store) -> None:
    def write(seed: int) -> Counter[Outcome]:
        batch = [profile(number, version) for number in range(60) for version in (seed + 1, 8)]
        Random(seed).shuffle(batch)  # noqa: S311
        return upsert_many("customer_profiles", batch)

    with ThreadPoolExecutor(8) as pool:
        counts: Iterable[Counter[Outcome]] = list(pool.map(write, range(8)))
    assert set(versions(documents).values()) == {8}
    assert len(versions(documents)) == 60
    assert sum(found.total() for found in counts) == 8 * 120


def test_each_owner_keeps_its_fields(documents: Store) -> None:
    upsert("customer_profiles", profile())
    assert set_owned("customer_profiles", "cus_1", "the warehouse", {"segment": "loyal"}) is Outcome.WRITTEN
    assert upsert("customer_profiles", profile(1, 2, segment="new", country="DE")) is Outcome.WRITTEN
    found = documents["customer_profiles"].find_one({"_id": "cus_1"})
    assert found is not None
    assert (found["segment"], found["country"], found["version"]) == ("loyal", "DE", 2)
    cases: list[tuple[str, Document, str]] = [
        ("the warehouse", {"segment": "new", "country": "FR"}, "country (the operational store)"),
        ("the operational store", {"segment": "new", "version": 9}, "segment (the warehouse)"),
        ("the warehouse", {"nickname": "x"}, "no field nickname"),
        ("the operational store", {"country": "FR"}, "by a higher version only"),
    ]
    for owner, fields, told in cases:
        with pytest.raises(ValueError, match=told.replace("(", r"\(").replace(")", r"\)")):
            set_owned("customer_profiles", "cus_1", owner, fields)
    assert documents["customer_profiles"].find_one({"_id": "cus_1"}) == found
    assert set_owned("customer_profiles", "cus_9", "the warehouse", {"segment": "loyal"}) is Outcome.MISSING
    changed = set_owned(
        "customer_profiles", "cus_1", "the operational store", {"country": "IT", "version": 3}, "version"
    )
    assert changed is Outcome.WRITTEN
    assert upsert("customer_profiles", profile(1, 3)) is Outcome.REPEATED


def test_a_late_outcome_does_not_win(documents: Store) -> None:
    upsert("fraud_decisions", decision())
    for at, outcome, expected in [
        (NOW, "fraud", Outcome.WRITTEN),
        (NOW, "fraud", Outcome.REPEATED),
        (NOW - timedelta(days=1), "genuine", Outcome.STALE),
    ]:
        step = fraud(at=at, outcome=outcome)
        assert set_owned(step.collection, step.document_id, step.owner, step.fields, step.grows) is expected
    upsert("fraud_decisions", decision(version=2))
    found = documents["fraud_decisions"].find_one()
    assert found is not None
    assert (found["outcome"], found["version"]) == ("fraud", 2)


def test_what_cannot_be_upserted_is_told(documents: Store) -> None:
    with pytest.raises(ValueError, match="has no versions"):
        upsert("sessions", {"_id": "sess_1", "merchant_id": "acct_1"})
    with pytest.raises(ValueError, match="has no field nickname"):
        upsert("customer_profiles", profile(nickname="x"))
    with pytest.raises(WriteError, match="ailed validation"):
        upsert("customer_profiles", profile(country="France"))
    with pytest.raises(WriteError, match="ailed validation"):
        upsert_many("customer_profiles", [profile(1), profile(2, country="France")])
    assert documents["customer_profiles"].count_documents({"_id": "cus_2"}) == 0


@both_ways
def test_documents_change_as_one(documents: Store, in_transaction: bool) -> None:
    upsert_many("fraud_decisions", [decision(1), decision(2)])
    upsert("customer_profiles", profile())
    outcomes = change_together(
        [fraud(), Upsert("customer_profiles", profile(1, 2)), Remove("fraud_decisions", ["ch_2"], "erasure")],
        in_transaction=in_transaction,
    )
    assert outcomes == [Outcome.WRITTEN] * 3
    assert versions(documents) == {"cus_1": 2}
    assert [found["outcome"] for found in documents["fraud_decisions"].find()] == ["fraud"]
    assert documents["deletions"].count_documents({}) == 1
    late: list[Step] = [fraud(at=NOW - timedelta(1), outcome="genuine"), Upsert("customer_profiles", profile(1, 3))]
    assert change_together(late, in_transaction=in_transaction) == [Outcome.STALE, Outcome.WRITTEN]

    before = read_together([("fraud_decisions", "ch_1"), ("customer_profiles", "cus_1")], in_transaction=in_transaction)
    later = NOW + timedelta(1)
    with pytest.raises(WriteError):
        change_together(
            [fraud(at=later), Upsert("customer_profiles", profile(1, 4, country="France"))],
            in_transaction=in_transaction,
        )
    with pytest.raises(LookupError, match="ch_9"):
        change_together([Upsert("customer_profiles", profile(1, 4)), fraud(9)], in_transaction=in_transaction)
    segment = SetOwned("customer_profiles", "cus_1", "the warehouse", {"segment": "loyal"})
    with pytest.raises(ValueError, match="one that grows"):
        change_together([segment, fraud(at=later)], in_transaction=in_transaction)
    after = read_together([("fraud_decisions", "ch_1"), ("customer_profiles", "cus_1")], in_transaction=in_transaction)
    assert before == after
    assert documents["pending_changes"].count_documents({}) == 0


@both_ways
def test_changes_that_conflict_are_repeated(documents: Store, in_transaction: bool) -> None:
    """Two documents always change to the same version; readers meanwhile never see two versions."""
    ids, rounds = 2, 10
    upsert_many("customer_profiles", [profile(number) for number in range(ids)])
    references = [("customer_profiles", f"cus_{number}") for number in range(ids)]
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            try:
                found = read_together(references, in_transaction=in_transaction)
            except UsageError as error:
                assert "keep changing" in str(error)  # noqa: PT017 (a reader may be told to come back)
                continue
            assert len({document["version"] for document in found if document is not None}) == 1, found

    def write(version: int) -> list[Outcome]:
        order = Random(version).sample(range(ids), ids)  # noqa: S311
        steps = [Upsert("customer_profiles", profile(number, version)) for number in order]
        return change_together(steps, in_transaction=in_transaction)

    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(read)
        writers = list(pool.map(write, range(2, 2 + 4 * rounds)))
        is_over.set()
        reader.result()
    assert set(versions(documents).values()) == {1 + 4 * rounds}
    if in_transaction:
        assert all(len(set(outcomes)) == 1 for outcomes in writers), "both written or both late"
    assert documents["pending_changes"].count_documents({}) == 0


def end_before_step(number: int, steps: list[Step], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a change through the journal that ends before one of its steps, counted from 0."""

    def apply(store: Store, step: Step, session: None) -> Outcome:
        if step is steps[number]:
            raise KeyboardInterrupt
        return versioned.apply(store, step, session)

    with monkeypatch.context() as ended:
        ended.setattr(together, "apply", apply)
        ended.setattr(together, "sound", lambda step: step)
        with pytest.raises(KeyboardInterrupt):
            change_together(steps, in_transaction=False)


def test_a_change_that_was_killed_is_finished(documents: Store) -> None:
    upsert("fraud_decisions", decision())
    upsert("customer_profiles", profile())
    script = """
import os, signal
from payments.systems.documents import together
from tests.systems.test_versioned import Upsert, fraud, profile
def apply(store, step, session):
    if isinstance(step, Upsert):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(store, step, session)
real, together.apply = together.apply, apply
together.change_together([fraud(), Upsert("customer_profiles", profile(1, 2))], in_transaction=False)
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    outcome = documents["fraud_decisions"].distinct("outcome")
    assert (outcome, versions(documents)) == (["fraud"], {"cus_1": 1}), "half of it stands"
    references = [("fraud_decisions", "ch_1"), ("customer_profiles", "cus_1")]
    charge, customer = read_together(references, in_transaction=False)
    assert charge is not None
    assert customer is not None
    assert (charge["outcome"], customer["version"]) == ("fraud", 2), "a reader finishes what it finds"
    assert finish_pending() == 0


def test_what_overtook_an_ended_change_stays(documents: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    upsert("fraud_decisions", decision())
    end_before_step(0, [fraud(at=MOMENT), Upsert("customer_profiles", profile(1, 2, updated_at=MOMENT))], monkeypatch)
    upsert("customer_profiles", profile(1, 5))
    assert (finish_pending(), finish_pending()) == (1, 0)
    assert versions(documents) == {"cus_1": 5}
    assert documents["fraud_decisions"].distinct("outcome") == ["fraud"]


def test_a_change_that_cannot_be_finished_stays_and_is_told(documents: Store) -> None:
    upsert("customer_profiles", profile())
    bad = profile(1, 2, country="France")
    entry = {
        "_id": "chg_" + "0" * 32,
        "touches": ["customer_profiles/cus_1"],
        "steps": [
            {
                "kind": "upsert",
                "collection": "customer_profiles",
                "ids": ["cus_1"],
                "owner": None,
                "grows": "version",
                "content": {name: value for name, value in bad.items() if name != "_id"},
            }
        ],
        "started_at": NOW,
        "schema_version": 1,
    }
    documents["pending_changes"].insert_one(entry)
    with pytest.raises(Exception, match="cannot be finished: chg_0"):
        finish_pending()
    assert documents["pending_changes"].count_documents({}) == 1


@both_ways
def test_nothing_brings_back_what_was_removed(documents: Store, in_transaction: bool) -> None:
    upsert_many("customer_profiles", [profile(1), profile(2)])
    change_together([Remove("customer_profiles", ["cus_1", "cus_7"], "erasure")], in_transaction=in_transaction)
    assert versions(documents) == {"cus_2": 1}
    stones = {stone["_id"]: stone for stone in documents["deletions"].find()}
    assert stones.keys() == {"customer_profiles/cus_1", "customer_profiles/cus_7"}
    assert stones["customer_profiles/cus_1"]["reason"] == "erasure"
    assert upsert("customer_profiles", profile(1, 9)) is Outcome.REMOVED
    late = [profile(1, 9), profile(7), profile(3)]
    assert upsert_many("customer_profiles", late) == Counter({Outcome.REMOVED: 2, Outcome.WRITTEN: 1})
    steps = [Upsert("customer_profiles", profile(1, 9)), Upsert("customer_profiles", profile(2, 9))]
    assert change_together(steps, in_transaction=in_transaction) == [Outcome.REMOVED, Outcome.WRITTEN]
    assert versions(documents) == {"cus_2": 9, "cus_3": 1}


def test_a_removal_that_ended_half_way_is_finished(documents: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    upsert_many("customer_profiles", [profile(1), profile(2)])
    steps: list[Step] = [Remove("customer_profiles", [f"cus_{number}"], "erasure") for number in (1, 2)]
    end_before_step(1, steps, monkeypatch)
    assert versions(documents) == {"cus_2": 1}
    assert finish_pending() == 1
    assert versions(documents) == {}
    assert documents["deletions"].count_documents({}) == 2


def test_removal_races_with_writers(documents: Store) -> None:
    ids = [f"cus_{number}" for number in range(30)]
    upsert_many("customer_profiles", [profile(number) for number in range(0, 30, 2)])
    with ThreadPoolExecutor(6) as pool:
        writing = [
            pool.submit(upsert, "customer_profiles", profile(number, version))
            for version in (2, 3)
            for number in range(30)
        ]
        assert pool.submit(remove, "customer_profiles", ids, "erasure").result() >= 0
        for write in writing:
            write.result()
    assert versions(documents) == {}


@pytest.mark.parametrize("in_transaction", [None, True, False], ids=["alone", "transaction", "journal"])
def test_a_document_removed_just_before_it_is_inserted_is_gone(
    documents: Store, in_transaction: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = Collection.insert_one

    def after_removal(collection: Collection[Document], *arguments: Any, **options: Any) -> Any:
        if collection.name == "customer_profiles":
            remove("customer_profiles", ["cus_1"], "erasure")
        return insert(collection, *arguments, **options)

    monkeypatch.setattr(Collection, "insert_one", after_removal)
    if in_transaction is None:
        assert upsert("customer_profiles", profile()) is Outcome.REMOVED
    else:
        change_together([Upsert("customer_profiles", profile())], in_transaction=in_transaction)
    assert versions(documents) == {}


def test_a_change_between_two_looks_is_noticed(documents: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    upsert_many("customer_profiles", [profile(1), profile(2)])
    newer: list[Step] = [Upsert("customer_profiles", profile(number, 2)) for number in (1, 2)]
    looks = []
    read = together._read

    def torn(store: Store, references: Any, session: None) -> list[Document | None]:
        looks.append(references)
        first = read(store, references[:1], session)
        if len(looks) == 1:
            change_together(newer, in_transaction=False)
        return first + read(store, references[1:], session)

    monkeypatch.setattr(together, "_read", torn)
    found = read_together([("customer_profiles", "cus_1"), ("customer_profiles", "cus_2")], in_transaction=False)
    assert [document and document["version"] for document in found] == [2, 2]
    assert len(looks) == 4


def test_what_the_server_can_is_asked(documents: Store) -> None:
    assert capabilities(documents.client) == Capabilities(transactions=True, change_streams=True)
    assert capabilities(documents.client).missing == ()
    assert len(Capabilities(False, False).missing) == 2

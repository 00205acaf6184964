"""The documents of a history as the generator makes them, without a store: they agree with each other and with it."""

from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from payments.simulation.business import Business, build_business
from payments.simulation.collection import Collection, Document
from payments.simulation.documents import COLLECTIONS, Documents
from payments.simulation.plan import SECOND, Plan
from payments.simulation.tables import Tables
from payments.simulation.visits import EVENTS_A_DOCUMENT
from payments.systems.documents.audit_chain import BrokenLink, broken_links

ByCollection = dict[str, list[Document]]


def collections_of(business: Business) -> dict[str, Collection]:
    parts = Documents(Tables(business)).collections(lambda person, text: f"{person} {text}".encode())
    return {part.name: part for part in parts}


def made(part: Collection, start: int = 0, stop: int | None = None) -> list[Document]:
    """The documents of a range, without the clock of the writer."""
    documents = part.documents(start, part.count if stop is None else stop)
    return [{key: value for key, value in one.items() if key != "written_at"} for one in documents if one is not None]


@pytest.fixture(scope="module")
def business(full_size: bool) -> Business:
    return build_business(Plan(20_000 if full_size else 3_000, 60, 11, date(2026, 6, 30)))


@pytest.fixture(scope="module")
def history(business: Business) -> ByCollection:
    return {name: made(part) for name, part in collections_of(business).items()}


def moment(microseconds: int) -> datetime:
    """A moment of the plan as documents hold it: without a timezone, in UTC."""
    return datetime.fromtimestamp(microseconds // SECOND, UTC).replace(tzinfo=None)


def test_every_collection_has_documents_in_the_order_of_their_ids(history: ByCollection) -> None:
    assert tuple(history) == COLLECTIONS
    for name, documents in history.items():
        ids = [document["_id"] for document in documents]
        assert ids, name
        assert ids == sorted(set(ids)), name


def test_a_part_of_a_collection_is_made_again_exactly(business: Business, history: ByCollection) -> None:
    for name, part in collections_of(business).items():
        cuts = [0, part.count // 3, part.count // 3 + 1, part.count]
        again = [one for start, stop in pairwise(cuts) for one in made(part, start, stop)]
        assert again == history[name], name


def test_another_seed_gives_other_documents(history: ByCollection) -> None:
    other = collections_of(build_business(Plan(400, 30, 12, date(2026, 6, 30))))
    for name, part in other.items():
        assert {one["_id"] for one in made(part)}.isdisjoint({one["_id"] for one in history[name]}), name


@pytest.mark.parametrize(("name", "field"), [("sessions", "started_at"), ("feedback", "submitted_at")])
def test_the_newer_schema_version_begins_in_the_middle(
    business: Business, history: ByCollection, name: str, field: str
) -> None:
    middle = moment(business.plan.middle_moment)
    versions = {one["_id"]: one["schema_version"] for one in history[name]}
    assert versions == {one["_id"]: 2 if one[field] >= middle else 1 for one in history[name]}
    assert set(versions.values()) == {1, 2}


def test_pointers_and_overflows_are_the_clicks_of_their_session(history: ByCollection) -> None:
    clicks: dict[str, list[Document]] = defaultdict(list)
    overflows: dict[str, list[Document]] = defaultdict(list)
    for event in history["click_events"]:
        pointer = {"event_id": event["_id"], "event_type": event["event_type"], "occurred_at": event["occurred_at"]}
        clicks[event["session_id"]].append(pointer)
    for part in history["session_overflows"]:
        assert part["bucket"] == len(overflows[part["session_id"]]) + 1
        assert part["_id"] == f"{part['session_id']}:{part['bucket']}"
        overflows[part["session_id"]].append(part)
    lengths = []
    for session in (one for one in history["sessions"] if one["schema_version"] == 2):
        rest = overflows.pop(session["_id"], [])
        assert [len(part["events"]) for part in rest[:-1]] == [EVENTS_A_DOCUMENT] * (len(rest) - 1)
        events = session["events"] + [event for part in rest for event in part["events"]]
        assert events == clicks[session["_id"]]
        assert session["event_count"] == len(events)
        assert session["has_overflow"] == bool(rest)
        assert {part["merchant_id"] for part in rest} <= {session["merchant_id"]}
        assert not rest or len(session["events"]) == EVENTS_A_DOCUMENT
        lengths.append(len(events))
    assert not overflows, "an overflow of no session"
    long = [length for length in lengths if length > 5]
    assert 1 <= len(long) <= 40
    assert all(250 <= length <= 900 for length in long)
    assert max(long) > 2 * EVENTS_A_DOCUMENT


def test_the_audit_chains_are_whole_and_a_change_breaks_them(history: ByCollection) -> None:
    events = history["audit_events"]
    assert broken_links(reversed(events)) == []
    assert broken_links([{**one, "occurred_at": one["occurred_at"].replace(tzinfo=UTC)} for one in events]) == []
    place, changed = next((place, one) for place, one in enumerate(events) if one["sequence"] == 2)
    who = (changed["merchant_id"], 2)

    def with_second(*second: Document) -> list[BrokenLink]:
        return broken_links([*events[:place], *second, *events[place + 1 :]])

    assert with_second({**changed, "outcome": "other"}) == [BrokenLink(*who, "content and hash differ")]
    assert with_second({**changed, "previous_hash": "0" * 64}) == [BrokenLink(*who, "names another previous hash")]
    assert with_second(changed, changed) == [BrokenLink(*who, "follows 2")]
    longer = [one["merchant_id"] for one in events if one["sequence"] == 3]
    assert changed["merchant_id"] in longer
    assert with_second() == [BrokenLink(changed["merchant_id"], 3, "follows 1")]


def test_errors_come_in_bursts_behind_failed_requests(history: ByCollection) -> None:
    requests = {one["_id"]: one for one in history["api_logs"]}
    by_fault = defaultdict(list)
    for error in history["error_logs"]:
        if error["request_id"] is not None:
            request = requests[error["request_id"]]
            assert request["status_code"] == 500
            assert request["merchant_id"] == error["merchant_id"]
            assert request["api_version"] == error["context"]["api_version"]
        by_fault[error["fingerprint"], error["context"].get("api_version")].append(error)
    bursts = [
        [one for one in errors if timedelta(0) <= one["occurred_at"] - first["occurred_at"] < timedelta(hours=1)]
        for errors in by_fault.values()
        for first in errors[:1]
    ]
    found = [burst for burst in bursts if len(burst) >= 10]
    assert found
    for burst in found:
        assert len({one["service"] for one in burst}) == 1
        assert sum(one["request_id"] is not None for one in burst) > len(burst) / 2


def test_deliveries_are_tried_at_most_twenty_times(business: Business, history: ByCollection) -> None:
    end = moment(business.plan.end_moment)
    for one in history["webhook_deliveries"]:
        attempts = one["attempts"]
        assert one["attempt_count"] == len(attempts) <= 20
        assert [attempt["attempted_at"] for attempt in attempts] == sorted(a["attempted_at"] for a in attempts)
        assert all(one["created_at"] <= attempt["attempted_at"] < end for attempt in attempts)
        arrived = [attempt["status_code"] == 200 for attempt in attempts]
        assert not any(arrived[:-1])
        is_over = (arrived and arrived[-1]) or len(attempts) == 20
        assert one["state"] == ("delivered" if arrived[-1] else "failed" if is_over else "pending")
        assert (one["next_attempt_at"] is None) == is_over
        assert is_over or one["next_attempt_at"] >= end
    states = Counter((one["state"], one["attempt_count"] > 1) for one in history["webhook_deliveries"])
    assert states["delivered", False] > 10 * states["delivered", True] > 0
    assert states["failed", True] > 0


def test_features_are_corrected_now_and_then(history: ByCollection) -> None:
    by_moment = defaultdict(list)
    for row in history["ml_features"]:
        assert row["as_of"] < row["available_at"]
        by_moment[row["entity_id"], row["as_of"]].append(row)
    corrected = [rows for rows in by_moment.values() if len(rows) > 1]
    assert 0 < len(corrected) < len(by_moment) / 2
    for first, second in corrected:
        assert first["available_at"] < second["available_at"]
        assert first["feature_values"] != second["feature_values"]


def test_decisions_do_not_contradict_the_payments(business: Business, history: ByCollection) -> None:
    outcomes: Counter[tuple[str, str | None]] = Counter()
    end = moment(business.plan.end_moment)
    for one in history["fraud_decisions"]:
        outcomes[one["decision"], one["outcome"]] += 1
        assert (one["outcome"] is None) == (one["outcome_at"] is None) == (one["version"] == 1)
        assert one["outcome_at"] is None or one["decided_at"] < one["outcome_at"] < end
        assert len(one["reasons"]) <= 10
    assert outcomes["allow", "genuine"] > outcomes["allow", "fraud"] > 0
    assert outcomes["block", "genuine"] == 0 < outcomes["block", None]


def test_surveys_have_answers_and_tickets_a_thread(business: Business, history: ByCollection) -> None:
    end = moment(business.plan.end_moment)
    kinds: Counter[str] = Counter()
    for one in (one for one in history["feedback"] if one["schema_version"] == 2):
        kinds[one["kind"]] += 1
        assert (one["answers"] is None) == (one["kind"] != "survey")
        assert (one["thread"] is None) == (one["message_count"] is None) == (one["kind"] != "ticket")
        assert (one["charge"] is None) == (one["kind"] == "survey")
        if one["thread"]:
            assert one["message_count"] == len(one["thread"])
            assert one["thread"][0]["sent_at"] == one["submitted_at"]
            assert all(message["sent_at"] < end for message in one["thread"])
            person = one["text_encrypted"].split()[0]
            assert {message["text_encrypted"].split()[0] for message in one["thread"]} == {person}
    assert set(kinds) == {"review", "survey", "ticket"}

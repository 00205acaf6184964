"""The webhook inbox: what is signed is kept once and for good, what is not is refused, and what lands is coarse."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bson
import pytest
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from ingestion.documents import land_documents
from ingestion.inbox import events, server
from ingestion.inbox.events import NoEventError, coarse, read_event
from ingestion.inbox.secrets import endpoint_secrets
from ingestion.inbox.signature import HEADER, SignatureError, sign, verify
from ingestion.inbox.store import Receipt, original, receive
from ingestion.landing import EntityCounts
from ingestion.quarantine import list_quarantine, replay
from payments.errors import UsageError
from payments.settings import PROJECT_ROOT, settings
from payments.systems.documents.together import remove
from tests.conftest import Servers
from tests.ingestion.raw import latest

Document = dict[str, Any]
SECRET, NEXT_SECRET = "whsec_of_the_old_days", "whsec_of_the_days_to_come"
NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
CARD = "4111 1111 1111 1111"

CHARGE: Document = {
    "id": "ch_1",
    "object": "charge",
    "amount": 1250,
    "amount_refunded": 0,
    "currency": "eur",
    "status": "succeeded",
    "paid": True,
    "created": 1_782_820_800,
    "customer": {"id": "cus_1", "object": "customer", "email": "ada@example.org"},
    "payment_intent": "pi_1",
    "failure_code": None,
    "description": "for Ada Lovelace",
    "receipt_email": "ada@example.org",
    "statement_descriptor": "Ada",
    "billing_details": {"name": "Ada Lovelace", "phone": "+49 30 1234567"},
    "metadata": {"note": "call Ada", "amount": 7},
    "reason": "Ada was not at home",
    "type": "49301234567",
    "fee": "12",
    "tax": True,
    "captured": 1,
    "invoice": "ada@example.org",
}
COARSE = {
    "id": "ch_1",
    "object": "charge",
    "amount": 1250,
    "amount_refunded": 0,
    "currency": "eur",
    "status": "succeeded",
    "paid": True,
    "created": 1_782_820_800,
    "customer": "cus_1",
    "payment_intent": "pi_1",
}


def event(number: int = 1, **other: Any) -> Document:
    return {
        "id": f"evt_{number}",
        "object": "event",
        "type": "charge.succeeded",
        "api_version": "2026-03-25.dahlia",
        "created": 1_782_820_801,
        "account": "acct_1",
        "livemode": False,
        "pending_webhooks": 1,
        "data": {"object": CHARGE},
        **other,
    }


def body(number: int = 1, **other: Any) -> bytes:
    return json.dumps(event(number, **other), indent=2).encode()


@pytest.fixture(scope="module")
def endpoint(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an endpoint in a process of its own, which ends by SIGTERM with exit code 0."""
    ring = tmp_path_factory.mktemp("keys") / "ring.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAYMENTS_WEBHOOK_SECRETS", f"{NEXT_SECRET}, {SECRET}")
        patch.setenv("INBOX_TEST_KEY_RING", str(ring))
        patch.setenv("PAYMENTS_KEY_RING", str(ring))
        process, told = start()
        patch.delenv("PAYMENTS_KEY_RING")
        assert "the secret is in PAYMENTS_WEBHOOK_SECRETS" in told
        yield told.split()[4].rstrip(";")
        process.send_signal(signal.SIGTERM)
        printed, wrong = process.communicate(timeout=30)
        assert (process.returncode, printed) == (0, "")
        assert "Traceback" not in wrong
        assert SECRET not in wrong


@pytest.fixture
def inbox(documents: Database[Document], platform_home: Path, monkeypatch: pytest.MonkeyPatch) -> Database[Document]:
    """The emptied store, with the key ring of the endpoint where that runs."""
    if ring := os.environ.get("INBOX_TEST_KEY_RING"):
        monkeypatch.setenv("PAYMENTS_KEY_RING", ring)
        settings.cache_clear()
    return documents


def start(*options: str) -> tuple[subprocess.Popen[str], str]:
    """Start an endpoint on a free port; return it and the line that it prints once it takes connections."""
    process = subprocess.Popen(
        [sys.executable, "-m", "payments", "inbox", "serve", "--port", "0", *options],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    told = process.stdout.readline()
    assert told.startswith("Webhooks are taken at http://127.0.0.1:"), process.communicate()
    return process, told


def post(address: str, content: bytes, header: str | None = None, secret: str = SECRET) -> tuple[int, str]:
    signed = sign(secret, content, datetime.now(UTC)) if header is None else header
    status, answer = request(address, "POST", content, {HEADER: signed})
    return status, json.loads(answer)["result"]


def request(
    address: str, method: str, content: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    where = urlsplit(address)
    connection = HTTPConnection(where.hostname or "", where.port, timeout=60)
    try:
        connection.request(method, where.path, content, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def health(address: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(request(address.replace(server.PATH, "/health"), "GET")[1])
    return found


def test_a_signed_event_is_kept_as_received_and_once(endpoint: str, inbox: Database[Document]) -> None:
    assert post(endpoint, body()) == (200, "stored")
    assert post(endpoint, body(), secret=NEXT_SECRET) == (200, "known")
    assert post(endpoint, body(pending_webhooks=0)) == (200, "known"), "a sender's counter is not the event"
    (document,) = inbox["inbox_events"].find()
    assert original(document) == body()
    assert b"Ada" not in bson.encode(document)
    assert b"ada@" not in bson.encode(document)
    assert (document["object"], document["customer_id"], document["refusal"]) == (COARSE, "cus_1", None)
    assert document["expire_at"] - document["received_at"] == timedelta(days=90)
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: post(endpoint, body(2)), range(64)))
    assert sorted(answers) == [(200, "known")] * 63 + [(200, "stored")]
    assert inbox["inbox_events"].count_documents({}) == 2


def test_what_is_not_signed_in_time_is_not_kept_but_counted(endpoint: str, inbox: Database[Document]) -> None:
    before = health(endpoint)
    now = datetime.now(UTC)
    for header, result in [
        ("", "unsigned"),
        (sign("whsec_of_nobody_here", body(), now), "wrong signature"),
        (sign(SECRET, body(2), now), "wrong signature"),
        (sign(SECRET, body(), now - timedelta(seconds=310)), "outside the time window"),
        (sign(SECRET, body(), now + timedelta(seconds=310)), "outside the time window"),
    ]:
        assert post(endpoint, body(), header) == (400, result)
    assert post(endpoint, b"x" * 1_000_001) == (413, "too large")
    after = health(endpoint)
    assert after["wrong signature"] - before.get("wrong signature", 0) == 2
    assert after["outside the time window"] - before.get("outside the time window", 0) == 2
    assert inbox["inbox_events"].count_documents({}) == 0
    assert [request(endpoint, method)[0] for method in ("GET", "PUT")] == [405, 405]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "unsigned"),
        ("t=1,v0=00", "unsigned"),
        ("t=x,v1=00", "unsigned"),
        ("t=1,t=2,v1=00", "unsigned"),
        ("t=99999999999999,v1=00", "unsigned"),
        ("t=99999999999,v1=ä", "wrong signature"),
        ("v1=,t=1", "wrong signature"),
    ],
)
def test_signatures_that_are_none(header: str | None, reason: str) -> None:
    with pytest.raises(SignatureError, match=reason):
        verify(header, b"x", [SECRET], NOW)


def test_one_of_several_signatures_and_secrets_suffices_within_five_minutes() -> None:
    # The digest is the one that `printf '1782820800.{}' | openssl dgst -sha256 -hmac whsec_of_the_old_days` prints.
    header = sign(SECRET, b"{}", NOW)
    assert header == "t=1782820800,v1=6c92f0766beab291c09adb001535c06ef8194e192270b9ea6c2dc65392c456b8"
    rolled = header.replace("v1=", f"v0=00,v1={'0' * 64}, v1=")
    for seconds in (-300, 0, 300):
        assert verify(rolled, b"{}", [NEXT_SECRET, SECRET], NOW + timedelta(seconds=seconds)) == NOW
    for seconds in (-301, 301):
        with pytest.raises(SignatureError, match="window"):
            verify(rolled, b"{}", [SECRET], NOW + timedelta(seconds=seconds))


def test_only_the_allow_list_leaves_an_object() -> None:
    assert coarse(CHARGE) == COARSE
    assert coarse({"amount": 10**12, "created": -1, "id": "ch_4111111111111111", "currency": "EUR"}) == {}
    assert read_event(body()).object_id == "ch_1"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"id": "event-1"}, "no event id"),
        ({"id": "evt_4111111111111111"}, "no event id"),
        ({"type": "Charge Succeeded"}, "no event type"),
        ({"created": "today"}, "no moment"),
        ({"created": True}, "no moment"),
        ({"account": "me"}, "no account id"),
        ({"data": []}, "no object"),
        ({"data": {"object": {"id": "ch_1"}}}, "no object"),
    ],
)
def test_what_makes_no_event_is_told(other: Document, reason: str) -> None:
    with pytest.raises(NoEventError, match=reason):
        read_event(body(**other))


def land() -> EntityCounts:
    (report,) = land_documents(["inbox_events"], full=True)
    return report.entities[0]


def refused(inbox: Database[Document]) -> list[Document]:
    return list(inbox["inbox_events"].find({"refusal.rule": {"$type": "string"}}).sort("refusal.rule", 1))


def test_what_no_repetition_could_mend_is_kept_and_goes_to_quarantine(inbox: Database[Document]) -> None:
    changed = body(data={"object": {**CHARGE, "amount": 1}})
    with_card = json.dumps(event(3, note=CARD)).replace("1111 1", r"1111\u0020\u0031").encode()
    assert CARD.encode() not in with_card
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    strange = [b"\xff\xfe{", b"[]", deep]
    sent = [body(), changed, with_card, *strange]
    expected = [Receipt.STORED, *[Receipt.REFUSED] * 5]
    assert [receive(content, NOW) for content in sent] == expected
    assert [receive(content, NOW) for content in sent] == [Receipt.KNOWN] * 6
    card, conflict, *rest = refused(inbox)
    assert original(card) == json.dumps(event(3, note="**** **** **** 1111"), separators=(",", ":")).encode()
    assert card["body_sha256"] not in {
        events.digest(with_card),
        events.digest(json.dumps(event(3, note=CARD)).encode()),
    }
    assert original(conflict) == changed
    assert conflict["refusal"]["event_id"] == "evt_1"
    assert {original(document) for document in rest} == set(strange)

    counts = land()
    assert (counts.read, counts.accepted, counts.quarantined) == (6, 1, 5)
    (row,) = latest("documents", "inbox_events")
    assert json.loads(row["object"]) == COARSE
    assert (row["event_id"], row["account_id"], row["is_live"]) == ("evt_1", "acct_1", False)
    assert row["created_at"] == datetime(2026, 6, 30, 12, 0, 1, tzinfo=UTC)
    assert not {"body_encrypted", "body_key", "refusal", "written_at"} & row.keys()
    records = list_quarantine(entity="inbox_events")
    assert sorted(record.rule for record in records) == ["card_number", "event_conflict", *["no_event"] * 3]
    assert "the body is no event: it is no JSON" in {record.reason for record in records}
    assert not any("Ada" in record.record or "body_encrypted" in record.record for record in records)
    assert [record.rule for record in list_quarantine(rule="event_conflict")] == ["event_conflict"]


def test_a_refused_delivery_lands_after_a_fix(inbox: Database[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    receive(body(id="event-7"), NOW)
    receive(body(8, note=CARD), NOW)
    receive(b"{}", NOW)
    (report,) = land_documents(["inbox_events"])
    (counts,) = replay(report.batch_id).entities
    assert (counts.accepted, counts.quarantined) == (0, 2), "without a fix all stays as it was"
    with monkeypatch.context() as fixed:
        # As if the endpoint had learned another form of id, and to write it as ours.
        as_read = events.read_event
        fixed.setattr(
            "ingestion.inbox.store.read_event", lambda content: as_read(content.replace(b"event-7", b"evt_7"))
        )
        (counts,) = replay(report.batch_id).entities
    assert (counts.accepted, counts.quarantined) == (1, 1)
    assert [row["event_id"] for row in latest("documents", "inbox_events")] == ["evt_7"]
    assert sorted(record.rule for record in list_quarantine()) == ["card_number", "no_event"]
    counts = land()
    assert (counts.read, counts.unchanged, counts.quarantined) == (3, 1, 2)


def test_a_removed_event_does_not_come_back(inbox: Database[Document]) -> None:
    receive(body(), NOW)
    ids = [found["_id"] for found in inbox["inbox_events"].find({"customer_id": "cus_1"}, {"_id": 1})]
    assert remove("inbox_events", ids, "erasure") == 1
    assert receive(body(), NOW) is Receipt.KNOWN
    assert inbox["inbox_events"].count_documents({}) == 0


def ask(content: bytes, *, broken_off: bool = False) -> int:
    """Post to the application in this process and return the status."""
    header = sign(SECRET, content, datetime.now(UTC))
    scope = {
        "type": "http",
        "method": "POST",
        "path": server.PATH,
        "raw_path": server.PATH.encode(),
        "query_string": b"",
        "headers": [(HEADER.lower().encode(), header.encode())],
    }
    chunks = [content[at : at + 300_000] for at in range(0, len(content), 300_000)]
    messages: list[Document] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.disconnect"} if broken_off else {"type": "http.request", "more_body": False})
    statuses = []

    async def give() -> Document:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def take(message: Any) -> None:
        statuses.append(message.get("status"))

    asyncio.run(server.application((SECRET,))(scope, give, take))
    return int(statuses[0])


def test_nothing_is_acknowledged_that_was_not_stored(
    inbox: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(body()) == 200
    assert ask(body(2), broken_off=True) == 400
    assert ask(b"x" * 1_000_001) == 413, "also without a length that says so"
    with monkeypatch.context() as down:

        def unreachable(*_: object) -> None:
            raise AutoReconnect("gone")

        down.setattr(server, "receive", unreachable)
        assert ask(body(3)) == 503
    assert [found["_id"] for found in inbox["inbox_events"].find()] == ["evt_1"]


def test_a_taken_port_is_one_line(servers: Servers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-m", "payments", "inbox", "serve", "--port", str(taken.getsockname()[1])],
            capture_output=True,
            text=True,
            env=os.environ | {"PAYMENTS_WEBHOOK_SECRETS": SECRET},
            cwd=PROJECT_ROOT,
            check=False,
            timeout=60,
        )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "--port" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("given", ["", "short", f"{SECRET},short"])
def test_a_secret_that_is_none_is_told(given: str, inbox: Database[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYMENTS_WEBHOOK_SECRETS", given)
    settings.cache_clear()
    with pytest.raises(UsageError, match="PAYMENTS_WEBHOOK_SECRETS"):
        endpoint_secrets()


def test_a_secret_is_made_where_none_is_given(
    inbox: Database[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PAYMENTS_WEBHOOK_SECRETS", raising=False)
    process, told = start()
    try:
        path = settings().home / "keys" / "webhook_secret"
        assert told.endswith(f"the secret is in {path}\n")
        assert path.stat().st_mode & 0o777 == 0o600
        secret = path.read_text().strip()
        assert secret not in told
        assert post(told.split()[4].rstrip(";"), body(), secret=secret) == (200, "stored")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0

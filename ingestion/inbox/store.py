"""Keeping a signed delivery, once and for good: the event as received, or what was wrong with it.

The original is encrypted under a key of its own, which the key ring wraps for this document alone: so the inbox depends
on no other store, and a removed document takes its key with it. What can be read of it in clear is
:class:`~ingestion.inbox.events.Event`.

A sender repeats whatever it gets no 200 for, so everything that was signed is kept and answered with 200, also what no
repetition could mend. Such a delivery is a document with a ``refusal`` and an id made from its digest; landing puts it
into quarantine. Of two contents under one event id the first is kept, and the second refused. A body with a card number
is kept with the digits removed, and its own digest is not: a digest of nearly known text would give the number away.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pymongo.errors import DuplicateKeyError

from ingestion.inbox.events import NoEventError, digest, is_same, read_event, without_cards
from payments.settings import settings
from payments.systems.documents.definitions import definition_of
from payments.systems.documents.versioned import Document, Store, durable, insert_unless_removed
from payments.vault import KeyRing, decrypt_bytes, encrypt_bytes, new_data_key, unwrap, wrap

COLLECTION = "inbox_events"
_CONTEXT = "inbox_events.body"
_FACTS = (
    "event_type",
    "api_version",
    "created_at",
    "account_id",
    "is_live",
    "object_type",
    "object_id",
    "customer_id",
    "object",
)


class Receipt(StrEnum):
    """What became of a delivery that was signed: all of it is durable."""

    STORED = "stored"
    KNOWN = "known"
    REFUSED = "refused"


class _RefusedError(Exception):
    def __init__(self, rule: str, reason: str, event_id: str | None = None) -> None:
        super().__init__(reason)
        self.refusal = {"rule": rule, "reason": reason, "event_id": event_id}


def receive(body: bytes, signed_at: datetime) -> Receipt:
    """Keep a signed body durably; the same event or body again changes nothing.

    Raises:
        PyMongoError, UsageError: the store cannot be reached or did not write durably; the sender must repeat it.
    """
    store, received_at = durable(), datetime.now(UTC)
    clean = without_cards(body)
    try:
        if clean is not None:
            raise _RefusedError("card_number", "the body holds a card number; what is kept has its digits removed")
        receipt, _ = _keep(store, body, signed_at, received_at)
    except _RefusedError as refused:
        kept = body if clean is None else clean
        facts = {**dict.fromkeys(_FACTS), "refusal": refused.refusal}
        try:
            store[COLLECTION].insert_one(_document(f"evt_{digest(kept)}", kept, facts, signed_at, received_at))
        except DuplicateKeyError:
            return Receipt.KNOWN
        return Receipt.REFUSED
    return receipt


def read_again(refused_id: str) -> Document | None:
    """Read the original of a refused delivery by today's rules, and store the event that it is.

    Once that event has landed, :func:`drop_refused` removes what it came from; until then this may be repeated.

    Returns:
        The event's document; None when it is refused still, is gone, or held a card number.
    """
    store = durable()
    found = store[COLLECTION].find_one({"_id": refused_id, "refusal.rule": {"$in": ["no_event", "event_conflict"]}})
    if found is None:
        return None
    try:
        _, event = _keep(store, original(found), found["signed_at"], found["received_at"])
    except _RefusedError:
        return None
    return event


def drop_refused(refused_ids: Sequence[str]) -> None:
    """Remove refused deliveries that were read again as events."""
    durable()[COLLECTION].delete_many({"_id": {"$in": list(refused_ids)}, "refusal.rule": {"$type": "string"}})


def original(document: Document) -> bytes:
    """Return the body that a document was made from.

    Raises:
        DecryptionError: the key ring is another one.
    """
    data_key = unwrap(_ring(), document["body_key"], document["_id"])
    return decrypt_bytes(data_key, document["body_encrypted"], _CONTEXT)


def _keep(store: Store, body: bytes, signed_at: datetime, received_at: datetime) -> tuple[Receipt, Document]:
    """Store a body as the event that it is, and return what stands for that event."""
    try:
        event = read_event(body)
    except NoEventError as error:
        raise _RefusedError("no_event", f"the body is no event: {error}") from None
    facts = {name: getattr(event, name) for name in _FACTS}
    document = _document(event.event_id, body, {**facts, "refusal": None}, signed_at, received_at)
    while True:
        try:
            is_new = insert_unless_removed(store, COLLECTION, document)
            return (Receipt.STORED if is_new else Receipt.KNOWN), document
        except DuplicateKeyError:
            standing = store[COLLECTION].find_one({"_id": event.event_id})
        if standing is None:  # it expired just now
            continue
        if standing["body_sha256"] == document["body_sha256"] or is_same(original(standing), body):
            return Receipt.KNOWN, standing
        reason = "another content came under this event id before, and is what counts"
        raise _RefusedError("event_conflict", reason, event.event_id)


def _document(
    document_id: str, body: bytes, facts: dict[str, Any], signed_at: datetime, received_at: datetime
) -> Document:
    data_key = new_data_key()
    return {
        "_id": document_id,
        **facts,
        "signed_at": signed_at,
        "received_at": received_at,
        "body_sha256": digest(body),
        "body_bytes": len(body),
        "body_encrypted": encrypt_bytes(data_key, body, _CONTEXT),
        "body_key": wrap(_ring(), data_key, document_id),
        "expire_at": definition_of(COLLECTION).retention.end(received_at),
        "written_at": datetime.now(UTC),
        "schema_version": 1,
    }


def _ring() -> KeyRing:
    return KeyRing.load_or_create(settings().key_ring_path)

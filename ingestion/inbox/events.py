"""What a webhook says, as far as it may stand in clear: pure functions from the bytes of a body to coarse facts.

An event's object is cut down to an allow-list of fields (``allowed_fields.yml``), each checked for its form:
identifiers, amounts, currency, states, moments and flags. Whatever else it holds (names, addresses, e-mail addresses,
descriptions, metadata) stays in the encrypted original.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from payments.systems.documents.definitions import CARD_LIKE
from payments.vault.cards import redact_record

Object = dict[str, str | int | bool]

_ALLOWED = yaml.safe_load(Path(__file__).with_name("allowed_fields.yml").read_text(encoding="utf-8"))
_KINDS: dict[str, str] = {name: kind for kind, names in _ALLOWED.items() for name in names}
_FORMS = {
    "ids": re.compile(r"[a-z]{1,16}(?:_[a-z]{1,10})?_[0-9A-Za-z]{1,80}"),
    # A word of the interface has few digits, unlike a number of a person.
    "words": re.compile(r"(?!(?:[^0-9]*[0-9]){5})[a-z](?:[a-z0-9_.]{0,62}[a-z0-9])?"),
    "currencies": re.compile(r"[a-z]{3}"),
}
# The validator of the collection takes no larger number; a moment lies before the year 10000.
_RANGES = {"amounts": (-999_999_999_999, 999_999_999_999), "moments": (0, 253_402_300_799)}
_EVENT_ID = re.compile(r"evt_[0-9A-Za-z]{1,80}")
_EVENT_TYPE = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")
_ACCOUNT = re.compile(r"acct_[0-9A-Za-z]{1,80}")
_VERSION = re.compile(r"[0-9a-z.-]{1,40}")
_CARD_LIKE = re.compile(CARD_LIKE)


class NoEventError(Exception):
    """A body that is no event; the message says why, without quoting it."""


@dataclass(frozen=True)
class Event:
    """The facts of an event that may stand in clear; ``account_id`` is None for an event of the platform itself."""

    event_id: str
    event_type: str
    api_version: str | None
    created_at: datetime
    account_id: str | None
    is_live: bool
    object_type: str
    object_id: str | None
    customer_id: str | None
    object: Object


def read_event(body: bytes) -> Event:
    """Return the facts of a body.

    Raises:
        NoEventError: it is no JSON, or lacks what makes an event.
    """
    document = _parse(body)
    event_id = _text(document, "id", _EVENT_ID)
    if event_id is None:
        raise NoEventError("it has no event id")
    event_type = _text(document, "type", _EVENT_TYPE)
    if event_type is None or len(event_type) > 100:
        raise NoEventError("it has no event type")
    created = document.get("created")
    if not isinstance(created, int) or not _is_of_kind("moments", created):
        raise NoEventError("it has no moment of creation")
    account_id = _text(document, "account", _ACCOUNT)
    if document.get("account") is not None and account_id is None:
        raise NoEventError("its account is no account id")
    data = document.get("data")
    found = data.get("object") if isinstance(data, dict) else None
    if not isinstance(found, dict) or (object_type := _text(found, "object", _FORMS["words"])) is None:
        raise NoEventError("it has no object")
    facts = coarse(found)
    object_id, customer = facts.get("id"), facts.get("id" if object_type == "customer" else "customer")
    return Event(
        event_id=event_id,
        event_type=event_type,
        api_version=_text(document, "api_version", _VERSION),
        created_at=datetime.fromtimestamp(created, UTC),
        account_id=account_id,
        is_live=document.get("livemode") is True,
        object_type=object_type,
        object_id=str(object_id) if object_id is not None else None,
        customer_id=str(customer) if customer is not None else None,
        object=facts,
    )


def coarse(found: Mapping[str, Any]) -> Object:
    """Return the fields of an object that are on the allow-list and have the form of their kind.

    An object that stands in place of its id (an expanded one) becomes its id.
    """
    facts: Object = {}
    for name, given in found.items():
        kind = _KINDS.get(name)
        value: Any = given.get("id") if kind == "ids" and isinstance(given, dict) else given
        if _is_of_kind(kind, value):
            facts[name] = value
    return facts


def is_same(first: bytes, second: bytes) -> bool:
    """Say whether two bodies are one event: a sender counts its open deliveries in each that it sends."""
    if first == second:
        return True
    try:
        one, other = _parse(first), _parse(second)
        one.pop("pending_webhooks", None)
        other.pop("pending_webhooks", None)
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    except (NoEventError, RecursionError):
        return False


def without_cards(body: bytes) -> bytes | None:
    """Return the body with card numbers masked, or None when it holds none."""
    text = body.decode(errors="replace")
    redacted = redact_record(text)
    return None if redacted == text else redacted.encode(errors="replace")


def digest(body: bytes) -> str:
    """Return the SHA-256 of a body, in hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def _parse(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise NoEventError("it is no JSON") from None
    if not isinstance(document, dict):
        raise NoEventError("it is no JSON object")
    return document


def _is_of_kind(kind: str | None, value: object) -> bool:
    if isinstance(value, bool):
        return kind == "flags"
    if isinstance(value, int) and kind in _RANGES:
        lowest, highest = _RANGES[kind]
        return lowest <= value <= highest
    if isinstance(value, str) and kind in _FORMS:
        return _FORMS[kind].fullmatch(value) is not None and not _CARD_LIKE.search(value)
    return False


def _text(document: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str | None:
    value = document.get(name)
    if isinstance(value, str) and pattern.fullmatch(value) and not _CARD_LIKE.search(value):
        return value
    return None

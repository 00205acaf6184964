"""The chain of audit events: each event of a merchant carries a hash over itself and the event before it.

Who changes, removes, inserts or reorders an event breaks the chain from there on, and `broken_links` says where.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

NO_PREVIOUS_HASH = "0" * 64
_FIELDS = (
    "_id",
    "merchant_id",
    "sequence",
    "actor_type",
    "actor_id",
    "action",
    "target_type",
    "target_id",
    "outcome",
    "occurred_at",
)


class BrokenLink(NamedTuple):
    """An event that does not follow from the one before it, by merchant and place in the chain."""

    merchant_id: str
    sequence: int
    reason: str


def link_hash(event: Mapping[str, Any], previous_hash: str) -> str:
    """Return the hash of an audit event: SHA-256, in hexadecimal, over its canonical JSON and the hash before it.

    Canonical JSON has sorted keys, no spaces and the fields from `_id` to `occurred_at`; the moment stands in ISO 8601,
    in UTC and milliseconds. What storage adds (`written_at`, `schema_version`) is left out.

    Args:
        event: an audit event; a moment without a timezone is UTC.
        previous_hash: the hash of the merchant's event before it, `NO_PREVIOUS_HASH` for the first.
    """
    fields = {name: event[name] for name in _FIELDS}
    moment: datetime = event["occurred_at"]
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    fields["occurred_at"] = aware.isoformat(timespec="milliseconds")
    canonical = json.dumps(
        {**fields, "previous_hash": previous_hash}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def broken_links(events: Iterable[Mapping[str, Any]]) -> list[BrokenLink]:
    """Return where the chains of these audit events are broken, by merchant and sequence; none when all are whole.

    Args:
        events: whole chains of any merchants, in any order. A chain that was cut off at its end looks whole.
    """
    chains: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        chains.setdefault(event["merchant_id"], []).append(event)
    broken = []
    for merchant_id, chain in sorted(chains.items()):
        previous_sequence, previous_hash = 0, NO_PREVIOUS_HASH
        for event in sorted(chain, key=lambda event: int(event["sequence"])):
            sequence = int(event["sequence"])
            if reason := _reason(event, sequence, previous_sequence, previous_hash):
                broken.append(BrokenLink(merchant_id, sequence, reason))
            previous_sequence, previous_hash = sequence, event["hash"]
    return broken


def _reason(event: Mapping[str, Any], sequence: int, previous_sequence: int, previous_hash: str) -> str | None:
    if sequence != previous_sequence + 1:
        return f"follows {previous_sequence}"
    if event["previous_hash"] != previous_hash:
        return "names another previous hash"
    if event["hash"] != link_hash(event, previous_hash):
        return "content and hash differ"
    return None

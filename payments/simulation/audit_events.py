"""Who looked at or changed what in the merchants' dashboard and the operators' console, chained by merchant."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from payments.simulation.arrays import Ints, pick, running_totals
from payments.simulation.business import Business
from payments.simulation.collection import Collection, Document, collection, milliseconds, written
from payments.simulation.columns import positions
from payments.simulation.ids import IdSpace
from payments.simulation.names import Names
from payments.simulation.plan import DAY, SECOND
from payments.simulation.streams import Streams
from payments.systems.documents.audit_chain import NO_PREVIOUS_HASH, link_hash

_SHARE = 0.025
_USERS, _OPERATORS, _SERVICES = 4, 5, 2
_ACTORS = (("merchant_user", "usr"), ("operator", "op"), ("service", "svc"))
# What is done to what: action, kind of target, and the id space of the target where it has one.
_DEEDS = (
    ("view", "charge", "ch"),
    ("create", "refund", "re"),
    ("view", "customer", "cus"),
    ("update", "customer", "cus"),
    ("export", "report", None),
    ("login", "dashboard", None),
    ("update", "webhook_endpoint", None),
    ("delete", "api_key", None),
)
_DEED_SHARES = np.array([0.40, 0.0, 0.26, 0.04, 0.06, 0.20, 0.03, 0.01])
_REFUND = 1
_NEEDS_PERMISSION = np.array([action in ("export", "update", "delete") for action, _, _ in _DEEDS])


@dataclass(frozen=True)
class _Actions:
    """One row an action, in order of time; `anchor` is the place of the charge or, for refunds, of the refund."""

    merchant: Ints
    sequence: Ints
    actor_type: Ints
    actor: Ints
    deed: Ints
    anchor: Ints
    is_denied: Ints
    occurred: Ints


class AuditEvents:
    """The audit events of a history."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._actions = _draw_actions(names.streams, names.business)
        seed = names.business.plan.seed
        self._ids = IdSpace(seed, "aud")
        self._actors = [IdSpace(seed, prefix) for _, prefix in _ACTORS]

    def collections(self) -> list[Collection]:
        """Return the audit events."""
        return [collection("audit_events", self._ids, len(self._actions.occurred), self._documents)]

    def _documents(self, rows: slice, _: Sequence[str]) -> list[Document | None]:
        always = written()
        return [{**event, **always} for event in self._chained[rows]]

    @cached_property
    def _chained(self) -> list[Document]:
        """All events: a link needs the one before it, so the whole chains are made at once."""
        actions, names = self._actions, self._names
        merchant_ids: list[Any] = names.merchant_ids.to_pylist()
        # A merchant's users are counted from those of the merchants before it.
        counts = (len(merchant_ids) * _USERS, _OPERATORS, _SERVICES)
        actors = [space.strings(np.arange(count)) for space, count in zip(self._actors, counts, strict=True)]
        last: dict[str, str] = {}
        events = []
        for event_id, merchant, sequence, actor_type, actor, deed, target_id, is_denied, moment in zip(
            self._ids.strings(np.arange(len(actions.occurred))),
            actions.merchant.tolist(),
            actions.sequence.tolist(),
            actions.actor_type.tolist(),
            actions.actor.tolist(),
            actions.deed.tolist(),
            self._targets(),
            actions.is_denied.tolist(),
            milliseconds(actions.occurred),
            strict=True,
        ):
            merchant_id = merchant_ids[merchant]
            previous = last.get(merchant_id, NO_PREVIOUS_HASH)
            event = {
                "_id": event_id,
                "merchant_id": merchant_id,
                "sequence": sequence,
                "actor_type": _ACTORS[actor_type][0],
                "actor_id": actors[actor_type][actor],
                "action": _DEEDS[deed][0],
                "target_type": _DEEDS[deed][1],
                "target_id": target_id,
                "outcome": "denied" if is_denied else "allowed",
                "occurred_at": moment,
                "previous_hash": previous,
            }
            last[merchant_id] = event["hash"] = link_hash(event, previous)
            events.append(event)
        return events

    def _targets(self) -> list[str | None]:
        business = self._names.business
        targets: list[str | None] = [None] * len(self._actions.deed)
        for deed, (_, _, prefix) in enumerate(_DEEDS):
            rows = np.flatnonzero(self._actions.deed == deed)
            anchors = self._actions.anchor[rows]
            if prefix == "cus":
                ids: Sequence[Any] = self._names.customer_ids.take(
                    positions(business.charge_customer[anchors])
                ).to_pylist()
            elif prefix is not None:
                ids = self._names.spaces[prefix].strings(anchors)
            else:
                continue
            for row, target_id in zip(rows.tolist(), ids, strict=True):
                targets[row] = target_id
        return targets


def _draw_actions(streams: Streams, business: Business) -> _Actions:
    """Draw what people look at in the days after a charge, and who made a part of the refunds."""
    generator = streams.stream("audit events")
    plan, sales, refunds = business.plan, business.sales, business.refunds
    charge = generator.integers(0, len(sales.amount), round(plan.transactions * _SHARE))
    refund = np.flatnonzero(generator.random(len(refunds.charge)) < 0.15)
    merchant = np.concatenate([sales.merchant[charge], sales.merchant[refunds.charge[refund]]])
    later = sales.created[charge] + (generator.exponential(2, len(charge)) * DAY).astype(np.int64)
    occurred = np.concatenate([later, refunds.created[refund] - SECOND])
    deed = np.concatenate([pick(generator, _DEED_SHARES, len(charge)), np.full(len(refund), _REFUND)])
    anchor = np.concatenate([charge, refund])
    known = np.flatnonzero(occurred < plan.end_moment)
    order = known[np.argsort(occurred[known], kind="stable")]
    merchant, deed, count = merchant[order], deed[order], len(order)
    actor_type = pick(generator, np.array([0.85, 0.12, 0.03]), count)
    number = generator.integers(0, np.array([_USERS, _OPERATORS, _SERVICES])[actor_type])
    sequence, _ = running_totals(merchant, np.ones(count, np.int64))
    return _Actions(
        merchant=merchant,
        sequence=sequence,
        actor_type=actor_type,
        actor=np.where(actor_type == 0, merchant * _USERS + number, number),
        deed=deed,
        anchor=anchor[order],
        is_denied=(_NEEDS_PERMISSION[deed] & (generator.random(count) < 0.15)).astype(np.int64),
        occurred=occurred[order],
    )

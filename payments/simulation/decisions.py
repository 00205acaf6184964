"""What was decided on card payments when they were made, and how they turned out as far as the history knows.

A payment turns out as fraud by the first dispute or warning of the issuer, and as genuine when none came in time.
A decision never contradicts the operational store: what waits for review has a review there, what was blocked failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from payments.simulation.aftermath import FRAUDULENT
from payments.simulation.arrays import Flags, Ints
from payments.simulation.business import Business
from payments.simulation.collection import Collection, Document, collection, milliseconds, named, written
from payments.simulation.columns import CURRENCIES
from payments.simulation.ids import IdSpace
from payments.simulation.names import Names
from payments.simulation.plan import DAY, HOUR, SECOND
from payments.simulation.population import BANK_DEBIT, CITY_COUNTRY
from payments.simulation.purchases import FAILED
from payments.simulation.streams import Streams
from payments.simulation.world import LOST_CARD, STOLEN_CARD, VELOCITY

_DECISIONS = ("allow", "review", "block")
_REVIEW, _BLOCK = _DECISIONS.index("review"), _DECISIONS.index("block")
_OUTCOMES = ("genuine", "fraud")
_GENUINE, _IS_FRAUD = range(len(_OUTCOMES))
_SHARE = 0.08
_GENUINE_AFTER = 45 * DAY
# Rules alone decided in the first half of the history.
_MODEL_VERSION = "baseline-1"
_CHARGE_VERSION = 1
_HIGH_SCORE = 4_000
_LARGE_PART = 20  # one payment of so many is large for its merchant and currency


@dataclass(frozen=True)
class _Decided:
    """One row a decision, in order of time; `charge` is a place, scores are ten-thousandths, -1 is an open outcome."""

    charge: Ints
    decision: Ints
    outcome: Ints
    outcome_at: Ints
    decided: Ints
    latency: Ints
    is_abroad: Flags
    is_new_device: Flags
    is_large: Flags
    attempts: Ints


class Decisions:
    """The fraud decisions of a history."""

    def __init__(self, names: Names) -> None:
        self._business = names.business
        self._decided = _draw_decisions(names.streams, names.business)
        self._charge_ids: IdSpace = names.spaces["ch"]
        self._merchant_ids: list[Any] = names.merchant_ids.to_pylist()

    def collections(self) -> list[Collection]:
        """Return the decisions; each has the id of its charge."""
        count = len(self._decided.charge)
        decisions = collection("fraud_decisions", self._charge_ids, count, self._documents)
        return [Collection(decisions.name, count, self._ids, decisions.make)]

    def _ids(self, start: int, stop: int) -> Sequence[str]:
        return self._charge_ids.strings(self._decided.charge[start:stop])

    def _documents(self, rows: slice, ids: Sequence[str]) -> list[Document | None]:
        always = written()
        decided, business = self._decided, self._business
        charge = decided.charge[rows]
        by_model = (decided.decided[rows] >= business.plan.middle_moment).tolist()
        documents: list[Document | None] = []
        for row, (
            charge_id,
            merchant,
            amount,
            money,
            score,
            decision,
            moment,
            outcome,
            outcome_at,
            failure,
        ) in enumerate(
            zip(
                ids,
                business.sales.merchant[charge].tolist(),
                business.sales.amount[charge].tolist(),
                business.sales.money[charge].tolist(),
                business.charge_score[charge].tolist(),
                decided.decision[rows].tolist(),
                milliseconds(decided.decided[rows]),
                named(_OUTCOMES, decided.outcome[rows]),
                milliseconds(decided.outcome_at[rows]),
                business.charges.failure[charge].tolist(),
                strict=True,
            )
        ):
            features = {
                "is_abroad": bool(decided.is_abroad[rows.start + row]),
                "is_new_device": bool(decided.is_new_device[rows.start + row]),
                "is_large_amount": bool(decided.is_large[rows.start + row]),
                "attempts_last_hour": int(decided.attempts[rows.start + row]),
            }
            documents.append(
                {
                    "_id": charge_id,
                    "merchant_id": self._merchant_ids[merchant],
                    "version": 1 if outcome is None else 2,
                    "charge_version": _CHARGE_VERSION,
                    "amount_minor": amount,
                    "currency": CURRENCIES[money],
                    "model_version": _MODEL_VERSION if by_model[row] else None,
                    "score": score / 10_000,
                    "decision": _DECISIONS[decision],
                    "reasons": _reasons(features, score, failure),
                    "features": features,
                    "latency_ms": int(decided.latency[rows.start + row]),
                    "decided_at": moment,
                    "outcome": outcome,
                    "outcome_at": None if outcome is None else outcome_at,
                    **always,
                }
            )
        return documents


def _reasons(features: Document, score: int, failure: int) -> list[str]:
    """Return why a payment looked as it did, in order of weight."""
    reasons = {
        "card_reported_stolen": failure in (STOLEN_CARD, LOST_CARD),
        "card_velocity": failure == VELOCITY or features["attempts_last_hour"] >= 3,
        "high_score": score >= _HIGH_SCORE,
        "new_device": features["is_new_device"],
        "abroad": features["is_abroad"],
        "large_amount": features["is_large_amount"],
    }
    return [reason for reason, applies in reasons.items() if applies]


def _draw_decisions(streams: Streams, business: Business) -> _Decided:
    """Draw a sample of the card payments, with all that had an odd end, and what the decision service saw of them."""
    generator = streams.stream("fraud decisions")
    charges, end = business.charges, business.plan.end_moment
    total = len(charges.created)
    instruments = business.population.instruments.kind[business.population.methods.instrument[charges.method]]
    has_review = np.zeros(total, np.bool_)
    has_review[business.reviews.charge] = True
    is_blocked = (charges.status == FAILED) & np.isin(charges.failure, [STOLEN_CARD, LOST_CARD, VELOCITY])
    known_as_fraud = _fraud_known(business)
    is_odd = has_review | is_blocked | (known_as_fraud < end)
    charge = np.flatnonzero((instruments != BANK_DEBIT) & (is_odd | (generator.random(total) < _SHARE)))

    created, count = charges.created[charge], len(charge)
    is_fraud = known_as_fraud[charge] < end
    # Time proves nothing of a payment that failed.
    has_aged = (charges.status[charge] != FAILED) & (created + _GENUINE_AFTER < end)
    outcome = np.where(is_fraud, _IS_FRAUD, np.where(has_aged, _GENUINE, -1))
    latency = np.clip(np.exp(generator.normal(np.log(35), 0.5, count)), 4, 900).astype(np.int64)
    return _Decided(
        charge=charge,
        decision=np.where(is_blocked[charge], _BLOCK, np.where(has_review[charge], _REVIEW, 0)),
        outcome=outcome,
        outcome_at=np.where(is_fraud, known_as_fraud[charge], created + _GENUINE_AFTER),
        decided=np.minimum(created + latency * (SECOND // 1000), end - 1),
        latency=latency,
        is_abroad=_is_abroad(business)[charge],
        is_new_device=_is_first(business.charge_customer, charges.device)[charge],
        is_large=_is_large(business)[charge],
        attempts=_recent_attempts(business)[charge],
    )


def _fraud_known(business: Business) -> Ints:
    """Return when each charge became known as fraud, by its first dispute or warning; the end of time if never."""
    known = np.full(len(business.charges.created), np.iinfo(np.int64).max)
    fraudulent = business.disputes.reason == FRAUDULENT
    np.minimum.at(known, business.disputes.charge[fraudulent], business.disputes.created[fraudulent])
    np.minimum.at(known, business.warnings.charge, business.warnings.created)
    return known


def _is_abroad(business: Business) -> Flags:
    home = business.population.subjects.country[business.population.customers.subject[business.charge_customer]]
    flags: Flags = CITY_COUNTRY[business.charges.city] != home
    return flags


def _is_first(customer: Ints, device: Ints) -> Flags:
    """Return whether each row is the first of its customer on its device."""
    _, first = np.unique(np.stack([customer, device]), axis=1, return_index=True)
    flags = np.zeros(len(customer), np.bool_)
    flags[first] = True
    return flags


def _is_large(business: Business) -> Flags:
    """Return whether each amount is among the largest of its merchant and currency, of which there must be enough."""
    sales = business.sales
    group = sales.merchant * len(CURRENCIES) + sales.money
    order = np.lexsort((sales.amount, group))
    sizes = np.bincount(group)
    ends = np.cumsum(sizes)
    from_the_top = ends[group[order]] - np.arange(len(order))
    flags = np.zeros(len(order), np.bool_)
    flags[order] = from_the_top <= sizes[group[order]] // _LARGE_PART
    return flags


def _recent_attempts(business: Business) -> Ints:
    """Return how many charges each customer made within the hour up to each charge, this one included."""
    created, customer = business.charges.created, business.charge_customer
    order = np.lexsort((created, customer))
    span = int(created.max() - created.min()) + 2 * HOUR
    # One axis for all customers: far enough from each other that an hour never reaches the one before.
    place = customer[order] * span + (created[order] - created.min() + HOUR)
    attempts = np.empty_like(order)
    attempts[order] = np.arange(len(order)) + 1 - np.searchsorted(place, place - HOUR)
    return attempts

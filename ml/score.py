"""Score payments with the champion and write the decisions into the document store."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pymongo.collection import Collection

from ml.dataset import moment, open_feature_store
from ml.registry import champion
from payments.systems.documents.client import database

SCHEMA_VERSION = 1
BATCH = 5_000


@dataclass(frozen=True)
class ScoringReport:
    """One scoring: how many payments, how many scores were new, what was decided."""

    model_version: str
    payments: int
    written: int
    already_there: int
    decisions: dict[str, int]

    def metadata(self) -> dict[str, str | int]:
        """Return the figures flat, for the asset graph."""
        decided = {f"decision {name}": count for name, count in self.decisions.items()}
        return {
            "model_version": self.model_version,
            "payments": self.payments,
            "written": self.written,
            "already_there": self.already_there,
            **decided,
        }


def score() -> ScoringReport:
    """Score every payment since the champion was trained and write what the document store does not hold yet.

    A score is written once for a model version and a payment: scoring again, also after having been stopped half-way,
    adds only what is missing. ``scored_at`` is the as-of moment, the latest payment of the warehouse. Raises
    ``UsageError`` when no model is published, the warehouse is not built, or its features are not the model's.
    """
    model, since = champion()
    with open_feature_store() as store:
        scored_at = moment(store.span().last_paid_at)
        payments = store.load(start=since)
    scores = model.scores(payments)
    decisions = [model.thresholds.decision(value) for value in scores]

    collection = database()["fraud_scores"]
    present = _scored_by(collection, model.version)
    missing = (
        {
            "_id": score_id,
            "payment_key": payment_key,
            "payment_id": payment_id,
            "merchant_id": merchant_id,
            "model_version": model.version,
            "score": float(value),
            "decision": decision,
            "scored_at": scored_at,
            "written_at": datetime.now(UTC),
            "schema_version": SCHEMA_VERSION,
        }
        for payment_key, payment_id, merchant_id, value, decision in zip(
            payments.payment_keys, payments.payment_ids, payments.merchant_ids, scores, decisions, strict=True
        )
        if (score_id := f"{model.version}:{payment_key}") not in present
    )
    written = _insert(collection, missing)
    return ScoringReport(
        model_version=model.version,
        payments=len(payments),
        written=written,
        already_there=len(payments) - written,
        decisions=dict(sorted(Counter(decisions).items())),
    )


def _scored_by(collection: Collection[dict[str, Any]], model_version: str) -> set[str]:
    """Return the ids of the scores that this version has given, by one range of ids (``;`` follows ``:``)."""
    of_version = {"_id": {"$gte": f"{model_version}:", "$lt": f"{model_version};"}}
    return {document["_id"] for document in collection.find(of_version, {"_id": 1})}


def _insert(collection: Collection[dict[str, Any]], documents: Iterator[dict[str, Any]]) -> int:
    written = 0
    while batch := list(islice(documents, BATCH)):
        written += len(collection.insert_many(batch, ordered=False).inserted_ids)
    return written

"""Models in the document store: one document a version, and the champion that scorers use.

The champion is a document of its own (``_id`` ``champion``) that holds the whole model, replaced in one write: a scorer
reads one document and never a half-made switch, and going back to an older version is the same write again.
"""

from typing import Any

from ml.dataset import TimeSplit, moment
from ml.model import FraudModel, Thresholds
from payments.errors import UsageError
from payments.systems.documents.client import database

CHAMPION = "champion"
SCHEMA_VERSION = 1


def publish(model: FraudModel, split: TimeSplit, metrics: dict[str, float]) -> None:
    """Store the model under its version and make it the champion; the same model again changes nothing."""
    document: dict[str, Any] = {
        "model_version": model.version,
        # The moment the model stands for, not the wall clock: training again gives the same document.
        "created_at": moment(split.test_start),
        "features": list(model.features),
        "schema_digest": model.schema_digest,
        "review_threshold": model.thresholds.review,
        "block_threshold": model.thresholds.block,
        "label_delay_days": split.delay_days,
        "metrics": metrics,
        "model": model.text,
        "schema_version": SCHEMA_VERSION,
    }
    models = database()["models"]
    models.replace_one({"_id": model.version}, {"_id": model.version, **document, "status": "trained"}, upsert=True)
    models.replace_one({"_id": CHAMPION}, {"_id": CHAMPION, **document, "status": "champion"}, upsert=True)


def champion() -> tuple[FraudModel, int]:
    """Return the champion and the moment from which it scores, in microseconds since 1970.

    Raises ``UsageError`` when no model was published.
    """
    document = database()["models"].find_one({"_id": CHAMPION})
    if document is None:
        raise UsageError("no model is published: train one first (Dagster job fraud, or make demo)")
    model = FraudModel(
        version=document["model_version"],
        features=tuple(document["features"]),
        schema_digest=document["schema_digest"],
        thresholds=Thresholds(document["review_threshold"], document["block_threshold"]),
        text=document["model"],
    )
    return model, int(document["created_at"].timestamp()) * 1_000_000

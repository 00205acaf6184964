"""Train the fraud model on the warehouse's features, measure it on later days, publish it to the document store."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from ml.baseline import fit_rules
from ml.dataset import NEVER, FeatureStore, Payments, TimeSplit, judged_rows, open_feature_store, split_by_time
from ml.metrics import RankingMetrics, ranking_metrics
from ml.model import FraudModel, Thresholds, train_model
from ml.registry import publish
from payments.errors import UsageError
from payments.settings import settings

METRIC_NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "card_precision": "card precision at 100",
}


@dataclass(frozen=True)
class Decisions:
    """What the thresholds did on the test rows: shares of legitimate payments touched and of frauds caught."""

    blocked_legitimate: float
    blocked_frauds: float
    touched_legitimate: float
    touched_frauds: float


@dataclass(frozen=True)
class Evaluation:
    """Model and rules baseline on the same rows."""

    model: RankingMetrics
    baseline: RankingMetrics
    decisions: Decisions


@dataclass(frozen=True)
class TrainingReport:
    """One training: which model, on what, how good."""

    model_version: str
    features: int
    train_rows: int
    train_frauds: int
    split: dict[str, str | int]
    thresholds: Thresholds
    evaluation: Evaluation

    def comparison(self) -> Iterator[tuple[str, float, float]]:
        """Yield (metric, model, rules baseline), the last one with the card precision of a perfect ranking."""
        model, baseline = self.evaluation.model, self.evaluation.baseline
        for name, title in METRIC_NAMES.items():
            yield title, getattr(model, name), getattr(baseline, name)
        yield "its ceiling (a perfect ranking)", model.card_precision_ceiling, baseline.card_precision_ceiling

    def metadata(self) -> dict[str, str | int | float]:
        """Return the figures flat, for the asset graph."""
        return {
            "model_version": self.model_version,
            "features": self.features,
            "train_rows": self.train_rows,
            "train_frauds": self.train_frauds,
            **self.split,
            **{f"model {name}": value for name, value in self.evaluation.model.as_dict().items()},
            **{f"baseline {name}": value for name, value in self.evaluation.baseline.as_dict().items()},
        }


def train() -> TrainingReport:
    """Train on the DuckDB warehouse, save the model, make it the champion of the document store, and report.

    The same data gives the same version and the same bytes. Raises ``UsageError`` when the warehouse is not built,
    the history is too short, or too few frauds are known.
    """
    with open_feature_store() as store:
        split = split_by_time(store.span())
        model, report = train_and_evaluate(store, split)
    _save(model, report)
    publish(model, split, report.evaluation.model.as_dict())
    return report


def train_and_evaluate(store: FeatureStore, split: TimeSplit) -> tuple[FraudModel, TrainingReport]:
    """Train on the split's training period and judge model and rules on its test period."""
    past = store.load(split.train_start, split.train_end)
    past = past.where(~past.is_declined)
    model = train_model(past, split)
    rules = fit_rules(past)

    recent = store.load(split.known_since, split.test_end)
    judged = recent.where(judged_rows(recent, split))
    is_fraud = judged.known_at != NEVER
    scores = model.scores(judged)
    report = TrainingReport(
        model_version=model.version,
        features=len(model.features),
        train_rows=len(past),
        train_frauds=int(past.fraud_known_by(split.test_start).sum()),
        split=split.as_dict(),
        thresholds=model.thresholds,
        evaluation=Evaluation(
            model=_judge(judged, is_fraud, scores),
            baseline=_judge(judged, is_fraud, rules.scores(judged)),
            decisions=_decisions(is_fraud, scores, model.thresholds),
        ),
    )
    return model, report


def _judge(judged: Payments, is_fraud: NDArray[np.bool_], scores: NDArray[np.float64]) -> RankingMetrics:
    try:
        return ranking_metrics(is_fraud, scores, judged.card_keys, judged.days)
    except ValueError as error:
        raise UsageError(f"the test period cannot judge a model ({error}): simulate or land more payments") from error


def _decisions(is_fraud: NDArray[np.bool_], scores: NDArray[np.float64], thresholds: Thresholds) -> Decisions:
    blocked, touched = scores >= thresholds.block, scores >= thresholds.review
    return Decisions(
        blocked_legitimate=float(blocked[~is_fraud].mean()),
        blocked_frauds=float(blocked[is_fraud].mean()),
        touched_legitimate=float(touched[~is_fraud].mean()),
        touched_frauds=float(touched[is_fraud].mean()),
    )


def _models_folder() -> Path:
    return settings().home / "models"


def _save(model: FraudModel, report: TrainingReport) -> None:
    """Write the model's text and the report beside it, and remember the report as the last one."""
    folder = _models_folder() / model.version
    folder.mkdir(parents=True, exist_ok=True)
    record = json.dumps(asdict(report), indent=2, sort_keys=True) + "\n"
    _write(folder / "model.txt", model.text)
    _write(folder / "report.json", record)
    _write(_models_folder() / "last_report.json", record)


def _write(path: Path, text: str) -> None:
    aside = path.with_suffix(path.suffix + ".new")
    aside.write_text(text)
    aside.replace(path)


def last_report() -> TrainingReport:
    """Return the report of the last training here; raises ``UsageError`` when there was none."""
    path = _models_folder() / "last_report.json"
    if not path.exists():
        raise UsageError("no model was trained here yet: run the Dagster job fraud, or make demo")
    return TypeAdapter(TrainingReport).validate_json(path.read_text())

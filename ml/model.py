"""The fraud model: a small LightGBM of which the same data always makes the same bytes."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from ml.dataset import Payments, TimeSplit
from payments.errors import UsageError

# Small trees and no class weights: on rare labels they rank as well as large ones and stay calibrated, so that a score
# can be read as a probability. One thread: the order of a sum is part of its last bit, and on a busy machine several
# threads wait for each other longer than they work.
PARAMETERS: dict[str, str | int | float | bool] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 8,
    "min_data_in_leaf": 20,
    "seed": 7,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
ROUNDS = 150
LEAST_ROWS = 1_000
LEAST_FRAUDS = 5
# How many legitimate payments an action may touch: one in a thousand blocked, one in a hundred looked at.
BLOCK_FALSE_POSITIVE_RATE = 0.001
REVIEW_FALSE_POSITIVE_RATE = 0.01


@dataclass(frozen=True)
class Thresholds:
    """From which score on a payment is reviewed, and from which it is blocked."""

    review: float
    block: float

    def decision(self, score: float) -> str:
        """Return allow, review or block."""
        if score >= self.block:
            return "block"
        return "review" if score >= self.review else "allow"


@dataclass(frozen=True)
class FraudModel:
    """A trained model: its text, the features it reads in their order, and the thresholds of its decisions."""

    version: str
    features: tuple[str, ...]
    schema_digest: str
    thresholds: Thresholds
    text: str

    @cached_property
    def booster(self) -> lgb.Booster:
        """The loaded trees; one booster serves one thread."""
        return lgb.Booster(model_str=self.text)

    def scores(self, payments: Payments) -> NDArray[np.float64]:
        """Return the probability of fraud of each payment; raises ``UsageError`` when the features are others."""
        if payments.schema.digest != self.schema_digest:
            raise UsageError(f"model {self.version} was trained on other features than the warehouse has: train again")
        return np.asarray(self.booster.predict(payments.matrix, num_threads=1), dtype=np.float64)

    def score(self, features: NDArray[np.float64]) -> float:
        """Return the probability of fraud of one payment, given its features in order.

        One thread: waking others costs far more than a few hundred comparisons.
        """
        return float(self.booster.predict(features.reshape(1, -1), num_threads=1)[0])


def fit(payments: Payments, is_fraud: NDArray[np.bool_]) -> lgb.Booster:
    """Train on the payments with these labels."""
    data = lgb.Dataset(payments.matrix, label=is_fraud.astype(np.float64), feature_name=list(payments.schema.features))
    return lgb.train(dict(PARAMETERS), data, num_boost_round=ROUNDS)


def train_model(payments: Payments, split: TimeSplit) -> FraudModel:
    """Train the model that would have been trained at ``split.test_start``, with the labels known then.

    ``payments`` are the paid ones of the training period. The last fifth of its days chooses the thresholds: a model of
    the days before scores them. The model itself then learns from all of them. Raises ``UsageError`` when there are too
    few rows or frauds.
    """
    is_fraud = payments.fraud_known_by(split.test_start)
    frauds = int(is_fraud.sum())
    if len(payments) < LEAST_ROWS or frauds < LEAST_FRAUDS:
        raise UsageError(
            f"too little to learn from: {len(payments)} payments with {frauds} known frauds, at least {LEAST_ROWS} "
            f"with {LEAST_FRAUDS} are needed; simulate or land a longer history"
        )
    cut = split.train_end - (split.train_end - split.train_start) // 5
    earlier = payments.paid_at < cut
    trial = fit(payments.where(earlier), is_fraud[earlier])
    trial_scores = np.asarray(trial.predict(payments.matrix[~earlier], num_threads=1), dtype=np.float64)
    thresholds = choose_thresholds(trial_scores, is_fraud[~earlier])
    return FraudModel(
        version=content_version(payments, is_fraud, split),
        features=payments.schema.features,
        schema_digest=payments.schema.digest,
        thresholds=thresholds,
        text=fit(payments, is_fraud).model_to_string(),
    )


def choose_thresholds(scores: NDArray[np.float64], is_fraud: NDArray[np.bool_]) -> Thresholds:
    """Return the lowest thresholds whose false positive rates on these payments stay within the two limits."""
    legitimate = np.sort(scores[~is_fraud])[::-1]
    return Thresholds(
        review=_lowest_threshold(legitimate, REVIEW_FALSE_POSITIVE_RATE),
        block=_lowest_threshold(legitimate, BLOCK_FALSE_POSITIVE_RATE),
    )


def _lowest_threshold(legitimate: NDArray[np.float64], false_positive_rate: float) -> float:
    """Return the lowest score that at most this share of ``legitimate`` (descending) reaches."""
    if not len(legitimate):
        return 1.0
    allowed = int(false_positive_rate * len(legitimate))
    return float(np.nextafter(legitimate[allowed], np.inf))


def content_version(payments: Payments, is_fraud: NDArray[np.bool_], split: TimeSplit) -> str:
    """Return the version: a digest of everything that decides the bytes of the model and how it is judged."""
    recipe = {
        "parameters": PARAMETERS,
        "rounds": ROUNDS,
        "false_positive_rates": [BLOCK_FALSE_POSITIVE_RATE, REVIEW_FALSE_POSITIVE_RATE],
        "features": payments.schema.digest,
        "split": split.as_dict(),
        "lightgbm": lgb.__version__,
    }
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for array in (payments.paid_at, is_fraud, payments.matrix):
        digest.update(np.ascontiguousarray(array).data)
    return f"fraud_{digest.hexdigest()[:16]}"

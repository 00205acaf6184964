"""What a ranking of payments by fraud score is worth: area under the curve, average precision, card precision.

Pure functions over parallel arrays: one element a payment, ``is_fraud`` boolean, ``scores`` double (higher is more
suspicious), ``card_keys`` the card (or customer) that paid, ``days`` the UTC day as a number.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

DAILY_ALERTS = 100


@dataclass(frozen=True)
class RankingMetrics:
    """The figures of one ranking, each from 0 to 1.

    ``card_precision`` is the mean over days of the share of true positives among the cards that investigators can
    look at in a day; ``card_precision_ceiling`` is what a perfect ranking reaches on the same rows (there may be
    fewer compromised cards a day than alerts), so that the figure can be read.
    """

    rows: int
    frauds: int
    auc: float
    average_precision: float
    card_precision: float
    card_precision_ceiling: float

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name, ratios rounded to six decimals."""
        return {
            "rows": self.rows,
            "frauds": self.frauds,
            "auc": round(self.auc, 6),
            "average_precision": round(self.average_precision, 6),
            "card_precision_at_100": round(self.card_precision, 6),
            "card_precision_ceiling": round(self.card_precision_ceiling, 6),
        }


def card_precision(
    is_fraud: NDArray[np.bool_],
    scores: NDArray[np.float64],
    card_keys: NDArray[np.str_],
    days: NDArray[np.int64],
    daily_alerts: int = DAILY_ALERTS,
) -> float:
    """Return the mean daily precision of the ``daily_alerts`` most suspicious cards, from 0 to 1.

    The protocol is the Fraud Detection Handbook's (Le Borgne et al., chapter 4, card precision top-k): for each day
    the score of a card is the highest of its payments and its label is fraud when any of them is; the cards with the
    highest scores are looked at; hits are divided by the number of alerts; a card that was a hit is known from then
    on and leaves all later days. Equal scores are ordered by card key, so that the figure is deterministic.
    """
    detected: set[str] = set()
    daily: list[float] = []
    for day in np.unique(days):
        of_day = days == day
        cards, position = np.unique(card_keys[of_day], return_inverse=True)
        highest = np.full(len(cards), -np.inf)
        np.maximum.at(highest, position, scores[of_day])
        compromised = np.zeros(len(cards), dtype=bool)
        np.logical_or.at(compromised, position, is_fraud[of_day])
        hits = 0
        alerts = 0
        for index in np.argsort(-highest, kind="stable"):
            if alerts == daily_alerts:
                break
            card = str(cards[index])
            if card in detected:
                continue
            alerts += 1
            if compromised[index]:
                hits += 1
                detected.add(card)
        daily.append(hits / daily_alerts)
    return float(np.mean(daily)) if daily else float("nan")


def ranking_metrics(
    is_fraud: NDArray[np.bool_],
    scores: NDArray[np.float64],
    card_keys: NDArray[np.str_],
    days: NDArray[np.int64],
) -> RankingMetrics:
    """Return all figures of a ranking.

    Raises ``ValueError`` when the rows hold no fraud or nothing but fraud: no ranking can be judged on them.
    """
    frauds = int(is_fraud.sum())
    if frauds in {0, len(is_fraud)}:
        raise ValueError(f"a ranking needs both classes: {frauds} frauds among {len(is_fraud)} payments")
    return RankingMetrics(
        rows=len(is_fraud),
        frauds=frauds,
        auc=float(roc_auc_score(is_fraud, scores)),
        average_precision=float(average_precision_score(is_fraud, scores)),
        card_precision=card_precision(is_fraud, scores, card_keys, days),
        card_precision_ceiling=card_precision(is_fraud, is_fraud.astype(np.float64), card_keys, days),
    )

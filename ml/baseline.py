"""A rules baseline: what an analyst would write by hand, so that the model has something to beat on the same rows.

Each rule gives a point when a feature is high: above a limit set by hand, or above the 99th percentile of the training
period, learned without looking at labels. The score of a payment is its points; equal points are ordered by amount.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.dataset import Payments

PERCENTILE = 99.0


@dataclass(frozen=True)
class Rule:
    """A feature that is suspicious when high, why, and the limit; none means the 99th percentile."""

    feature: str
    reason: str
    limit: float | None = None


RULES = (
    Rule("reporting_value_minor", "a large amount"),
    Rule("value_to_customer_mean_30d", "far above what the customer pays"),
    Rule("card_payments_1h", "a card used in quick succession"),
    Rule("device_new_cards_1d", "many new cards on one device"),
    Rule("network_new_cards_1h", "many new cards from one network"),
    Rule("merchant_failed_1h", "declines pile up at the merchant"),
    Rule("merchant_fraud_risk_7d", "frauds became known at the merchant lately"),
    Rule("is_new_device", "a device the customer never used", limit=0.5),
    Rule("is_new_country", "a country the customer never paid from", limit=0.5),
)


@dataclass(frozen=True)
class RulesBaseline:
    """The rules with the limits that the training period gave them."""

    rules: tuple[Rule, ...]
    limits: tuple[float, ...]

    def scores(self, payments: Payments) -> NDArray[np.float64]:
        """Return the points of each payment: a point a rule, and less than one for the amount."""
        points = np.zeros(len(payments), dtype=np.float64)
        for rule, limit in zip(self.rules, self.limits, strict=True):
            # A missing feature compares as false: no history is no evidence.
            points += payments.column(rule.feature) > limit
        value = payments.column("reporting_value_minor")
        scores: NDArray[np.float64] = points + value / (value.max(initial=1.0) + 1.0)
        return scores


def fit_rules(payments: Payments, rules: tuple[Rule, ...] = RULES) -> RulesBaseline:
    """Set the limits that are not set by hand to the 99th percentile of the feature over the training payments."""
    return RulesBaseline(rules, tuple(_limit(payments.column(rule.feature), rule) for rule in rules))


def _limit(values: NDArray[np.float64], rule: Rule) -> float:
    if rule.limit is not None:
        return rule.limit
    present = values[~np.isnan(values)]
    return float(np.percentile(present, PERCENTILE)) if len(present) else float("inf")

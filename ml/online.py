"""Features of the payment that comes next, from what the document store keeps ready (collection ``online_features``).

The documents hold the windows as the next payment finds them, without it; here it is added. The names are those of the
feature model, ``feat_payments``, and so are the values, at the moment of the documents and to the second. What needs to
know every device, network, country or merchant that a customer ever used is not kept ready: the features of device,
network and place, and whether a merchant is new, come from the caller or stay unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Values = Mapping[str, Any]
Features = dict[str, int | float | None]


@dataclass(frozen=True)
class NextPayment:
    """A payment that is about to be made; ``value_minor`` is its amount in the reporting currency."""

    value_minor: int
    paid_at: datetime
    is_new_merchant: bool = False


def features_of(
    payment: NextPayment, customer: Values | None, card: Values | None, merchant: Values | None
) -> Features:
    """Return the features of a payment from the documents of its three entities; None is one that has no past."""
    paid_at, value = payment.paid_at.astimezone(UTC), payment.value_minor
    return {
        "reporting_value_minor": value,
        "hour_of_day": paid_at.hour,
        "day_of_week": paid_at.isoweekday(),
        "is_weekend": int(paid_at.isoweekday() >= 6),
        "is_night": int(paid_at.hour <= 6),
        **_of_customer(payment, customer or {}),
        **_of_card(payment, card or {}),
        **_of_merchant(value, merchant or {}),
    }


def _of_customer(payment: NextPayment, document: Values) -> Features:
    value, past = payment.value_minor, document.get("feature_values", {})
    counts = {f"customer_payments_{window}": past.get(f"payments_{window}", 0) + 1 for window in ("1h", *_SUMMED)}
    means = {
        f"customer_mean_value_{window}": _ratio(
            past.get(f"value_{window}", 0) + value, past.get(f"payments_{window}", 0) + 1
        )
        for window in _SUMMED
    }
    return {
        **counts,
        **means,
        "customer_failed_1d": past.get("failed_1d", 0),
        "customer_new_merchants_1d": past.get("new_merchants_1d", 0) + payment.is_new_merchant,
        "customer_past_payments": past.get("past_payments", 0),
        "value_to_customer_mean": _ratio(value * past.get("past_payments", 0), past.get("past_value", 0)),
        "value_to_customer_mean_30d": _ratio(value * past.get("payments_30d", 0), past.get("value_30d", 0)),
        "value_to_customer_max": _ratio(value, past.get("past_largest_value") or 0),
        "customer_large_payments_14d": past.get("large_payments_14d", 0),
        "customer_seconds_since_previous": _seconds_since(payment, document),
        "customer_known_frauds": past.get("known_frauds", 0),
    }


def _of_card(payment: NextPayment, document: Values) -> Features:
    past = document.get("feature_values", {})
    return {
        **{f"card_payments_{window}": past.get(f"payments_{window}", 0) + 1 for window in ("10m", "1h", "1d")},
        "card_failed_1d": past.get("failed_1d", 0),
        "card_seconds_since_previous": _seconds_since(payment, document),
        "card_known_frauds": past.get("known_frauds", 0),
    }


def _of_merchant(value: int, document: Values) -> Features:
    past = document.get("feature_values", {})
    frauds = {window: past.get(f"known_frauds_{window}", 0) for window in _SUMMED}
    matured = {window: past.get(f"matured_payments_{window}", 0) for window in _SUMMED}
    return {
        "merchant_small_payments_10m": past.get("small_payments_10m", 0) + (value < _SMALL_MINOR),
        "merchant_payments_1h": past.get("payments_1h", 0) + 1,
        "merchant_payments_1d": past.get("payments_1d", 0) + 1,
        "merchant_failed_1h": past.get("failed_1h", 0),
        "value_to_merchant_mean_30d": _ratio(value * past.get("payments_30d", 0), past.get("value_30d", 0)),
        **{f"merchant_matured_payments_{window}": matured[window] for window in _SUMMED},
        **{f"merchant_known_frauds_{window}": frauds[window] for window in _SUMMED},
        "merchant_known_frauds": past.get("known_frauds", 0),
        **{f"merchant_fraud_risk_{window}": _ratio(frauds[window], matured[window]) or 0.0 for window in _SUMMED},
    }


_SUMMED = ("1d", "7d", "30d")
_SMALL_MINOR = 500


def _ratio(numerator: int, denominator: int) -> float | None:
    return float(numerator) / float(denominator) if denominator else None


def _seconds_since(payment: NextPayment, document: Values) -> int | None:
    last: datetime | None = document.get("last_paid_at")
    return None if last is None else int(payment.paid_at.timestamp()) - int(last.timestamp())

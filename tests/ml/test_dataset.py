"""The feature table, its split by time, and who is judged."""

from pathlib import Path

import numpy as np
import pytest

from ml.dataset import (
    DAY_US,
    NEVER,
    FeatureSchema,
    ObservedSpan,
    Payments,
    TimeSplit,
    judged_rows,
    open_feature_store,
    split_by_time,
)
from payments.errors import UsageError
from tests.ml.features import PAYMENTS, change_warehouse

HOUR_US = DAY_US // 24


def _payments(rows: list[tuple[float, str, float | None]], declined: set[int] | None = None) -> Payments:
    """Make payments from (day paid, card, day the fraud became known or None)."""
    count = len(rows)
    names = np.array([str(index) for index in range(count)])
    return Payments(
        schema=FeatureSchema((), ()),
        payment_keys=names,
        payment_ids=names,
        merchant_ids=names,
        card_keys=np.array([card for _, card, _ in rows]),
        amount_minor=np.ones(count, dtype=np.int64),
        paid_at=np.array([int(day * DAY_US) for day, _, _ in rows]),
        known_at=np.array([NEVER if known is None else int(known * DAY_US) for _, _, known in rows]),
        is_declined=np.array([index in (declined or set()) for index in range(count)]),
        matrix=np.empty((count, 0)),
    )


def _split(test_start: int, test_end: int, delay: int) -> TimeSplit:
    return TimeSplit(0, (test_start - delay) * DAY_US, test_start * DAY_US, test_end * DAY_US, delay)


def test_the_split_leaves_a_delay_before_the_test_and_one_after_it() -> None:
    # 100 days of payments, everything known until the end of day 99, labels 10 days late.
    span = ObservedSpan(1, HOUR_US, 100 * DAY_US - 1, 100 * DAY_US - 1, delay_days=10)
    split = split_by_time(span)
    # Mature until day 89 (day 99 is not complete); 79 usable days, of which a fifth is tested.
    assert split == TimeSplit(0, 64 * DAY_US, 74 * DAY_US, 89 * DAY_US, 10)


def test_labels_that_reach_beyond_the_last_payment_let_the_last_day_be_tested() -> None:
    span = ObservedSpan(1, 0, 50 * DAY_US - 1, 60 * DAY_US, delay_days=7)
    assert split_by_time(span).test_end == 50 * DAY_US


def test_a_short_history_gives_no_more_than_a_fifth_of_itself_to_a_gap() -> None:
    span = ObservedSpan(1, HOUR_US, 100 * DAY_US - 1, 100 * DAY_US - 1, delay_days=43)
    split = split_by_time(span)
    assert (split.gap_days, split.delay_days) == (20, 43)
    # The last complete day but one less twenty; 59 usable days, of which a fifth is tested.
    assert split == TimeSplit(0, 48 * DAY_US, 68 * DAY_US, 79 * DAY_US, 43)


@pytest.mark.parametrize("days", [21, 22, 30])
def test_the_shortest_histories_still_leave_days_to_train_on(days: int) -> None:
    split = split_by_time(ObservedSpan(1, 0, days * DAY_US - 1, days * DAY_US - 1, delay_days=45))
    assert 0 == split.train_start < split.train_end < split.test_start < split.test_end <= days * DAY_US


def test_a_history_that_is_too_short_says_how_long_it_must_be() -> None:
    with pytest.raises(UsageError, match="20 days, at least 21"):
        split_by_time(ObservedSpan(1, 0, 20 * DAY_US - 1, 20 * DAY_US - 1, delay_days=3))


def test_a_known_card_leaves_on_the_first_day_after_its_fraud_became_known() -> None:
    split = _split(test_start=20, test_end=27, delay=7)
    rows: list[tuple[float, str, float | None]] = [
        (12.9, "a", 19.9),  # known the day before the test: its card is out from the first day
        (20.1, "a", None),
        (13.5, "b", 20.5),  # known during the first day: judged on that day, out on the next
        (20.9, "b", None),
        (21.1, "b", None),
        (5.9, "c", 12.9),  # paid before the frauds that count: too long ago to matter
        (20.2, "c", None),
        (22.0, "d", 29.0),  # known after the test: judged
        (19.9, "e", None),  # before the test
        (27.0, "f", None),  # after the test
    ]
    judged = judged_rows(_payments(rows), split)
    assert [index for index, is_judged in enumerate(judged) if is_judged] == [3, 6, 7]


def test_a_fraud_known_at_the_very_start_of_a_day_is_not_yet_known_that_day() -> None:
    # The handbook removes the cards of eight days before and earlier: with a delay of exactly seven days, a fraud at
    # midnight seven days before stays.
    rows: list[tuple[float, str, float | None]] = [(13.0, "a", 20.0), (20.5, "a", None), (21.5, "a", None)]
    assert list(judged_rows(_payments(rows), _split(20, 27, 7))) == [False, True, False]


def test_declined_attempts_are_not_judged() -> None:
    rows: list[tuple[float, str, float | None]] = [(20.5, "a", None), (20.6, "b", None)]
    assert list(judged_rows(_payments(rows, declined={0}), _split(20, 27, 7))) == [False, True]


def test_a_label_counts_from_the_moment_it_became_known() -> None:
    payments = _payments([(1, "a", 5), (1, "b", 6), (1, "c", None)])
    assert list(payments.fraud_known_by(5 * DAY_US)) == [True, False, False]


@pytest.mark.usefixtures("warehouse")
def test_the_table_is_read_in_order_with_its_features_and_labels() -> None:
    with open_feature_store() as store:
        span = store.span()
        payments = store.load()
        day_three = store.load(span.first_paid_at + 2 * DAY_US, span.first_paid_at + 3 * DAY_US)
    assert (span.rows, span.delay_days) == (PAYMENTS, 5)
    assert len(payments) == PAYMENTS
    assert (np.diff(payments.paid_at) > 0).all()
    assert payments.schema.features[0] == "reporting_value_minor"
    assert "amount_minor" not in payments.schema.features
    assert np.isnan(payments.column("value_to_customer_mean_30d")[0])
    assert (payments.known_at != NEVER).sum() == PAYMENTS // 40
    assert payments.is_declined.sum() == len(range(0, PAYMENTS, 90))
    assert len(day_three) == 72
    assert set(day_three.days) == {span.first_paid_at // DAY_US + 2}


def test_the_slowest_source_sets_the_label_delay(warehouse: Path) -> None:
    change_warehouse(
        warehouse,
        """
        insert into dev_features.feat_payments
        select * replace ('files' as source, paid_at + interval 30 hours as fraud_known_at)
        from dev_features.feat_payments
        where is_fraud
        """,
    )
    with open_feature_store() as store:
        assert store.span().delay_days == 5
    change_warehouse(
        warehouse,
        "update dev_features.feat_payments set fraud_known_at = paid_at + interval 217 hours where source = 'files'",
    )
    with open_feature_store() as store:
        assert store.span().delay_days == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("delete from dev_features.feat_payments", "no payment to learn from"),
        ("update dev_features.feat_payments set is_fraud = false, fraud_known_at = null", "no fraud is known"),
    ],
)
def test_nothing_to_learn_is_said_in_one_line(warehouse: Path, change: str, message: str) -> None:
    change_warehouse(warehouse, change)
    with open_feature_store() as store, pytest.raises(UsageError, match=message):
        store.span()


@pytest.mark.parametrize("relation", ["dev_features.feat_payments", "dev_marts.fct_payments"])
def test_a_missing_model_says_what_to_run(warehouse: Path, relation: str) -> None:
    change_warehouse(warehouse, f"drop table {relation}")
    with pytest.raises(UsageError, match="run dbt build"), open_feature_store():
        pass


def test_a_feature_that_is_no_number_is_refused(warehouse: Path) -> None:
    change_warehouse(warehouse, "alter table dev_features.feat_payments add column device_type varchar")
    with pytest.raises(ValueError, match="device_type"), open_feature_store():
        pass

"""The model: the same bytes from the same data, nothing from the future, thresholds that keep their promise."""

from pathlib import Path

import numpy as np
import pytest

from ml.baseline import Rule, fit_rules
from ml.dataset import DAY_US, TimeSplit, open_feature_store, split_by_time
from ml.model import FraudModel, Thresholds, choose_thresholds
from ml.train import TrainingReport, train_and_evaluate
from payments.errors import UsageError
from tests.ml.features import change_warehouse


def _train() -> tuple[FraudModel, TrainingReport, TimeSplit]:
    with open_feature_store() as store:
        split = split_by_time(store.span())
        return *train_and_evaluate(store, split), split


@pytest.mark.usefixtures("warehouse")
def test_the_same_data_gives_the_same_version_and_the_same_bytes() -> None:
    first, first_report, _ = _train()
    second, second_report, _ = _train()
    assert first.version == second.version
    assert first.text == second.text
    assert first_report == second_report


@pytest.mark.usefixtures("warehouse")
def test_the_model_ranks_far_better_than_the_rules_on_the_same_rows() -> None:
    _, report, _ = _train()
    evaluation = report.evaluation
    assert evaluation.model.rows == evaluation.baseline.rows
    assert evaluation.model.average_precision > 0.9 > evaluation.baseline.average_precision
    assert evaluation.decisions.blocked_legitimate <= 0.01
    assert evaluation.decisions.blocked_frauds > 0.5


def test_what_became_known_or_happened_after_the_cutoff_changes_nothing(warehouse: Path) -> None:
    model, _, split = _train()
    # Other amounts and labels from the end of training on, and labels of the past that arrive a moment too late.
    late = f"make_timestamptz({split.test_start} + 1)"
    change_warehouse(
        warehouse,
        f"""
        update dev_features.feat_payments
        set reporting_value_minor = 1, is_new_device = 0
        where paid_at >= make_timestamptz({split.train_end});
        update dev_features.feat_payments
        set is_fraud = true, fraud_known_at = {late}
        where paid_at < make_timestamptz({split.train_end}) and not is_fraud and order_key % 3 = 0;
        """,
    )
    with open_feature_store() as store:
        changed, _ = train_and_evaluate(store, split)
    assert changed.version == model.version
    assert changed.text == model.text


def test_one_label_more_within_time_makes_another_model(warehouse: Path) -> None:
    model, _, split = _train()
    change_warehouse(
        warehouse,
        f"""
        update dev_features.feat_payments
        set is_fraud = true, fraud_known_at = make_timestamptz({split.test_start})
        where payment_id = 'ch_1'
        """,
    )
    with open_feature_store() as store:
        changed, _ = train_and_evaluate(store, split)
    assert changed.version != model.version
    assert changed.text != model.text


@pytest.mark.usefixtures("warehouse")
def test_one_payment_scores_alone_as_it_does_among_others() -> None:
    model, _, split = _train()
    with open_feature_store() as store:
        payments = store.load(split.test_start, split.test_start + DAY_US)
    together = model.scores(payments)
    assert [model.score(payments.matrix[row]) for row in range(len(payments))] == list(together)


def test_too_few_frauds_are_refused_with_the_numbers(warehouse: Path) -> None:
    change_warehouse(
        warehouse,
        """
        update dev_features.feat_payments
        set is_fraud = false, fraud_known_at = null
        where payment_id not in ('ch_7', 'ch_47', 'ch_3927')
        """,
    )
    with pytest.raises(UsageError, match="2 known frauds, at least 1000 with 5"):
        _train()


def test_a_test_period_without_fraud_cannot_judge(warehouse: Path) -> None:
    _, _, split = _train()
    change_warehouse(
        warehouse,
        f"""
        update dev_features.feat_payments
        set is_fraud = false, fraud_known_at = null
        where paid_at >= make_timestamptz({split.test_start})
        """,
    )
    with open_feature_store() as store, pytest.raises(UsageError, match="cannot judge"):
        train_and_evaluate(store, split)


def test_thresholds_are_the_lowest_within_the_allowed_false_positives() -> None:
    # 1,000 legitimate payments with scores 0.000 to 0.999: one may be blocked, ten may be looked at.
    scores = np.arange(1_000) / 1_000
    thresholds = choose_thresholds(np.append(scores, 1.0), np.append(np.zeros(1_000, dtype=bool), True))
    assert (scores >= thresholds.block).sum() == 1
    assert (scores >= thresholds.review).sum() == 10
    assert thresholds.review < thresholds.block


def test_equal_scores_do_not_slip_over_the_limit() -> None:
    thresholds = choose_thresholds(np.full(1_000, 0.5), np.zeros(1_000, dtype=bool))
    assert (np.full(1_000, 0.5) >= thresholds.review).sum() == 0


@pytest.mark.parametrize(("score", "decision"), [(0.1, "allow"), (0.2, "review"), (0.8, "block"), (0.79, "review")])
def test_decisions(score: float, decision: str) -> None:
    assert Thresholds(review=0.2, block=0.8).decision(score) == decision


def test_rules_give_points_above_their_limits_and_none_for_a_missing_feature(warehouse: Path) -> None:
    change_warehouse(
        warehouse,
        """
        update dev_features.feat_payments set value_to_customer_mean_30d = null, reporting_value_minor = 5000;
        update dev_features.feat_payments set is_new_country = 1 where payment_id = 'ch_3';
        update dev_features.feat_payments set is_new_country = 0 where payment_id <> 'ch_3';
        """,
    )
    with open_feature_store() as store:
        payments = store.load()
    rules = fit_rules(payments, (Rule("value_to_customer_mean_30d", "above"), Rule("is_new_country", "new", limit=0.5)))
    points = np.floor(rules.scores(payments))
    assert points[3] == 1
    assert points.sum() == 1


@pytest.mark.usefixtures("warehouse")
def test_a_rule_on_a_feature_that_is_not_built_says_so() -> None:
    with open_feature_store() as store:
        payments = store.load()
    with pytest.raises(UsageError, match="has no feature shoe_size"):
        fit_rules(payments, (Rule("shoe_size", "large feet"),))

"""The metrics against cases worked out by hand."""

import numpy as np
import pytest

from ml.metrics import card_precision, ranking_metrics


def _precision(rows: list[tuple[int, str, float, bool]], daily_alerts: int) -> float:
    days, cards, scores, frauds = zip(*rows, strict=True)
    return card_precision(np.array(frauds), np.array(scores), np.array(cards), np.array(days), daily_alerts)


def test_hits_are_divided_by_the_number_of_alerts_even_when_there_are_fewer_cards() -> None:
    assert _precision([(0, "a", 0.9, True), (0, "b", 0.1, False)], daily_alerts=4) == 1 / 4


def test_a_card_counts_once_a_day_by_its_highest_score_and_any_of_its_frauds() -> None:
    # Card a: highest score 0.9 on a legitimate payment, fraud on another: one alert, one hit. Card b takes the second.
    rows = [(0, "a", 0.9, False), (0, "a", 0.2, True), (0, "b", 0.8, False), (0, "c", 0.7, True)]
    assert _precision(rows, daily_alerts=2) == 1 / 2


def test_a_detected_card_makes_room_for_the_next_one_on_later_days() -> None:
    first = [(0, "a", 0.9, True), (0, "b", 0.8, False)]
    second = [(1, "a", 0.9, True), (1, "c", 0.3, True)]
    # Day 0: a is a hit. Day 1: a is known, so the one alert goes to c: a hit again.
    assert _precision(first + second, daily_alerts=1) == 1.0


def test_a_card_that_was_looked_at_and_clean_may_be_looked_at_again() -> None:
    rows = [(0, "a", 0.9, False), (1, "a", 0.9, True), (1, "b", 0.1, True)]
    assert _precision(rows, daily_alerts=1) == (0 + 1) / 2


def test_a_fraudulent_card_that_was_missed_stays_in_the_game() -> None:
    rows = [(0, "a", 0.1, True), (0, "b", 0.9, False), (1, "a", 0.8, True)]
    assert _precision(rows, daily_alerts=1) == (0 + 1) / 2


def test_equal_scores_are_ordered_by_card() -> None:
    rows = [(0, "b", 0.5, True), (0, "a", 0.5, False)]
    assert _precision(rows, daily_alerts=1) == 0.0


def test_all_figures_of_a_small_ranking() -> None:
    is_fraud = np.array([False, True, False, True])
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    metrics = ranking_metrics(is_fraud, scores, np.array(["a", "b", "c", "d"]), np.zeros(4, dtype=np.int64))
    assert metrics.auc == 1.0
    assert metrics.average_precision == 1.0
    assert metrics.card_precision == metrics.card_precision_ceiling == 0.02
    assert (metrics.rows, metrics.frauds) == (4, 2)


def test_average_precision_and_auc_of_an_imperfect_ranking() -> None:
    # In order of score: legitimate, fraud, legitimate, fraud. Precision at the frauds: 1/2 and 2/4. Pairs won: 1 of 4.
    is_fraud = np.array([False, True, False, True])
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    metrics = ranking_metrics(is_fraud, scores, np.array(["a", "b", "c", "d"]), np.zeros(4, dtype=np.int64))
    assert metrics.average_precision == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert metrics.auc == pytest.approx(1 / 4)


@pytest.mark.parametrize("frauds", [[False, False], [True, True]])
def test_one_class_cannot_be_judged(frauds: list[bool]) -> None:
    with pytest.raises(ValueError, match="both classes"):
        ranking_metrics(np.array(frauds), np.array([0.1, 0.2]), np.array(["a", "b"]), np.zeros(2, dtype=np.int64))

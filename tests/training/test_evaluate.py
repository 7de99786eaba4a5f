"""Measures against scikit-learn's and against cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from training.evaluate import auc, auc_interval, ece, measure, within_groups
from training.evaluate import log_loss as our_log_loss


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    p = np.round(random.beta(1, 9, 4000), 3)
    return (random.random(4000) < p).astype(float), p


def test_auc_equals_scikit_learn_with_ties_and_weights(scored: tuple[np.ndarray, np.ndarray]) -> None:
    """Ties count half, and a weight counts a row as often as it says."""
    y, p = scored
    weights = np.random.default_rng(1).integers(0, 4, len(y)).astype(float)
    assert auc(y, p) == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert auc(y, p, weights) == pytest.approx(roc_auc_score(y, p, sample_weight=weights), abs=1e-12)


def test_losses_equal_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    """Log loss is scikit-learn's, and the Brier skill is one minus the ratio to the base rate's score."""
    y, p = scored
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    assert our_log_loss(y, p) == pytest.approx(log_loss(y, clipped), rel=1e-9)
    base = brier_score_loss(y, np.full(len(y), y.mean()))
    assert measure(y, p)["brier_skill"] == pytest.approx(1 - brier_score_loss(y, p) / base, rel=1e-9)


def test_calibration_error_is_the_distance_of_rate_and_probability() -> None:
    """Two bins that miss by .1 and .3 with equal mass give .2."""
    p = np.array([0.1] * 10 + [0.8] * 10)
    y = np.array([1.0] * 2 + [0.0] * 8 + [1.0] * 5 + [0.0] * 5)
    assert ece(y, p, bins=2) == pytest.approx(0.2)


def test_honest_probabilities_have_slope_and_ratio_of_one(scored: tuple[np.ndarray, np.ndarray]) -> None:
    """Labels drawn from the probabilities themselves leave slope and ratio near 1, doubled ones do not."""
    y, p = scored
    honest, doubled = measure(y, np.clip(p, 1e-3, 1)), measure(y, np.clip(2 * p, 1e-3, 0.999))
    assert abs(honest["slope"] - 1) < 0.15
    assert abs(honest["predicted_ratio"] - 1) < 0.1
    assert doubled["predicted_ratio"] > 1.8


def test_order_within_a_group_ignores_other_groups() -> None:
    """A score that is right within each send is perfect there, however the sends compare."""
    labels = np.array([1, 0, 0, 0, 0, 1, 0, 0], dtype=float)
    scores = np.array([0.2, 0.1, 0.1, 0.1, 0.8, 0.9, 0.8, 0.7])
    groups = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert within_groups(labels, scores, groups, top=1) == (1.0, 1.0)
    assert within_groups(1 - labels, scores, groups)[0] == 0.0


def test_a_constant_is_worth_nothing_within_a_group() -> None:
    """Equal scores give one half within a group, whatever the order of the rows."""
    labels = np.tile([1.0, 0.0, 0.0, 0.0, 0.0, 0.0], 500)
    area, recall = within_groups(labels, np.full(3000, 0.3), np.repeat(np.arange(500), 6))
    assert area == 0.5
    assert 0.4 < recall < 0.6


def test_the_interval_surrounds_the_estimate_and_is_the_same_each_time(scored: tuple[np.ndarray, np.ndarray]) -> None:
    """Resampling households is seeded, and fewer households make the interval wider."""
    y, p = scored
    many, few = np.arange(len(y)), np.arange(len(y)) % 40
    low, high = auc_interval(y, p, many)
    assert low < auc(y, p) < high
    assert (low, high) == auc_interval(y, p, many)
    crowd = auc_interval(np.tile(y, 2), np.tile(p, 2), np.tile(many, 2))
    assert crowd[1] - crowd[0] == pytest.approx(high - low, rel=0.25), (
        "doubled rows of a household are not more evidence"
    )
    assert auc_interval(y, p, few)[0] < auc(y, p)

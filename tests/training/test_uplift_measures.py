"""AUUC and Qini against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from training.uplift_measures import Ranked, auuc, gain_interval, qini


def trial(n: int = 400, seed: int = 0):
    """Draw scores, outcomes, treatment and its probability of a trial in which the score is the effect."""
    random = np.random.default_rng(seed)
    scores, treated = random.random(n), random.random(n) < 0.5
    outcomes = (random.random(n) < 0.1 + 0.4 * scores * treated).astype(float)
    return scores, outcomes, treated, np.full(n, 0.5)


def naive_auuc(order, outcomes, treated) -> float:
    """Return the definition, one depth of the list at a time."""
    y, t = outcomes[order], treated[order]
    return float(np.mean(np.cumsum(y * t) / t.sum() - np.cumsum(y * ~t) / (~t).sum()))


def test_auuc_is_the_mean_of_the_uplift_curve():
    """With constant propensities it is the definition of arXiv 2012.09897."""
    scores, outcomes, treated, half = trial()
    expected = naive_auuc(np.argsort(-scores), outcomes, treated)
    assert auuc(scores, outcomes, treated, half) == pytest.approx(expected, rel=1e-12)


def test_equal_scores_share_the_mean_of_their_orders():
    """A score with ties has the mean AUUC over all orders of the tied rows."""
    scores, outcomes, treated, half = trial(60)
    coarse = np.floor(scores * 3)
    random = np.random.default_rng(1)
    drawn = [naive_auuc(np.lexsort((random.random(60), -coarse)), outcomes, treated) for _ in range(4_000)]
    error = 4 * np.std(drawn) / np.sqrt(len(drawn))
    assert auuc(coarse, outcomes, treated, half) == pytest.approx(np.mean(drawn), abs=error)


def test_qini_is_nothing_for_random_order_and_falls_with_a_reversed_score():
    """A constant score has 0; the true effect is above and its reverse below it."""
    scores, outcomes, treated, half = trial(4_000)
    assert qini(np.zeros(4_000), outcomes, treated, half) == pytest.approx(0.0, abs=1e-3)
    assert qini(scores, outcomes, treated, half) > 0.02 > -0.02 > qini(-scores, outcomes, treated, half)


def test_weights_undo_unequal_chances_of_treatment():
    """Where those with high scores are treated more often, the weighted AUUC stays that of an even trial."""
    random = np.random.default_rng(5)
    n = 200_000
    scores = random.random(n)
    chances = 0.2 + 0.6 * scores
    effect = 0.1 + 0.4 * scores
    values = []
    for e in (chances, np.full(n, 0.5)):
        treated = random.random(n) < e
        outcomes = (random.random(n) < 0.1 + 0.2 * scores + effect * treated).astype(float)
        values.append(auuc(scores, outcomes, treated, e))
    assert values[0] == pytest.approx(values[1], abs=0.006)


def test_the_interval_is_paired_and_by_customer():
    """Against itself a score gains nothing at all; counts of a resample equal repeated rows."""
    scores, outcomes, treated, half = trial(300)
    owner = np.arange(300) // 3
    itself = gain_interval(Ranked.auuc, scores, scores, outcomes, treated, half, owner, resamples=20)
    assert (itself.value, itself.low, itself.high) == (0.0, 0.0, 0.0)
    counts = np.random.default_rng(0).integers(0, 4, 300)
    rows = np.repeat(np.arange(300), counts)
    ranked = Ranked(scores, outcomes, treated, half)
    assert float(ranked.auuc(counts[ranked.order].astype(float))) == pytest.approx(
        auuc(scores[rows], outcomes[rows], treated[rows], half[rows]), rel=1e-12
    )

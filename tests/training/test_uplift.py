"""Learners of the effect against a trial whose effects are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.uplift import CannotLearn, EffectRows, deal_folds, effects_by_action, fit_effect, robust_scores

N = 12_000


def truth(inputs, actions):
    """Return P(positive) when held back, and what showing adds: persuadable, nothing, or a sleeping dog."""
    base = 0.15 + 0.1 * (inputs[:, 1] > 0)
    effect = np.select(
        [actions == "persuades", actions == "wakes_dogs", actions == "splits"],
        [0.08, -0.08, np.where(inputs[:, 0] > 0, 0.12, -0.12)],
        0.0,
    )
    return base, effect


def trial(seed: int = 0, n: int = N) -> EffectRows:
    """Draw a trial of four actions: one persuades, one does harm, one does either, one does nothing."""
    random = np.random.default_rng(seed)
    names = np.array(["persuades", "wakes_dogs", "splits", "nothing"])
    codes = random.integers(0, 4, n)
    inputs = np.column_stack([random.normal(size=(n, 3)), codes])
    chances = np.where(inputs[:, 1] > 0, 0.7, 0.5)
    treated = random.random(n) < chances
    base, effect = truth(inputs, names[codes])
    outcomes = (random.random(n) < base + effect * treated).astype(float)
    return EffectRows(inputs, treated, outcomes, chances, np.arange(n) // 2, names[codes], categoricals=(3,))


@pytest.fixture(scope="module")
def rows() -> EffectRows:
    return trial()


def test_doubly_robust_scores_have_the_effect_as_their_mean(rows: EffectRows):
    """For every action the mean score lies within four errors of the true mean effect."""
    psi = robust_scores(rows, deal_folds(rows.customers, 3, 0))
    _, effect = truth(rows.inputs, rows.actions)
    for name in np.unique(rows.actions):
        own = rows.actions == name
        error = psi[own].std() / np.sqrt(own.sum())
        assert abs(psi[own].mean() - effect[own].mean()) < 4 * error


def test_the_effect_is_found_where_it_is_and_only_there(rows: EffectRows):
    """Persuading, harming and splitting actions are significant, the one that does nothing is not."""
    found = fit_effect(rows)
    assert {name for name, action in found.actions.items() if action.is_significant} == {
        "persuades", "wakes_dogs", "splits",
    }  # fmt: skip
    assert found.qini[found.learner].low > 0.0
    assert found.qini[found.learner].value == max(gain.value for gain in found.qini.values())
    assert found.actions["wakes_dogs"].effect.high < 0.0 < found.actions["persuades"].effect.low


def test_uplift_by_the_actions_line_is_near_the_truth(rows: EffectRows):
    """intercept + slope x booster is near the effect of new customers and has its sign: sleeping dogs below zero."""
    found, fresh = fit_effect(rows), trial(seed=9)
    scores = found.booster.predict(fresh.inputs)
    _, effect = truth(fresh.inputs, fresh.actions)
    for name in ("persuades", "wakes_dogs", "splits"):
        own, action = fresh.actions == name, found.actions[name]
        uplift = action.intercept + action.slope_used * scores[own]
        assert np.mean(np.sign(uplift) == np.sign(effect[own])) > 0.9
        assert np.sqrt(np.mean((uplift - effect[own]) ** 2)) < (0.08 if name == "splits" else 0.05)


def test_an_effect_that_is_chance_is_called_so_about_as_often_as_stated():
    """Over twenty trials of forty actions without any effect at most four name an action significant."""
    random = np.random.default_rng(3)
    false_alarms = 0
    for _ in range(20):
        n = 8_000
        actions = random.integers(0, 40, n).astype(str)
        rows = EffectRows(np.zeros((n, 1)), random.random(n) < 0.5, np.zeros(n), np.full(n, 0.5), np.arange(n), actions)
        effects = effects_by_action(rows, random.normal(size=n), random.normal(size=n))
        false_alarms += any(effect.is_significant for effect in effects.values())
    assert false_alarms <= 4


def test_unknown_propensities_are_estimated(rows: EffectRows):
    """Without the probabilities of treatment the same actions are found."""
    found = fit_effect(replace(rows, propensities=None), resamples=20)
    assert {name for name, action in found.actions.items() if action.is_significant} == {
        "persuades", "wakes_dogs", "splits",
    }  # fmt: skip


def test_rows_that_cannot_tell_an_effect_are_refused(rows: EffectRows):
    """Without a hold-out, or where someone was certain to be shown, it says what is missing."""
    with pytest.raises(CannotLearn, match="0 rows that were held back only 0 have a positive"):
        fit_effect(replace(rows, treated=np.ones(N, np.bool_)))
    with pytest.raises(CannotLearn, match="no counterpart"):
        fit_effect(replace(rows, propensities=np.ones(N)))

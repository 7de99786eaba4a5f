"""Cross-fitted reward models."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.reward_model import cross_fit


class Remembers:
    """A model that knows by heart the rows it was fitted on: 1 for a row seen, else 0."""

    def fit(self, rows: Any, labels: Any) -> Remembers:
        """Keep the rows."""
        self.seen = {tuple(row) for row in rows}
        return self

    def predict_proba(self, rows: Any) -> Any:
        """Return 1 for a row kept, else 0."""
        known = np.array([tuple(row) in self.seen for row in rows], dtype=float)
        return np.column_stack([1 - known, known])


def test_no_round_is_scored_by_a_model_that_saw_its_group():
    """With groups, even a model that learns by heart knows nothing of the rows it scores."""
    owner = np.repeat(np.arange(30), 3)
    rewards = (np.arange(90) % 2).astype(float)
    fitted = cross_fit(
        owner[:, None].astype(float), np.zeros((1, 1)), np.zeros(90, np.int64), rewards, np.ones((90, 1)),
        groups=owner, model=Remembers,
    )  # fmt: skip
    assert not fitted.fitted.any()
    alone = cross_fit(
        owner[:, None].astype(float), np.zeros((1, 1)), np.zeros(90, np.int64), rewards, np.ones((90, 1)),
        model=Remembers,
    )  # fmt: skip
    assert alone.fitted.any()


def test_a_model_learns_the_rate_of_each_action_and_its_worth():
    """The default model finds the mean reward of an action, of rewards that are worth more than one too."""
    random = np.random.default_rng(0)
    actions = random.integers(0, 3, 9_000)
    rewards = 2.5 * (random.random(9_000) < np.array([0.1, 0.3, 0.6])[actions])
    target = np.tile([0.0, 0.5, 0.5], (9_000, 1))
    fitted = cross_fit(np.zeros((9_000, 1)), np.eye(3), actions, rewards, target)
    assert abs(fitted.fitted[actions == 0].mean() - 0.25) < 0.03
    assert abs(fitted.expected.mean() - 2.5 * 0.45) < 0.05


def test_strata_are_fitted_apart():
    """A stratum without a positive is worth 0 there, whatever the other is worth."""
    strata = np.arange(600) % 2
    rewards = np.where(strata == 1, (np.arange(600) % 4 == 1).astype(float), 0.0)
    fitted = cross_fit(
        np.zeros((600, 1)), np.eye(2), np.zeros(600, np.int64), rewards, np.full((600, 2), 0.5), strata=strata
    )
    assert not fitted.fitted[strata == 0].any()
    assert fitted.fitted[strata == 1].min() > 0.3

"""Cross-fitted reward models."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.reward_model import Pairs, cross_fit, direct


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


def all_pairs(target, actions) -> Pairs:
    """Number the pairs of rounds that all have the same actions."""
    n, k = target.shape
    return Pairs(np.repeat(np.arange(n), k), target.ravel(), np.arange(n) * k + actions)


def test_no_round_is_scored_by_a_model_that_saw_its_group():
    """With groups, even a model that learns by heart knows nothing of the rows it scores."""
    owner = np.repeat(np.arange(30), 3)
    rewards = (np.arange(90) % 2).astype(float)
    pairs = all_pairs(np.ones((90, 1)), np.zeros(90, np.int64))

    def inputs_of(numbers):
        return owner[numbers][:, None].astype(float)

    assert not cross_fit(inputs_of, pairs, rewards, groups=owner, model=Remembers).any()
    assert cross_fit(inputs_of, pairs, rewards, model=Remembers).any()


def test_a_model_learns_the_rate_of_each_action_and_its_worth():
    """The default model finds the mean reward of an action, of rewards that are worth more than one too."""
    random = np.random.default_rng(0)
    actions = random.integers(0, 3, 9_000)
    rewards = 2.5 * (random.random(9_000) < np.array([0.1, 0.3, 0.6])[actions])
    pairs = all_pairs(np.tile([0.0, 0.5, 0.5], (9_000, 1)), actions)
    q = cross_fit(lambda numbers: np.eye(3)[numbers % 3], pairs, rewards)
    fitted = direct(q, pairs)
    assert abs(fitted.fitted[actions == 0].mean() - 0.25) < 0.03
    assert abs(fitted.expected.mean() - 2.5 * 0.45) < 0.05
    of_one = direct(q, pairs, np.arange(len(q)) % 3 == 2)
    assert abs(of_one.expected.mean() - 2.5 * 0.3) < 0.05
    assert not of_one.fitted[actions != 2].any()


def test_a_slot_that_stayed_empty_earns_nothing():
    """A round without a logged action is worth 0 in the log, and what its candidates are worth under the new policy."""
    pairs = Pairs(np.array([0, 0, 1, 1, 2, 2]), np.full(6, 0.5), np.array([0, 3, -1]))
    fitted = direct(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.7]), pairs)
    assert fitted.fitted.tolist() == [0.1, 0.4, 0.0]
    assert np.allclose(fitted.expected, [0.15, 0.35, 0.6])


def test_strata_are_fitted_apart():
    """A stratum without a positive is worth 0 there, whatever the other is worth."""
    strata = np.arange(600) % 2
    rewards = np.where(strata == 1, (np.arange(600) % 4 == 1).astype(float), 0.0)
    pairs = all_pairs(np.full((600, 2), 0.5), np.zeros(600, np.int64))
    fitted = direct(cross_fit(lambda numbers: np.eye(2)[numbers % 2], pairs, rewards, strata=strata), pairs)
    assert not fitted.fitted[strata == 0].any()
    assert fitted.fitted[strata == 1].min() > 0.3

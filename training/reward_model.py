"""Cross-fitted reward models for the direct and the doubly robust estimate: q(x, a) of rounds never fitted on.

Decides the folds and the default model, a logistic regression over customer and action. A model of one's own is any
object with fit and predict_proba, as in scikit-learn; a fold is scored by the model fitted on the others, so that the
doubly robust estimate keeps its interval whatever the model (Chernozhukov et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS, SEED, MAX_ITERATIONS = 3, 12345, 1_000
CHUNK_ROWS = 200_000
"""Rows scored at once: a chunk of rounds x actions."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What the off-policy estimates need of a reward model.

    Attributes:
        expected: (n,) q under the new policy's distribution. fitted: (n,) q of the logged action.
    """

    expected: Floats
    fitted: Floats


def logistic() -> Any:
    """Return the default reward model."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=MAX_ITERATIONS, random_state=SEED)


def cross_fit(
    contexts: Floats,
    features: Floats,
    actions: Ints,
    rewards: Floats,
    target: Floats,
    *,
    strata: Ints | None = None,
    groups: Ints | None = None,
    model: Callable[[], Any] = logistic,
    folds: int = FOLDS,
    seed: int = SEED,
) -> Fitted:
    """Fit on the other folds and score each fold.

    Args:
        contexts: (n, p) what is known of the customer. features: (n_actions, r) what is known of each action.
        actions: (n,) logged actions. rewards: (n,); a model of classes sees whether they are above 0, and its
            probability is worth the mean reward of the positives.
        target: (n, n_actions) the new policy's distribution; what lacks to 1 is on "nothing", which earns 0.
        strata: (n,) codes; each is fitted on its own, e.g. the position of the slot. None: all together.
        groups: (n,) codes, e.g. customers, that no two folds share; None: every round on its own.
        model: Makes an unfitted model with fit and predict_proba.

    Raises:
        ValueError: where a fold has one round alone to learn from.
    """
    fold_of = _folds(len(rewards) if groups is None else groups, folds, seed)
    stratum = np.zeros(len(rewards), np.int64) if strata is None else strata
    expected, fitted = np.zeros(len(rewards)), np.zeros(len(rewards))
    for fold in range(folds):
        for code in np.unique(stratum):
            own = stratum == code
            learned, scored = own & (fold_of != fold), np.flatnonzero(own & (fold_of == fold))
            if not len(scored):
                continue
            predict = _fit(model, contexts[learned], features[actions[learned]], rewards[learned])
            for rows in np.array_split(scored, -(-len(scored) * len(features) // CHUNK_ROWS)):
                q = predict(_pairs(contexts[rows], features)).reshape(len(rows), len(features))
                expected[rows] = (q * target[rows]).sum(axis=1)
                fitted[rows] = q[np.arange(len(rows)), actions[rows]]
    return Fitted(expected, fitted)


def _folds(groups: Ints | int, folds: int, seed: int) -> Ints:
    """Deal groups into folds of equal number, shuffled."""
    random = np.random.default_rng(seed)
    dense = np.arange(groups) if isinstance(groups, int) else np.unique(groups, return_inverse=True)[1]
    n = int(dense.max()) + 1
    dealt: Ints = random.permutation(np.arange(n) % folds)[dense]
    return dealt


def _fit(model: Callable[[], Any], contexts: Floats, features: Floats, rewards: Floats) -> Callable[[Floats], Floats]:
    positive = rewards > 0
    if len(rewards) < 2:
        raise ValueError("a fold of the reward model has fewer than two rounds to learn from; take fewer folds")
    if positive.all() or not positive.any():
        level = float(rewards.mean())
        return lambda rows: np.full(len(rows), level)
    worth = float(rewards[positive].mean())
    learned = model().fit(np.column_stack([contexts, features]), positive.astype(np.int64))
    return lambda rows: worth * np.asarray(learned.predict_proba(rows)[:, 1])


def _pairs(contexts: Floats, features: Floats) -> Floats:
    n, k = len(contexts), len(features)
    return np.column_stack([np.repeat(contexts, k, axis=0), np.tile(features, (n, 1))])

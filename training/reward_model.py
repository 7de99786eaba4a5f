"""Cross-fitted reward models for the direct and the doubly robust estimate: q(x, a) of rounds never fitted on.

Decides the folds and the default model, a logistic regression over what is known of customer and action. A model of
one's own is any object with fit and predict_proba, as in scikit-learn; a fold is scored by the model fitted on the
others, so that the doubly robust estimate keeps its interval whatever the model (Chernozhukov et al. 2018).

A pair is a round and an action that could stand in it; pairs are numbered, and inputs are asked for by number, so that
rounds may have different actions and nothing large is held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
InputsOf = Callable[[Ints], Floats]
"""Numbers of pairs (m,) -> what the model sees of them (m, p)."""

FOLDS, SEED, MAX_ITERATIONS = 3, 12345, 1_000
CHUNK_PAIRS = 200_000


@dataclass(frozen=True)
class Pairs:
    """The pairs of all rounds.

    Attributes:
        rounds: (m,) round of each pair. target: (m,) P(the action in this round) under the new policy; what lacks to 1
            is on "nothing", which earns 0.
        logged: (n,) pair of the logged action of each round, -1 where the slot stayed empty.
    """

    rounds: Ints
    target: Floats
    logged: Ints


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
    inputs_of: InputsOf,
    pairs: Pairs,
    rewards: Floats,
    *,
    strata: Ints | None = None,
    groups: Ints | None = None,
    model: Callable[[], Any] = logistic,
    folds: int = FOLDS,
    seed: int = SEED,
) -> Floats:
    """Fit on the other folds and score each fold.

    Args:
        rewards: (n,); a model of classes sees whether they are above 0, and its probability is worth the mean reward
            of the positives.
        strata: (n,) codes; each is fitted on its own, e.g. the position of the slot. None: all together.
        groups: (n,) codes, e.g. customers, that no two folds share; None: every round on its own.
        model: Makes an unfitted model with fit and predict_proba.

    Returns:
        (m,) q of every pair.

    Raises:
        ValueError: where a fold has one round alone to learn from.
    """
    fold_of = _folds(np.arange(len(rewards)) if groups is None else groups, folds, seed)
    stratum = np.zeros(len(rewards), np.int64) if strata is None else strata
    q = np.zeros(len(pairs.rounds))
    for fold in range(folds):
        for code in np.unique(stratum):
            own = stratum == code
            learned = np.flatnonzero(own & (fold_of != fold) & (pairs.logged >= 0))
            scored = np.flatnonzero((own & (fold_of == fold))[pairs.rounds])
            if len(scored):
                predict = _fit(model, inputs_of(pairs.logged[learned]), rewards[learned])
                for part in np.array_split(scored, -(-len(scored) // CHUNK_PAIRS)):
                    q[part] = predict(inputs_of(part))
    return q


def direct(q: Floats, pairs: Pairs, counted: Bools | None = None) -> Fitted:
    """Average over the new policy's choices.

    Args:
        q: (m,). counted: (m,) pairs whose reward counts, e.g. those of one issue; None for all.
    """
    n = len(pairs.logged)
    worth = q if counted is None else q * counted
    expected: Floats = np.bincount(pairs.rounds, pairs.target * worth, n).astype(np.float64)
    return Fitted(expected, np.where(pairs.logged >= 0, worth[pairs.logged], 0.0))


def _folds(groups: Ints, folds: int, seed: int) -> Ints:
    """Deal groups into folds of equal number, shuffled."""
    _, dense = np.unique(groups, return_inverse=True)
    n = int(dense.max()) + 1
    dealt: Ints = np.random.default_rng(seed).permutation(np.arange(n) % folds)[dense]
    return dealt


def _fit(model: Callable[[], Any], inputs: Floats, rewards: Floats) -> Callable[[Floats], Floats]:
    if len(rewards) < 2:
        raise ValueError("a fold of the reward model has fewer than two rounds to learn from; take fewer folds")
    positive = rewards > 0
    if positive.all() or not positive.any():
        level = float(rewards.mean())
        return lambda rows: np.full(len(rows), level)
    worth = float(rewards[positive].mean())
    learned = model().fit(inputs, positive.astype(np.int64))
    return lambda rows: worth * np.asarray(learned.predict_proba(rows)[:, 1])

"""With what probability each candidate takes a slot, and the draw from it. Knows no policy and no placement.

The vector of probabilities is computed first and then drawn from: what is logged is exactly what was drawn with.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]

LOWEST, TINY = float(np.finfo(np.float64).min), float(np.finfo(np.float64).tiny)
FAINT = 1e-280
"""A sum of weights below this says little of their ratios: they are made anew."""
GOLDEN = np.array(0x9E3779B97F4A7C15, dtype=np.uint64)
# Arrays, as above: a number would be made one at every call.
_30, _27, _31, _11 = (np.array(bits, dtype=np.uint64) for bits in (30, 27, 31, 11))
MIX_1, MIX_2 = (np.array(word, dtype=np.uint64) for word in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_UNIT = np.array(2.0**-53)


def draws(keys: Keys, n_draws: int) -> Floats:
    """Derive uniform draws from each customer's key: splitmix64 (Steele, Lea, Flood 2014) as a counter-based mix.

    Args:
        keys: (n_customers,) uint64.

    Returns:
        (n_draws, n_customers) in [0, 1), multiples of 2^-53.
    """
    return mix(keys + _steps(n_draws))


@lru_cache(maxsize=64)
def _steps(n_draws: int) -> Keys:
    steps: Keys = np.arange(1, n_draws + 1, dtype=np.uint64)[:, None] * GOLDEN
    return steps


def mix(words: Keys) -> Floats:
    """Mix 64-bit words by splitmix64's finaliser, to numbers in [0, 1), multiples of 2^-53; any shape."""
    z = words >> _30
    z ^= words
    z *= MIX_1
    z ^= z >> _27
    z *= MIX_2
    z ^= z >> _31
    z >>= _11
    mixed: Floats = z * _UNIT
    return mixed


def greedy_mix(scores: Floats, is_available: Bools, epsilons: Floats) -> Floats:
    """Give (1 - epsilon) to the best candidate and epsilon to all evenly; 0 is greedy, 1 uniform.

    Args:
        scores: (n_customers, m); ties go to the first candidate.
        is_available: (n_customers, m).
        epsilons: (n_customers, 1).

    Returns:
        (n_customers, m) probabilities; a row without an available candidate is all 0.
    """
    n_available = np.add.reduce(is_available, axis=1, keepdims=True)
    probabilities: Floats = is_available * (epsilons / np.maximum(n_available, 1))
    best = np.where(is_available, scores, -np.inf).argmax(axis=1)
    probabilities[np.arange(len(scores)), best] += ((1.0 - epsilons) * (n_available > 0))[:, 0]
    return probabilities


class Softmax:
    """The softmax of the same scores among ever fewer candidates: the weights are made once.

    Args:
        scores: (n_customers, m). is_open: (n_customers, m) who may ever be available. temperature: as of `softmax`.
    """

    def __init__(self, scores: Floats, is_open: Bools, temperature: float) -> None:
        self._scores, self._temperature = scores, temperature
        self._weights = _weights(scores, is_open, temperature)

    def probabilities(self, is_available: Bools) -> Floats:
        """Return as of `softmax`; `is_available`: of those open."""
        probabilities: Floats = self._weights * is_available
        total = np.add.reduce(probabilities, axis=1, keepdims=True)
        if total.min() < FAINT:
            faint = (total[:, 0] < FAINT).nonzero()[0]
            probabilities[faint] = _weights(self._scores[faint], is_available[faint], self._temperature)
            total[faint] = np.maximum(np.add.reduce(probabilities[faint], axis=1, keepdims=True), TINY)
        probabilities /= total
        return probabilities


def softmax(scores: Floats, is_available: Bools, temperature: float) -> Floats:
    """Give each available candidate a probability in proportion to exp(score / temperature).

    Args:
        scores: (n_customers, m). temperature: in units of the score, above 0.

    Returns:
        (n_customers, m) probabilities; a row without an available candidate is all 0.
    """
    return Softmax(scores, is_available, temperature).probabilities(is_available)


def _weights(scores: Floats, is_open: Bools, temperature: float) -> Floats:
    weights = np.where(is_open, scores, -np.inf)
    weights -= np.maximum.reduce(weights, axis=1, keepdims=True, initial=LOWEST)  # finite, if nothing is open too
    weights /= temperature
    np.exp(weights, out=weights)
    return weights


def draw(probabilities: Floats, uniforms: Floats) -> Ints:
    """Draw one candidate a row by inversion.

    Args:
        probabilities: (n_customers, m). uniforms: (n_customers,) in [0, 1).

    Returns:
        (n_customers,) positions; -1 where the row is all 0.
    """
    cumulative = probabilities.cumsum(axis=1)
    # Those not above come first, since sums never fall; a candidate of probability 0 repeats its predecessor's sum and
    # can never be the first above. Where the total is 0 nobody is above, and there are m of them.
    n_passed: Ints = np.add.reduce(cumulative <= (cumulative[:, -1] * uniforms)[:, None], axis=1)
    drawn: Ints = _positions(probabilities.shape[1]).take(n_passed)
    return drawn


@lru_cache(maxsize=64)
def _positions(m: int) -> Ints:
    """(m + 1,) every position, and -1 for none."""
    return np.append(np.arange(m), -1)

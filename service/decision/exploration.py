"""With what probability each candidate takes a slot, and the draw from it. Knows no policy and no placement.

The vector of probabilities is computed first and then drawn from: what is logged is exactly what was drawn with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
LOWEST, TINY = float(np.finfo(np.float64).min), float(np.finfo(np.float64).tiny)
_30, _27, _31, _11 = (np.uint64(bits) for bits in (30, 27, 31, 11))
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def draws(keys: Keys, n_draws: int) -> Floats:
    """Derive uniform draws from each customer's key: splitmix64 (Steele, Lea, Flood 2014) as a counter-based mix.

    Args:
        keys: (n_customers,) uint64.

    Returns:
        (n_draws, n_customers) in [0, 1), multiples of 2^-53.
    """
    return mix(keys + np.arange(1, n_draws + 1, dtype=np.uint64)[:, None] * GOLDEN)


def mix(words: Keys) -> Floats:
    """Mix 64-bit words by splitmix64's finaliser, to numbers in [0, 1), multiples of 2^-53; any shape."""
    z = (words ^ (words >> _30)) * MIX_1
    z = (z ^ (z >> _27)) * MIX_2
    z ^= z >> _31
    mixed: Floats = (z >> _11).astype(np.float64) * 2.0**-53
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


def softmax(scores: Floats, is_available: Bools, temperature: float) -> Floats:
    """Give each available candidate a probability in proportion to exp(score / temperature).

    Args:
        scores: (n_customers, m). temperature: in units of the score, above 0.

    Returns:
        (n_customers, m) probabilities; a row without an available candidate is all 0.
    """
    weights = np.where(is_available, scores, -np.inf)
    weights -= np.maximum.reduce(weights, axis=1, keepdims=True, initial=LOWEST)  # finite, if nothing is available too
    weights /= temperature
    np.exp(weights, out=weights)
    weights /= np.maximum(np.add.reduce(weights, axis=1, keepdims=True), TINY)
    return weights


def draw(probabilities: Floats, uniforms: Floats) -> Ints:
    """Draw one candidate a row by inversion.

    Args:
        probabilities: (n_customers, m). uniforms: (n_customers,) in [0, 1).

    Returns:
        (n_customers,) positions; -1 where the row is all 0.
    """
    cumulative = probabilities.cumsum(axis=1)
    total = cumulative[:, -1]
    # Strictly above: a candidate of probability 0 repeats its predecessor's sum and can never be the first above.
    chosen = (cumulative > (uniforms * total)[:, None]).argmax(axis=1)
    return np.where(total > 0, chosen, -1)

"""Intervals by resampling whole customers: for any statistic of sums. Knows nothing of what is summed.

A customer's decisions hang together, so the customer is what is drawn. Everything that off-policy estimates, uplift
measures and reports need is a function of a few sums, which makes a resample one product of counts and sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Statistic = Callable[[Floats], Floats]
"""Sums (..., n_components) -> values (...)."""

RESAMPLES, SEED, LEVEL = 1_000, 20170901, 0.95
CHUNK_CELLS = 4_000_000
"""Counts held at once: 32 MB."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval, both ends included."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Say whether zero lies outside."""
        return self.low > 0.0 or self.high < 0.0

    def __str__(self) -> str:
        return f"{self.value:.6g} [{self.low:.6g}, {self.high:.6g}]"


def mean_of(sums: Floats) -> Floats:
    """Return first sum / second sum: the mean where the second counts."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = sums[..., 0] / sums[..., 1]
    return ratio


def sums_by(codes: Ints, components: Floats) -> Floats:
    """Sum the rows of each code, (n_codes, n_components); codes need not be dense."""
    _, dense = np.unique(codes, return_inverse=True)
    n = int(dense.max()) + 1
    return np.column_stack([np.bincount(dense, column, n) for column in components.T])


def resampled(sums: Floats, statistic: Statistic, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """Return the statistic of `resamples` samples of customers drawn with replacement, (resamples,).

    Args:
        sums: (n_customers, n_components) sums of each customer.
    """
    random = np.random.default_rng(seed)
    n = len(sums)
    chunk = max(1, min(resamples, CHUNK_CELLS // n))
    values = np.empty(resamples)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = random.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        values[start : start + size] = statistic(counts @ sums)
    return values


def interval(
    sums: Floats,
    statistic: Statistic = mean_of,
    *,
    method: str = "bca",
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """Return the statistic of all customers with its bootstrap interval.

    Args:
        sums: (n_customers, n_components) sums of each customer.
        method: `percentile`, or `bca`: corrected for bias and acceleration (Efron 1987), the acceleration by leaving
            out each customer once. BCa follows the skew that few positives under large weights bring.
        level: Share of intervals that cover the truth.

    Raises:
        ValueError: for fewer than two customers or another method.
    """
    if method not in ("bca", "percentile"):
        raise ValueError(f"interval method {method!r} is unknown; take 'bca' or 'percentile'")
    if len(sums) < 2:
        raise ValueError("an interval needs at least two customers; collect more of the log")
    total = sums.sum(axis=0)
    value = float(statistic(total))
    drawn = resampled(sums, statistic, resamples, seed)
    drawn = np.sort(drawn[~np.isnan(drawn)])
    if not len(drawn):
        return Interval(value, np.nan, np.nan)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _corrected(tails, drawn, value, statistic(total - sums))
    low, high = np.quantile(drawn, tails)
    return Interval(value, float(low), float(high))


def _corrected(tails: Floats, drawn: Floats, value: float, left_out: Floats) -> Floats:
    """Move the tails for bias and acceleration; where nothing varies they stay."""
    # Half of the ties on each side: a statistic of few positives has many.
    below = (np.searchsorted(drawn, value, "left") + np.searchsorted(drawn, value, "right")) / (2 * len(drawn))
    apart = np.nanmean(left_out) - left_out
    spread = np.nansum(apart**2)
    if not 0.0 < below < 1.0 or spread == 0.0:
        return tails
    acceleration = np.nansum(apart**3) / (6.0 * spread**1.5)
    bias = ndtri(below)
    shifted = bias + ndtri(tails)
    moved: Floats = ndtr(bias + shifted / (1.0 - acceleration * shifted))
    return moved

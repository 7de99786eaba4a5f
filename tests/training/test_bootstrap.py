"""Intervals by customer."""

from __future__ import annotations

import numpy as np
import pytest

from training.bootstrap import interval, mean_of, resampled, sums_by


def test_a_resample_is_a_draw_of_whole_customers():
    """The values of the vectorised bootstrap are those of drawing customers one by one with the same generator."""
    random = np.random.default_rng(1)
    sums = np.column_stack([random.poisson(2.0, 40), np.full(40, 3.0)])
    drawn = np.random.default_rng(5).integers(0, 40, (30, 40))
    expected = [sums[rows, 0].sum() / sums[rows, 1].sum() for rows in drawn]
    assert np.allclose(resampled(sums, mean_of, 30, seed=5), expected, rtol=1e-12)


def test_rows_of_one_customer_count_as_one():
    """Repeating every row of a customer ten times leaves the interval of the mean as it is."""
    rewards = np.random.default_rng(2).binomial(1, 0.3, 200).astype(float)
    once = interval(sums_by(np.arange(200), np.column_stack([rewards, np.ones(200)])), seed=3)
    tenfold = np.repeat(rewards, 10)
    repeated = interval(sums_by(np.repeat(np.arange(200), 10), np.column_stack([tenfold, np.ones(2_000)])), seed=3)
    assert (once.low, once.high) == pytest.approx((repeated.low, repeated.high), rel=1e-12)


def test_bca_follows_skew():
    """For a skewed mean BCa lies to the right of the percentiles, for a symmetric one on them."""
    random = np.random.default_rng(4)
    skewed = np.column_stack([random.lognormal(0, 1.2, 300), np.ones(300)])
    plain, corrected = (interval(skewed, method=m, resamples=4_000) for m in ("percentile", "bca"))
    assert corrected.low > plain.low
    assert corrected.high > plain.high
    half = random.normal(size=150)
    even = np.column_stack([np.concatenate([half, -half]), np.ones(300)])
    plain, corrected = (interval(even, method=m, resamples=4_000) for m in ("percentile", "bca"))
    assert abs(corrected.low - plain.low) < 0.03 * (plain.high - plain.low)


def test_what_cannot_be_resampled_is_refused():
    """One customer, or a method that is not there, is an error that says what to do."""
    with pytest.raises(ValueError, match="at least two customers"):
        interval(np.ones((1, 2)))
    with pytest.raises(ValueError, match="take 'bca' or 'percentile'"):
        interval(np.ones((5, 2)), method="normal")

"""The population stability index."""

from __future__ import annotations

import numpy as np
import pytest

from training.drift import Baseline, drift, reading


def test_the_index_is_the_textbook_sum():
    """Two bins with shares .5/.5 then and .8/.2 now have an index of .3 ln 1.6 - .3 ln .4."""
    then = np.repeat([0.0, 1.0], 100)
    now = np.repeat([0.0, 1.0], [80, 20])
    expected = 0.3 * np.log(0.8 / 0.5) - 0.3 * np.log(0.2 / 0.5)
    assert Baseline.of(then, bins=2).psi(now) == pytest.approx(expected, rel=1e-12)


def test_the_same_distribution_is_stable_and_another_is_shifted():
    """Fresh draws of one distribution read stable, a shift by one standard deviation reads shifted."""
    random = np.random.default_rng(0)
    baseline = Baseline.of(random.normal(size=5_000))
    assert reading(baseline.psi(random.normal(size=5_000))) == "stable"
    assert reading(baseline.psi(random.normal(0.35, 1.0, 5_000))) == "watch"
    assert reading(baseline.psi(random.normal(1.0, 1.0, 5_000))) == "shifted"


def test_missing_values_are_a_bin_of_their_own():
    """Values that begin to be missing raise the alarm though those that are left have not moved."""
    values = np.random.default_rng(1).normal(size=2_000)
    holed = np.where(np.arange(2_000) % 3 == 0, np.nan, values)
    assert reading(Baseline.of(values).psi(holed)) == "shifted"
    assert Baseline.of(holed).psi(holed) == 0.0


def test_a_baseline_survives_json_and_empty_data_have_no_index():
    """The document gives the same index; nothing to compare is NaN and reads unknown."""
    values = np.random.default_rng(2).exponential(size=500)
    again = Baseline.from_document(Baseline.of(values).document())
    assert again.psi(values * 2) == Baseline.of(values).psi(values * 2)
    assert reading(again.psi(np.empty(0))) == "unknown"
    assert reading(Baseline.of(np.empty(0)).psi(values)) == "unknown"


def test_the_greatest_shift_comes_first():
    """Drift over many columns lists the most shifted first, and those without an index last."""
    random = np.random.default_rng(3)
    then = {name: random.normal(size=900) for name in ("still", "moved", "gone")}
    now = {"still": random.normal(size=900), "moved": random.normal(3.0, 1.0, 900), "gone": np.empty(0)}
    assert list(drift(then, now)) == ["moved", "still", "gone"]

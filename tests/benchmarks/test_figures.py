"""The arithmetic of the yardstick."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import Round, Window, medians, percentile, ratio
from benchmarks.load import parse_wrk


def window(requests: int, failures: int = 0) -> Window:
    return Window(requests, 2.0, 1.0, 2.0, 3.0, 4.0, failures)


def test_percentiles_are_values_that_were_measured():
    """The nearest-rank percentile is a measured value: of 1 to 100 the p-th percentile is p."""
    hundred = [float(i) for i in range(1, 101)]
    assert [percentile(hundred, p) for p in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7.0], 99) == 7
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.floats(0.01, 100))
def test_a_percentile_is_the_least_that_enough_values_do_not_exceed(values: list[float], percent: float):
    """At least that share of the values lies at or below the percentile, and of any smaller value fewer do."""
    ordered = sorted(values)
    found = percentile(ordered, percent)
    enough = percent / 100 * len(ordered)
    assert sum(value <= found for value in ordered) >= enough
    assert sum(value < found for value in ordered) < enough


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 100.1)])
def test_a_percentile_of_nothing_is_refused(values: list[float], percent: float):
    """Without a value, or outside (0, 100], there is no percentile."""
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, percent)


def test_a_window_of_latencies():
    """Seconds become milliseconds, and the rate is of the answers that came."""
    made = Window.of_latencies([0.003, 0.001, 0.002], 1.5, failures=2)
    assert (made.requests, made.p50_ms, made.p99_ms, made.failures, made.per_second) == (3, 2.0, 3.0, 2, 2.0)
    assert math.isnan(Window.of_latencies([], 1.0).p50_ms)


def test_medians_over_rounds():
    """Each figure is the median of its rounds; failures and degraded decisions add up; what no round has is none."""
    rounds = [
        Round(window(10), window(n, failures), cpu_ms=cpu, cpu_share=1.0, rss_mb=None, degraded=1)
        for n, failures, cpu in ((100, 1, 0.5), (900, 2, 0.1), (300, 0, 0.3))
    ]
    found = medians(rounds)
    assert found["many_per_second"] == 150
    assert found["cpu_ms"] == 0.3
    assert found["many_failures"] == 3
    assert found["degraded"] == 3
    assert found["rss_mb"] is None
    with pytest.raises(ValueError, match="one round"):
        medians([])


def test_a_ratio_that_says_nothing_is_none():
    """A ratio to nothing, to zero or with NaN is none rather than a number."""
    assert ratio(6.0, 3.0) == 2.0
    assert [ratio(1.0, 0.0), ratio(None, 1.0), ratio(1.0, None), ratio(math.nan, 1.0)] == [None] * 4


def test_answers_other_than_200_are_no_requests():
    """wrk counts refused requests as done; they are taken out of the rate and shown as failures."""
    made = parse_wrk("RESULT 1000 2000000 500 900 1500 2500 40")
    assert made == Window(960, 2.0, 0.5, 0.9, 1.5, 2.5, 40)

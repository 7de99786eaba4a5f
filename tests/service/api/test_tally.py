"""What is added up reaches the metrics as if each had been told by itself."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from service.api.tally import Tally

BOUNDS = (0.25, 0.5, 1.0)
NUMBERS = count()
"""Of metrics: where a process shares its own, as one that loaded Feast does, two of one name would add up."""


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0.0, 0.125, 0.25, 0.375, 0.5, 1.0, 1.5, 99.0]))),
    st.integers(1, 5),
)
def test_sums_are_those_of_each_told_alone(told: list[tuple[str, float]], handed_on_every: int) -> None:
    """Counters and histograms hold the same, however often the sums are handed on; a bound belongs to its bucket."""
    texts = []
    for is_added_up in (False, True):
        registry, tally = CollectorRegistry(), Tally()
        own = f"own{next(NUMBERS)}"
        counter = Counter(f"c_{own}", "words", ["name"], registry=registry)
        histogram = Histogram(f"h_{own}", "words", buckets=BOUNDS, registry=registry)
        counts, times = tally.counts(counter), tally.times(histogram, BOUNDS)
        for n, (name, seconds) in enumerate(told):
            if is_added_up:
                counts.add(name)
                times.observe(seconds)
                if n % handed_on_every == 0:
                    tally.hand_on()
            else:
                counter.labels(name).inc()
                histogram.observe(seconds)
        tally.hand_on()
        lines = generate_latest(registry).decode().replace(own, "own").splitlines()
        texts.append([line for line in lines if "created" not in line])
    assert texts[0] == texts[1]

"""Counts and times of requests, added up in plain numbers: a metric with its lock and its label look-ups costs more.

They reach the metrics when somebody looks, or every SHARE_SECONDS where other processes show them too. Belongs to the
event loop's thread; knows no metric's meaning.
"""

from __future__ import annotations

from bisect import bisect_left

from prometheus_client import Counter, Histogram

SHARE_SECONDS = 0.1
"""A killed process takes the counts of so long with it."""


class Counts:
    """Adds up for a counter with labels."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._waiting: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str) -> None:
        """Count one."""
        self._waiting[labels] = self._waiting.get(labels, 0) + 1

    def hand_on(self) -> None:
        """Tell the counter."""
        waiting, self._waiting = self._waiting, {}
        for labels, count in waiting.items():
            self._counter.labels(*labels).inc(count)


class Times:
    """Adds up for a histogram.

    Args:
        bounds: Upper bounds of the histogram's buckets, ascending.
    """

    def __init__(self, histogram: Histogram, bounds: tuple[float, ...]) -> None:
        self._histogram, self._bounds = histogram, bounds
        self._counts, self._seconds = [0] * (len(bounds) + 1), 0.0

    def observe(self, seconds: float) -> None:
        """Take note of a time; a bucket holds its upper bound."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def hand_on(self) -> None:
        """Tell the histogram, whose own `observe` takes one time only."""
        counts, seconds = self._counts, self._seconds
        self._counts, self._seconds = [0] * len(counts), 0.0
        for bucket, count in zip(self._histogram._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._histogram._sum.inc(seconds)


class Tally:
    """All that one process adds up."""

    def __init__(self) -> None:
        self._parts: list[Counts | Times] = []

    def counts(self, counter: Counter) -> Counts:
        """Add up for a counter from now on."""
        found = Counts(counter)
        self._parts.append(found)
        return found

    def times(self, histogram: Histogram, bounds: tuple[float, ...]) -> Times:
        """Add up for a histogram from now on, or for one of its children."""
        found = Times(histogram, bounds)
        self._parts.append(found)
        return found

    def hand_on(self) -> None:
        """Bring the metrics up to date."""
        for part in self._parts:
            part.hand_on()

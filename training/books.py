"""What a simulated day is worth, and to whom its contacts went. Adds up; decides nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Sums = dict[str, tuple[int, float]]
"""Name -> how many, and their true expected gain."""


@dataclass(frozen=True)
class Day:
    """One day's books.

    Attributes:
        decisions: How many were made. empty: how many of them showed nothing. shown: actions placed.
        gain: True expected gain over showing nothing, costs taken off, in the catalogue's currency.
        gross: Value of the responses that came, whether they would have come anyway or not.
        by_issue, by_stage, by_segment: Actions placed, and their gain. by_arm: decisions, and their gain.
        reached: Households with a contact in the last 30 days. tired: mean over households of their faded contacts.
    """

    day: int
    decisions: int
    empty: int
    shown: int
    gain: float
    gross: float
    by_issue: Sums
    by_stage: Sums
    by_segment: Sums
    by_arm: Sums
    reached: int
    tired: float


class Books:
    """Adds up one day."""

    def __init__(self, day: int) -> None:
        self._day = day
        self._decisions = self._empty = self._shown = 0
        self._gain = self._gross = 0.0
        self._issues, self._stages, self._segments, self._arms = (_Sums() for _ in range(4))

    def add(
        self,
        arms: Sequence[str],
        stages: Sequence[str],
        rows: Ints,
        issues: Sequence[str],
        gains: Floats,
        values: Floats,
        segments: Sequence[str],
    ) -> None:
        """Add the n decisions of one channel at one moment, and what they placed.

        Args:
            arms, stages: (n,) of each customer.
            rows: (n_placed,) customer of each action placed. issues, segments: (n_placed,).
            gains: (n_placed,) expected gain. values: (n_placed,) of the responses that came.
        """
        n = len(arms)
        self._decisions += n
        self._empty += int((np.bincount(rows, minlength=n) == 0).sum())
        self._shown += len(rows)
        self._gain += float(gains.sum())
        self._gross += float(values.sum())
        self._issues.add(issues, gains)
        self._stages.add([stages[row] for row in rows.tolist()], gains)
        self._segments.add(segments, gains)
        self._arms.add(arms, np.bincount(rows, gains, minlength=n).astype(np.float64))

    def closed(self, reached: int, tired: float) -> Day:
        """Return the day's books."""
        return Day(
            self._day, self._decisions, self._empty, self._shown, self._gain, self._gross, dict(self._issues),
            dict(self._stages), dict(self._segments), dict(self._arms), reached, tired,
        )  # fmt: skip


class _Sums(defaultdict[str, tuple[int, float]]):
    def __init__(self) -> None:
        super().__init__(lambda: (0, 0.0))

    def add(self, names: Sequence[str], gains: Floats) -> None:
        for name, gain in zip(names, gains.tolist(), strict=True):
            count, total = self[name]
            self[name] = count + 1, total + gain

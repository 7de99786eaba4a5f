"""What is left of the caps while the slots of one answer are filled. Knows counters and room; no score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from service.decision.contact_policy import CapTable

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Spending:
    """What is left of the caps while the slots of one answer are filled.

    Args:
        counters: (m, n_policies) as of `CapTable.counters_of` for the candidates.
        placed_counters: placement -> the same for caps on that placement, where there are any.
        room: (n_customers, n_counters) before this answer.
    """

    def __init__(
        self, caps: CapTable, counters: Ints, placed_counters: Mapping[str, Ints], room: Ints, n_slots: int
    ) -> None:
        self._caps, self._counters, self._placed_counters = caps, counters, placed_counters
        watched = caps.watched_counters
        self._is_tight = len(watched) > 0 and bool(room.take(watched, axis=1).min() < n_slots)
        self._room = room.copy() if self._is_tight else room

    def allows(self, placement: str) -> Bools | None:
        """Return (n_customers, m) what caps on the placement leave for its next slot; None for everything."""
        counters = self._placed_counters.get(placement)
        if counters is None or not self._is_tight:
            return None
        allowed: Bools = np.logical_and.reduce(has_room(self._room, counters), axis=2)
        return allowed

    def spend(self, placement: str, pick: Ints, is_left: Bools) -> None:
        """Take the placed actions' room, and close, in place, the candidates that have none left.

        Args:
            pick: (n_customers,) the candidate placed, -1 for none. is_left: (n_customers, m).
        """
        if not self._is_tight:
            return
        rows = np.flatnonzero(pick >= 0)
        placed = self._placed_counters.get(placement)
        for p in self._caps.spent_together:
            if p in self._caps.on_placements:
                if placed is not None:
                    self._take(rows, placed[pick[rows], p])
            else:
                counters = self._counters[:, p]
                self._take(rows, counters[pick[rows]])
                is_left &= has_room(self._room, counters)

    def _take(self, rows: Ints, counters: Ints) -> None:
        is_counted = counters >= 0
        self._room[rows[is_counted], counters[is_counted]] -= 1


def has_room(room: Ints, counters: Ints) -> Bools:
    """Return (n_customers, *counters.shape) whether there is room on counters; -1 always has."""
    return (room[:, counters] > 0) | (counters < 0)

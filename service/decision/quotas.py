"""How many actions of an issue or group an answer has: at most, and at least. Knows counts and slots; no score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.model import Action, Quota

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class QuotaTable:
    """The quotas of a channel's candidates as arrays.

    Attributes:
        quotas: In catalogue order.
        counter_of: (n_quotas, m) which counter a candidate counts on; the last one, `n_counters`, for none.
        least, most: (n_counters + 1,).
        placements: (n_counters + 1,) where a counter counts, "" for everywhere.
    """

    quotas: tuple[Quota, ...]
    counter_of: Ints
    least: Ints
    most: Ints
    placements: tuple[str, ...]

    @classmethod
    def of(cls, quotas: Sequence[Quota], actions: Sequence[Action]) -> QuotaTable:
        """Resolve the scopes of the quotas for candidates, given their actions."""
        counters: dict[tuple[int, str], int] = {}
        keys = [[_key(quota, action) for action in actions] for quota in quotas]
        for q, row in enumerate(keys):
            for key in row:
                if key is not None:
                    counters.setdefault((q, key), len(counters))
        none = len(counters)
        counter_of = [[none if key is None else counters[q, key] for key in row] for q, row in enumerate(keys)]
        of = [quotas[q] for q, _ in counters]
        return cls(
            tuple(quotas),
            np.array(counter_of, dtype=np.int64).reshape(len(quotas), len(actions)),
            np.array([*(quota.least for quota in of), 0], dtype=np.int64),
            np.array([*(quota.most for quota in of), np.iinfo(np.int64).max], dtype=np.int64),
            (*(quota.placement for quota in of), ""),
        )


class Counts:
    """What an answer has so far of each counter, while its slots are filled.

    Args:
        table: The quotas. fits: placement -> (m,) which candidates fit it.
        slots: Placement of each slot. limit: How many actions the answer may have.
        n_customers: Size of the batch.
    """

    def __init__(
        self, table: QuotaTable, fits: Mapping[str, Bools], slots: Sequence[str], limit: int, n_customers: int
    ) -> None:
        self._table = table
        self._used = np.zeros((n_customers, len(table.least)), dtype=np.int64)
        self._keeps = bool(table.least.any())
        # How many slots from here on could be a counter's: when it lacks as many, they are kept for it.
        could_be = np.array([[self._could_be(c, p, fits[p]) for c in range(len(table.least))] for p in slots])
        to_fill = np.maximum(min(limit, len(slots)) - np.arange(len(slots)), 1)
        self._slots_left = np.minimum(np.cumsum(could_be[::-1], axis=0)[::-1], to_fill[:, None])
        self._to_fill = to_fill

    def _could_be(self, counter: int, placement: str, fits: Bools) -> bool:
        here = self._table.placements[counter] in ("", placement)
        return here and bool(fits[(self._table.counter_of == counter).any(axis=0)].any())

    def allowed(self, is_available: Bools, slot: int, placement: str) -> Bools:
        """Return which of the available candidates the quotas allow in a slot, (n_customers, m)."""
        table = self._table
        counts_here = np.array([p in ("", placement) for p in table.placements])
        is_full = counts_here & (self._used >= table.most)
        for counters in table.counter_of:
            is_available = is_available & ~is_full[:, counters]
        if not self._keeps:
            return is_available
        missing = np.maximum(table.least - self._used, 0)
        left = self._slots_left[slot]
        is_short = (missing >= left) | (missing.sum(axis=1, keepdims=True) >= self._to_fill[slot])
        is_due = (missing > 0) & counts_here & is_short
        is_wanted: Bools = np.zeros_like(is_available)
        for counters in table.counter_of:
            is_wanted |= is_due[:, counters]
        is_wanted &= is_available
        return np.where(is_wanted.any(axis=1, keepdims=True), is_wanted, is_available)

    def add(self, pick: Ints, placement: str) -> None:
        """Count what was placed; -1 where nothing was."""
        rows = np.flatnonzero(pick >= 0)
        for counters in self._table.counter_of:
            counter = counters[pick[rows]]
            counts = np.array([p in ("", placement) for p in self._table.placements])[counter]
            self._used[rows, counter] += counts


def _key(quota: Quota, action: Action) -> str | None:
    key = {"issue": action.issue, "group": action.group}[quota.scope]
    return key if quota.scope_id in ("*", key) else None

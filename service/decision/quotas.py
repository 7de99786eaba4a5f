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
        counter_of: placement -> (n_quotas, m + 1) which counter a candidate counts on there; the last counter,
            `n_counters`, stands for none, and the last column for no candidate.
        could_be: placement -> (n_counters + 1,) whether a candidate that fits it counts there.
        least, most: (n_counters + 1,).
        keeps: Whether there is a least of anything, so that slots may have to be kept for it.
    """

    quotas: tuple[Quota, ...]
    counter_of: Mapping[str, Ints]
    could_be: Mapping[str, Bools]
    least: Ints
    most: Ints
    keeps: bool

    @classmethod
    def of(cls, quotas: Sequence[Quota], actions: Sequence[Action], fits: Mapping[str, Bools]) -> QuotaTable:
        """Resolve the scopes of the quotas for candidates, given their actions and which placements they fit."""
        counters: dict[tuple[int, str], int] = {}
        keys = [[_key(quota, action) for action in actions] for quota in quotas]
        for q, row in enumerate(keys):
            for key in row:
                if key is not None:
                    counters.setdefault((q, key), len(counters))
        none = len(counters)
        everywhere = np.full((len(quotas), len(actions) + 1), none, dtype=np.int64)
        for q, row in enumerate(keys):
            everywhere[q, :-1] = [none if key is None else counters[q, key] for key in row]
        counts_on = {p: np.array([quota.placement in ("", p) for quota in quotas], dtype=np.bool_) for p in fits}
        counter_of = {p: np.where(counts_on[p][:, None], everywhere, none) for p in fits}
        of = [quotas[q] for q, _ in counters]
        least = np.array([*(quota.least for quota in of), 0], dtype=np.int64)
        return cls(
            tuple(quotas),
            counter_of,
            {p: np.isin(np.arange(none + 1), counter_of[p][:, :-1][:, fits[p]]) for p in fits},
            least,
            np.array([*(quota.most for quota in of), np.iinfo(np.int64).max], dtype=np.int64),
            bool(least.any()),
        )


class Counts:
    """What an answer has so far of each counter, while its slots are filled.

    Args:
        table: The quotas.
        slots: Placement of each slot. limit: How many actions the answer may have.
        n_customers: Size of the batch.
    """

    def __init__(self, table: QuotaTable, slots: Sequence[str], limit: int, n_customers: int) -> None:
        self._table = table
        width = len(table.least)
        self._used = np.zeros((n_customers, width), dtype=np.int64)
        self._first = np.arange(0, n_customers * width, width)
        self._note_full()
        if table.keeps:
            # How many slots from here on could be a counter's: when it lacks as many, they are kept for it.
            could_be = np.array([table.could_be[placement] for placement in slots])
            self._to_fill = np.maximum(min(limit, len(slots)) - np.arange(len(slots)), 1)
            self._slots_left = np.minimum(np.cumsum(could_be[::-1], axis=0)[::-1], self._to_fill[:, None])

    def allowed(self, is_available: Bools, slot: int, placement: str) -> Bools:
        """Return which of the available candidates the quotas allow in a slot, (n_customers, m)."""
        table, counter_of = self._table, self._table.counter_of[placement][:, :-1]
        if self._is_any_full:
            is_full = self._is_full.take(counter_of.ravel(), axis=1).reshape(-1, *counter_of.shape)
            is_available = is_available > np.logical_or.reduce(is_full, axis=1)
        if not table.keeps:
            return is_available
        missing = np.maximum(table.least - self._used, 0)
        is_short = missing >= self._slots_left[slot]
        is_short |= missing.sum(axis=1, keepdims=True) >= self._to_fill[slot]
        is_due = (missing > 0) & is_short
        is_wanted: Bools = np.zeros_like(is_available)
        for counters in counter_of:
            is_wanted |= is_due[:, counters]
        is_wanted &= is_available
        return np.where(is_wanted.any(axis=1, keepdims=True), is_wanted, is_available)

    def add(self, pick: Ints, placement: str) -> None:
        """Count what was placed; -1 where nothing was."""
        self._used.ravel()[self._first + self._table.counter_of[placement].take(pick, axis=1)] += 1
        self._note_full()

    def _note_full(self) -> None:
        self._is_full = self._used >= self._table.most
        self._is_any_full = np.count_nonzero(self._is_full) > 0


def _key(quota: Quota, action: Action) -> str | None:
    key = {"issue": action.issue, "group": action.group}[quota.scope]
    return key if quota.scope_id in ("*", key) else None

"""Fills the slots of an answer one by one, without replacement. Knows arms, exploration and what the caps leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision import exploration
from service.decision.compiled import ChannelPlan, CompiledCatalogue
from service.decision.contact_policy import CapTable
from service.decision.experiment import PROPENSITY_ONLY, RANDOM
from service.decision.model import Choice, Exploration, Request, Stage

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Placed:
    """What a selection placed.

    Attributes:
        slots: (n_slots,) placement of each slot.
        picks: (n_slots, n_customers) candidate of each slot, -1 where it stayed empty.
        distributions: (n_slots, n_customers, m).
    """

    slots: tuple[str, ...]
    picks: Ints
    distributions: Floats

    def choices(self) -> list[tuple[Choice, ...]]:
        """Return what was placed for each customer, in order."""
        n_slots, n_customers = self.picks.shape
        taken = self.distributions[np.arange(n_slots)[:, None], np.arange(n_customers), self.picks]
        return [
            tuple([Choice(*choice) for choice in zip(picks, self.slots, chances, strict=True) if choice[0] >= 0])
            for picks, chances in zip(self.picks.T.tolist(), taken.T.tolist(), strict=True)
        ]

    def mark(self, stages: NDArray[np.int8], stage: Stage, rows: Ints | None = None) -> None:
        """Set the stage, in place, of what was placed; `rows` are the customers' rows in `stages` if not the same."""
        slots, customers = np.nonzero(self.picks >= 0)
        stages[customers if rows is None else rows[customers], self.picks[slots, customers]] = stage


def slots_of(plan: ChannelPlan, request: Request) -> tuple[str, ...]:
    """Return the placement of every slot that the request asks for, in order; all of the channel if it names none."""
    sizes = dict(plan.placements)
    asked = request.placements or plan.placements
    return tuple(name for name, count in asked for _ in range(min(count, sizes.get(name, 0))))


def select(
    catalogue: CompiledCatalogue,
    plan: ChannelPlan,
    request: Request,
    is_open: Bools,
    propensities: Floats,
    priorities: Floats,
    room: Ints,
    arms: Sequence[str],
    keys: NDArray[np.uint64],
) -> Placed:
    """Fill the slots.

    Args:
        is_open: (n_customers, m) which candidates may be placed.
        propensities, priorities: (n_customers, m).
        room: (n_customers, n_counters) what the caps leave before this answer.
        arms: (n_customers,) the hold-out is filled as nba.
        keys: (n_customers,) one random key a customer.
    """
    slots = slots_of(plan, request)
    n, m = is_open.shape
    picks = np.full((len(slots), n), -1, dtype=np.int64)
    distributions = np.zeros((len(slots), n, m))
    if not m or not slots:
        return Placed(slots, picks, distributions)
    strategy = _Strategy(catalogue.catalogue.exploration, propensities, priorities, arms)
    uniforms = exploration.draws(keys, len(slots))
    shared = _Shared(catalogue.caps, plan, room, len(slots))
    is_left = is_open.copy()
    n_placed = np.zeros(n, dtype=np.int64)
    for k, placement in enumerate(slots):
        is_available = is_left & plan.fits[placement]
        if k >= request.limit:
            is_available &= (n_placed < request.limit)[:, None]
        distributions[k] = strategy.probabilities(is_available)
        pick = picks[k] = exploration.draw(distributions[k], uniforms[k])
        is_placed = pick >= 0
        n_placed += is_placed
        placed_slots = np.where(is_placed, plan.action_slots[pick], -1)
        is_left &= plan.action_slots != placed_slots[:, None]
        shared.spend(pick, is_placed, is_left)
    return Placed(slots, picks, distributions)


class _Strategy:
    """Scores and exploration by arm, resolved once for all slots."""

    def __init__(self, exploring: Exploration, propensities: Floats, priorities: Floats, arms: Sequence[str]) -> None:
        epsilon = exploring.parameter if exploring.strategy == "epsilon_greedy" else 0.0
        by_arm = {RANDOM: 1.0, PROPENSITY_ONLY: 0.0}
        self.epsilons = np.array([by_arm.get(arm, epsilon) for arm in arms])[:, None]
        self.temperature = exploring.parameter if exploring.strategy == "softmax" else 0.0
        self.is_soft = np.array([arm not in by_arm for arm in arms], dtype=np.bool_)[:, None]
        self.scores = priorities
        if PROPENSITY_ONLY in arms:
            is_plain = np.array([arm == PROPENSITY_ONLY for arm in arms])[:, None]
            self.scores = np.where(is_plain, propensities, priorities)

    def probabilities(self, is_available: Bools) -> Floats:
        if self.temperature <= 0:
            return exploration.greedy_mix(self.scores, is_available, self.epsilons)
        soft = exploration.softmax(self.scores, is_available, self.temperature)
        if self.is_soft.all():
            return soft
        return np.where(self.is_soft, soft, exploration.greedy_mix(self.scores, is_available, self.epsilons))


class _Shared:
    """Caps that several actions of one answer could use up together."""

    def __init__(self, caps: CapTable, plan: ChannelPlan, room: Ints, n_slots: int) -> None:
        self.counters, self.room = plan.counters, room
        is_tight = bool(room[:, caps.spent_counters].min(initial=n_slots) < n_slots)
        self.caps = caps.spent_together if is_tight else ()
        if is_tight:
            self.room = room.copy()

    def spend(self, pick: Ints, is_placed: Bools, is_left: Bools) -> None:
        """Take the placed actions' room, and close, in place, the candidates that have none left."""
        if not self.caps:
            return
        rows = np.flatnonzero(is_placed)
        for c in self.caps:
            counters = self.counters[:, c]
            spent = counters[pick[rows]]
            is_counted = spent >= 0
            self.room[rows[is_counted], spent[is_counted]] -= 1
            is_left &= (self.room[:, counters] > 0) | (counters < 0)

"""Fills the slots of an answer one by one, without replacement. Knows arms, exploration and what the caps leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision import exploration
from service.decision.compiled import ChannelPlan, CompiledCatalogue
from service.decision.experiment import PROPENSITY_ONLY, RANDOM
from service.decision.model import Choice, Request

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

    def choices(self, customer: int) -> tuple[Choice, ...]:
        """Return what was placed for one customer, in order."""
        return tuple(
            Choice(int(pick), slot, float(self.distributions[k, customer, pick]))
            for k, (slot, pick) in enumerate(zip(self.slots, self.picks[:, customer].tolist(), strict=True))
            if pick >= 0
        )


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
    if not m:
        return Placed(slots, picks, distributions)
    strategy = _Strategy(catalogue, propensities, priorities, arms)
    uniforms = exploration.draws(keys, len(slots))
    shared = _Shared.of(catalogue, plan, room, len(slots))
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
        is_left &= ~(is_placed[:, None] & (plan.action_slots == plan.action_slots[pick][:, None]))
        shared.spend(pick, is_placed, is_left)
    return Placed(slots, picks, distributions)


class _Strategy:
    """Scores and exploration by arm, resolved once for all slots."""

    def __init__(
        self, catalogue: CompiledCatalogue, propensities: Floats, priorities: Floats, arms: Sequence[str]
    ) -> None:
        exploring = catalogue.catalogue.exploration
        epsilon = exploring.parameter if exploring.strategy == "epsilon_greedy" else 0.0
        is_random = np.array([arm == RANDOM for arm in arms], dtype=np.bool_)[:, None]
        is_plain = np.array([arm == PROPENSITY_ONLY for arm in arms], dtype=np.bool_)[:, None]
        self.scores = np.where(is_plain, propensities, priorities) if is_plain.any() else priorities
        self.epsilons = np.where(is_random, 1.0, np.where(is_plain, 0.0, epsilon))
        self.temperature = exploring.parameter if exploring.strategy == "softmax" else 0.0
        self.is_soft = ~(is_random | is_plain)

    def probabilities(self, is_available: Bools) -> Floats:
        mixed = exploration.greedy_mix(self.scores, is_available, self.epsilons)
        if self.temperature <= 0:
            return mixed
        return np.where(self.is_soft, exploration.softmax(self.scores, is_available, self.temperature), mixed)


class _Shared:
    """Caps that several actions of one answer could use up together."""

    def __init__(self, room: Ints, counters: Ints, cap_positions: Ints) -> None:
        self.room, self.counters, self.cap_positions = room, counters, cap_positions

    @classmethod
    def of(cls, catalogue: CompiledCatalogue, plan: ChannelPlan, room: Ints, n_slots: int) -> _Shared:
        # A counter of a single action needs no care: no action is placed twice in an answer.
        caps = [
            c
            for c, cap in enumerate(catalogue.catalogue.caps)
            if cap.scope != "action" and catalogue.caps.is_spent[catalogue.caps.cap_of == c].any()
        ]
        tight = [c for c in caps if room[:, catalogue.caps.cap_of == c].min(initial=n_slots) < n_slots]
        return cls(room.copy() if tight else room, plan.counters, np.array(tight, dtype=np.int64))

    def spend(self, pick: Ints, is_placed: Bools, is_left: Bools) -> None:
        """Take the placed actions' room, and close, in place, the candidates that have none left."""
        rows = np.flatnonzero(is_placed)
        for c in self.cap_positions:
            counters = self.counters[:, c]
            spent = counters[pick[rows]]
            is_counted = spent >= 0
            self.room[rows[is_counted], spent[is_counted]] -= 1
            is_left &= (self.room[:, counters] > 0) | (counters < 0)

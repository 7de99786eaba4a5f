"""Fills the slots of an answer one by one, without replacement. Knows quotas and what the caps leave, no score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision import exploration
from service.decision.channel_plan import ChannelPlan
from service.decision.compiled import CompiledCatalogue
from service.decision.eligibility import closed_placements
from service.decision.model import Choice, Decisions, Request, Stage
from service.decision.quotas import Counts
from service.decision.spending import Spending
from service.decision.strategy import Strategy

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
_choice = Choice._make


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
            tuple([_choice(placed) for placed in zip(picks, self.slots, chances, strict=True) if placed[0] >= 0])
            for picks, chances in zip(self.picks.T.tolist(), taken.T.tolist(), strict=True)
        ]

    def mark(self, stages: NDArray[np.int8], stage: Stage, rows: Ints | None = None) -> None:
        """Set the stage, in place, of what was placed; `rows` are the customers' rows in `stages` if not the same."""
        slots, customers = (self.picks >= 0).nonzero()
        stages[customers if rows is None else rows[customers], self.picks[slots, customers]] = stage


def slots_of(plan: ChannelPlan, request: Request) -> tuple[str, ...]:
    """Return the placement of every slot that the request asks for, in order; all of the channel if it names none."""
    sizes = dict(plan.placements)
    asked = request.placements or plan.placements
    return tuple(name for name, count in asked for _ in range(min(count, sizes.get(name, 0))))


def select(
    catalogue: CompiledCatalogue,
    plan: ChannelPlan,
    decisions: Decisions,
    is_open: Bools,
    keys: NDArray[np.uint64],
    forced: Ints | None = None,
) -> Placed:
    """Fill the slots.

    Args:
        decisions: Arbitrated: with arms, propensities, priorities, what stands behind them, and what the caps leave.
        is_open: (n_customers, m) which candidates may be placed.
        keys: (n_customers,) one random key a customer.
        forced: (n_slots, n_customers) candidates to take instead of drawing, -1 for none; distributions are then given
            what was forced before.
    """
    request = decisions.request
    slots = slots_of(plan, request)
    n, m = is_open.shape
    picks = np.full((len(slots), n), -1, dtype=np.int64)
    distributions = np.empty((len(slots), n, m))
    if not m or not slots:
        return Placed(slots, picks, distributions)
    strategy = Strategy(catalogue.catalogue.exploration, plan, decisions, is_open)
    uniforms = exploration.draws(keys, len(slots))
    spending = Spending(catalogue.caps, plan.counters, plan.placed_counters, decisions.room, len(slots))
    counts = Counts(plan.quotas, slots, request.limit, n) if plan.quotas.quotas else None
    shut = closed_placements(catalogue, plan, decisions.as_of, decisions.extras)
    is_left = is_open.copy()
    n_placed = np.zeros(n, dtype=np.int64)
    is_limited = request.limit < len(slots)
    for k, placement in enumerate(slots):
        is_available = is_left & plan.fits[placement]
        if placement in shut:
            is_available &= ~shut[placement]
        if (allowed := spending.allows(placement)) is not None:
            is_available &= allowed
        if is_limited:
            is_available &= (n_placed < request.limit)[:, None]
        if counts is not None:
            is_available = counts.allowed(is_available, k, placement)
        distributions[k] = strategy.probabilities(is_available)
        pick = exploration.draw(distributions[k], uniforms[k]) if forced is None else forced[k]
        picks[k] = pick
        if k + 1 == len(slots):
            break
        is_left &= plan.action_slots != plan.slots_of_picks.take(pick)[:, None]
        if is_limited:
            n_placed += pick >= 0
        spending.spend(placement, pick, is_left)
        if counts is not None:
            counts.add(pick, placement)
    return Placed(slots, picks, distributions)

"""What takes a slot, by arm: exploration on priorities, evenly at random, or the likeliest. Resolved once an answer.

What is mandatory comes first whatever the arm, the most valuable first. `random` draws evenly; `propensity_only` takes
the likeliest; all other arms draw by the catalogue's exploration, or take the best where the second layer says so.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.decision import exploration
from service.decision.channel_plan import ChannelPlan
from service.decision.experiment import PROPENSITY_ONLY, RANDOM, is_exploring
from service.decision.model import Decisions, Exploration
from service.decision.thompson import Posterior

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PLAIN_ARMS = (RANDOM, PROPENSITY_ONLY)


class Draws(Protocol):
    """Gives probabilities among ever fewer of the candidates that were open."""

    def probabilities(self, is_available: Bools) -> Floats:
        """Return (n_customers, m); a row without an available candidate is all 0."""


class Strategy:
    """Gives a slot's probabilities for the customers of arbitrated decisions.

    Args:
        is_open: (n_customers, m) which candidates may take any slot.
    """

    def __init__(self, exploring: Exploration, plan: ChannelPlan, decisions: Decisions, is_open: Bools) -> None:
        arms, layers, draws = decisions.arms, decisions.layers, exploring.strategy in ("softmax", "thompson")
        self._plan, self._scores = plan, decisions.priorities
        if PROPENSITY_ONLY in arms:
            is_plain = np.array([arm == PROPENSITY_ONLY for arm in arms])[:, None]
            self._scores = np.where(is_plain, decisions.propensities, decisions.priorities)
        plain = [arm in PLAIN_ARMS or not is_exploring(of) for arm, of in zip(arms, layers, strict=True)]
        self._plain_rows = [i for i, it_is in enumerate(plain) if it_is]
        self._is_drawn = ~np.array(plain)[:, None] if self._plain_rows else None
        if self._plain_rows or not draws:
            epsilon = exploring.parameter if exploring.strategy == "epsilon_greedy" else 0.0
            chances = [
                1.0 if arm == RANDOM else 0.0 if it_is else epsilon for arm, it_is in zip(arms, plain, strict=True)
            ]
            self._epsilons = np.array(chances)[:, None]
        self._draws: Draws | None = None
        if draws and len(self._plain_rows) < len(arms):
            may_be_drawn = is_open if self._is_drawn is None else is_open & self._is_drawn
            self._draws = _draws(exploring, plan, decisions, may_be_drawn)

    def probabilities(self, is_available: Bools) -> Floats:
        """Return (n_customers, m) P(the candidate takes the slot); a row without an available one is all 0."""
        if not self._plan.has_mandatory:
            return self._arbitrated(is_available)
        is_first = is_available & self._plan.is_mandatory
        must: Bools = np.logical_or.reduce(is_first, axis=1, keepdims=True)
        first = exploration.greedy_mix(self._scores, is_first, np.zeros((len(must), 1)))
        return np.where(must, first, self._arbitrated(is_available & ~must))

    def _arbitrated(self, is_available: Bools) -> Floats:
        if self._draws is None:
            return exploration.greedy_mix(self._scores, is_available, self._epsilons)
        if self._is_drawn is None:
            return self._draws.probabilities(is_available)
        rows, probabilities = self._plain_rows, self._draws.probabilities(is_available & self._is_drawn)
        probabilities[rows] = exploration.greedy_mix(self._scores[rows], is_available[rows], self._epsilons[rows])
        return probabilities


def _draws(exploring: Exploration, plan: ChannelPlan, decisions: Decisions, is_open: Bools) -> Draws:
    if exploring.strategy == "softmax":
        return exploration.Softmax(decisions.priorities, is_open, exploring.parameter)
    costs = plan.terms.costs
    gains = decisions.priorities + costs
    return Posterior.of(gains, costs, decisions.propensities, decisions.strengths, decisions.shifts)

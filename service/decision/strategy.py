"""What takes a slot, by arm: exploration on priorities, evenly at random, or the likeliest. Resolved once an answer.

What is mandatory comes first whatever the arm, the most valuable first. `random` draws evenly; `propensity_only` takes
the likeliest; all other arms draw by the catalogue's exploration, or take the best where the second layer says so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.decision import exploration
from service.decision.channel_plan import ChannelPlan
from service.decision.experiment import PROPENSITY_ONLY, RANDOM, is_exploring
from service.decision.model import Decisions, Exploration
from service.decision.thompson import Posterior, winning_probabilities

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PLAIN_ARMS = (RANDOM, PROPENSITY_ONLY)


class Strategy:
    """Gives a slot's probabilities for the customers of arbitrated decisions."""

    def __init__(self, exploring: Exploration, plan: ChannelPlan, decisions: Decisions) -> None:
        arms, draws = decisions.arms, exploring.strategy in ("softmax", "thompson")
        self._exploring, self._plan = exploring, plan
        self._scores = decisions.priorities
        if PROPENSITY_ONLY in arms:
            is_plain = np.array([arm == PROPENSITY_ONLY for arm in arms])[:, None]
            self._scores = np.where(is_plain, decisions.propensities, decisions.priorities)
        explores = [arm not in PLAIN_ARMS and is_exploring(of) for arm, of in zip(arms, decisions.layers, strict=True)]
        epsilon = exploring.parameter if exploring.strategy == "epsilon_greedy" else 0.0
        chances = [1.0 if arm == RANDOM else epsilon * explored for arm, explored in zip(arms, explores, strict=True)]
        self._epsilons = np.array(chances)[:, None]
        self._is_drawn: Bools = np.array(explores, dtype=np.bool_)[:, None]
        self._plain_rows = [i for i, explored in enumerate(explores) if not explored]
        self._draws_all, self._draws_any = draws and not self._plain_rows, draws and any(explores)
        self._posterior: Posterior | None = None
        if exploring.strategy == "thompson" and self._draws_any:
            gains = decisions.priorities + plan.terms.costs
            self._posterior = Posterior.of(
                gains, plan.terms.costs, decisions.propensities, decisions.strengths, decisions.shifts
            )

    def probabilities(self, is_available: Bools) -> Floats:
        """Return (n_customers, m) P(the candidate takes the slot); a row without an available one is all 0."""
        if not self._plan.has_mandatory:
            return self._arbitrated(is_available)
        is_first = is_available & self._plan.is_mandatory
        must = is_first.any(axis=1, keepdims=True)
        first = exploration.greedy_mix(self._scores, is_first, np.zeros_like(self._epsilons))
        return np.where(must, first, self._arbitrated(is_available & ~must))

    def _arbitrated(self, is_available: Bools) -> Floats:
        if self._draws_all:
            return self._drawn(is_available)
        if not self._draws_any:
            return exploration.greedy_mix(self._scores, is_available, self._epsilons)
        rows, probabilities = self._plain_rows, self._drawn(is_available & self._is_drawn)
        probabilities[rows] = exploration.greedy_mix(self._scores[rows], is_available[rows], self._epsilons[rows])
        return probabilities

    def _drawn(self, is_available: Bools) -> Floats:
        if self._posterior is not None:
            return winning_probabilities(self._posterior, is_available)
        return exploration.softmax(self._scores, is_available, self._exploring.parameter)

"""A small bandit whose every probability is known: twelve kinds of customer, five actions, a log and another policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.off_policy import Rounds
from training.reward_model import Pairs, cross_fit, direct

Floats = NDArray[np.float64]
KINDS, ACTIONS = 12, 5


@dataclass(frozen=True)
class BanditWorld:
    """P(reward), P(action) under the log's policy and under the new one, each (KINDS, ACTIONS)."""

    rates: Floats
    logging: Floats
    target: Floats

    @classmethod
    def made(cls, seed: int = 7) -> BanditWorld:
        """Draw a world; the new policy prefers other actions than the log's, and all have a chance in both."""
        random = np.random.default_rng(seed)
        appeal = random.normal(-1.6, 0.8, (KINDS, ACTIONS))
        logged = np.exp(0.7 * random.normal(size=(KINDS, ACTIONS)))
        judged = np.exp(0.8 * appeal + 0.5 * random.normal(size=(KINDS, ACTIONS)))
        rates = 1 / (1 + np.exp(-appeal))
        return cls(rates, logged / logged.sum(1, keepdims=True), judged / judged.sum(1, keepdims=True))

    @property
    def truth(self) -> float:
        """The new policy's value, all kinds of customer being equally frequent."""
        return float((self.rates * self.target).sum(axis=1).mean())

    def log(self, seed: int, customers: int = 1_500, *, with_model: bool = True) -> Rounds:
        """Draw a log: one to three decisions a customer."""
        random = np.random.default_rng(seed)
        kinds = random.integers(0, KINDS, customers)
        owner = np.repeat(np.arange(customers), random.integers(1, 4, customers))
        kind = kinds[owner]
        actions = (random.random(len(owner))[:, None] > np.cumsum(self.logging[kind], axis=1)).sum(axis=1)
        rewards = (random.random(len(owner)) < self.rates[kind, actions]).astype(float)
        more = {}
        if with_model:
            n = len(owner)
            pairs = Pairs(np.repeat(np.arange(n), ACTIONS), self.target[kind].ravel(), np.arange(n) * ACTIONS + actions)
            known = np.eye(KINDS)[kind]

            def inputs_of(numbers: NDArray[np.int64]) -> Floats:
                return np.column_stack([known[numbers // ACTIONS], np.eye(ACTIONS)[numbers % ACTIONS]])

            fitted = direct(cross_fit(inputs_of, pairs, rewards, groups=owner), pairs)
            more = {"expected": fitted.expected, "fitted": fitted.fitted}
        return Rounds.of_single_slots(owner, rewards, self.logging[kind, actions], self.target[kind, actions], **more)

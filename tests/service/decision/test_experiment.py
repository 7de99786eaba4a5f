"""Arms: sticky, in their shares, and independent of everything else that is drawn."""

from __future__ import annotations

import math

import numpy as np

from service.decision.experiment import assign_arms, fraction
from service.decision.exploration import draws
from service.decision.model import Experiment

EXPERIMENT = Experiment("e", "salt", (("nba", 0.85), ("holdout", 0.1), ("random", 0.05)))
IDS = [f"household-{i}" for i in range(20_000)]


def test_shares_are_kept() -> None:
    """Each arm's share among 20,000 customers lies within four binomial standard deviations."""
    arms, probabilities = assign_arms(EXPERIMENT, IDS)
    for name, share in EXPERIMENT.arms:
        deviation = math.sqrt(len(IDS) * share * (1 - share))
        assert abs(arms.count(name) - len(IDS) * share) < 4 * deviation
        assert (probabilities[np.array(arms) == name] == share).all()


def test_arms_are_sticky() -> None:
    """A customer's arm depends on the salt and the customer alone, not on who else is in the batch."""
    arms, _ = assign_arms(EXPERIMENT, IDS[:500])
    assert arms == tuple(assign_arms(EXPERIMENT, [customer])[0][0] for customer in IDS[:500])
    other, _ = assign_arms(Experiment("e", "other salt", EXPERIMENT.arms), IDS[:500])
    assert arms != other


def test_fraction_is_pinned() -> None:
    """The fraction of a customer never changes between versions: arms would be shuffled."""
    assert fraction("salt", "household-1") == 0.7872829804002681
    assert 0 <= fraction("", "") < 1


def test_draws_are_uniform_and_independent_of_the_slot() -> None:
    """Draws lie in [0, 1), fill twenty bins evenly, and those of two slots are uncorrelated."""
    uniforms = draws(np.arange(20_000, dtype=np.uint64), 3)
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    for row in uniforms:
        counts = np.bincount((row * 20).astype(int), minlength=20)
        assert ((counts - 1000) ** 2 / 1000).sum() < 19 + 4 * math.sqrt(38)
    assert abs(np.corrcoef(uniforms)[0, 1]) < 0.03


def test_draws_are_splitmix64() -> None:
    """The draws are those of splitmix64 seeded with the key: published outputs for seed 0."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert draws(np.zeros(1, np.uint64), 3)[:, 0].tolist() == [(word >> 11) * 2.0**-53 for word in published]

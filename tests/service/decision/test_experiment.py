"""Arms: sticky, in their shares, and independent of everything else that is drawn."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from service.decision.experiment import assign, digest_of, held_issues, is_exploring, uniform
from service.decision.exploration import draws
from service.decision.model import Experiment

ARMS = (("nba", 0.85), ("holdout", 0.1), ("random", 0.05))
EXPERIMENT = Experiment("e", "salt", ARMS)
LAYERED = Experiment(
    "e", "salt", ARMS, exploration=(("catalogued", 0.7), ("none", 0.3)), holdouts=(("retention", 0.2), ("upsell", 0.1))
)
IDS = [f"household-{i}" for i in range(20_000)]


def test_shares_are_kept() -> None:
    """Each arm's share among 20,000 customers lies within four binomial standard deviations, in every layer."""
    assigned = assign(LAYERED, IDS)
    expected = {
        **{("arms", arm): share for arm, share in ARMS},
        ("exploration", "none"): 0.3,
        ("holdout.retention", "held_out"): 0.2,
        ("holdout.upsell", "held_out"): 0.1,
    }
    found = Counter((layer, arm) for of in assigned.layers for layer, arm, _ in of)
    for key, share in expected.items():
        assert abs(found[key] - len(IDS) * share) < 4 * math.sqrt(len(IDS) * share * (1 - share)), key


def test_probability_is_the_product_over_layers() -> None:
    """A customer's arm probability is the product of the shares of the arms that it is in."""
    assigned = assign(LAYERED, IDS[:500])
    shares = dict(ARMS)
    for arm, of, probability in zip(assigned.arms, assigned.layers, assigned.probabilities, strict=True):
        explores = 0.7 if is_exploring(of) else 0.3
        held = held_issues(of)
        expected = shares[arm] * explores * (0.2 if "retention" in held else 0.8) * (0.1 if "upsell" in held else 0.9)
        assert abs(probability - expected) < 1e-15


def test_arms_are_sticky() -> None:
    """A customer's arm depends on the salt and the customer alone, not on who else is in the batch."""
    arms = assign(EXPERIMENT, IDS[:500]).arms
    assert arms == tuple(assign(EXPERIMENT, [customer]).arms[0] for customer in IDS[:500])
    assert arms != assign(Experiment("e", "other salt", ARMS), IDS[:500]).arms


def test_order_of_the_arms_means_nothing() -> None:
    """The same shares in another order give everyone the same arm."""
    assert assign(EXPERIMENT, IDS[:2000]).arms == assign(Experiment("e", "salt", ARMS[::-1]), IDS[:2000]).arms


def test_changed_shares_move_few() -> None:
    """Nobody moves into an arm whose share fell or out of one whose share rose, and few more move than must."""
    wider = Experiment("e", "salt", (("nba", 0.8), ("holdout", 0.1), ("random", 0.1)))
    moves = Counter(
        pair for pair in zip(assign(EXPERIMENT, IDS).arms, assign(wider, IDS).arms, strict=True) if pair[0] != pair[1]
    )
    assert not any(before == "random" or after == "nba" for before, after in moves)
    assert 0.045 < moves.total() / len(IDS) < 0.065


def test_layers_are_independent() -> None:
    """Which arm a customer has in one layer says nothing of another layer (chi-square of the table of pairs)."""
    assigned = assign(LAYERED, IDS)
    for first, second in ((0, 1), (0, 2), (1, 2), (2, 3)):
        pairs = Counter((of[first][1], of[second][1]) for of in assigned.layers)
        rows, columns = sorted({a for a, _ in pairs}), sorted({b for _, b in pairs})
        table = np.array([[pairs[a, b] for b in columns] for a in rows], dtype=np.float64)
        expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
        degrees = (len(rows) - 1) * (len(columns) - 1)
        assert ((table - expected) ** 2 / expected).sum() < degrees + 4 * math.sqrt(2 * degrees)


def test_without_a_challenger_its_customers_are_in_nba() -> None:
    """Where no challenger is loaded its arm is nba, with the share of both; nobody else moves."""
    experiment = Experiment("e", "salt", (("nba", 0.6), ("challenger", 0.3), ("holdout", 0.1)))
    loaded, missing = assign(experiment, IDS[:3000], has_challenger=True), assign(experiment, IDS[:3000])
    assert Counter(loaded.arms)["challenger"] > 0
    for before, after, probability in zip(loaded.arms, missing.arms, missing.probabilities, strict=True):
        assert after == ("nba" if before == "challenger" else before)
        assert abs(probability - (0.9 if after == "nba" else 0.1)) < 1e-12


def test_uniforms_are_pinned() -> None:
    """What a customer hashes to never changes between versions: arms would be shuffled."""
    digest = digest_of("salt", "arms", "household-1")
    assert [uniform(digest, place) for place in (0, 1)] == [0.39854927408005975, 0.17396545570807337]
    assert 0 < uniform(bytes(64), 0) < uniform(b"\xff" * 64, 7) <= 1


def test_draws_are_uniform_and_independent_of_the_slot() -> None:
    """Draws lie in [0, 1), fill twenty bins evenly, and those of two slots are uncorrelated."""
    drawn = draws(np.arange(20_000, dtype=np.uint64), 3)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for row in drawn:
        counts = np.bincount((row * 20).astype(int), minlength=20)
        assert ((counts - 1000) ** 2 / 1000).sum() < 19 + 4 * math.sqrt(38)
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.03


def test_draws_are_splitmix64() -> None:
    """The draws are those of splitmix64 seeded with the key: published outputs for seed 0."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert draws(np.zeros(1, np.uint64), 3)[:, 0].tolist() == [(word >> 11) * 2.0**-53 for word in published]

"""Thompson sampling: the probability of winning, against the Beta distributions that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import betainc

from service.decision.thompson import Posterior

Floats = NDArray[np.float64]
CANDIDATES = 19
chances = arrays(np.float64, (3, CANDIDATES), elements=st.floats(1e-6, 0.9))
values = arrays(np.float64, (3, CANDIDATES), elements=st.floats(-1, 30))
strengths = arrays(np.float64, (3, CANDIDATES), elements=st.floats(0.1, 1e6))
masks = arrays(np.bool_, (3, CANDIDATES))
costs = arrays(np.float64, CANDIDATES, elements=st.floats(0, 3))


def posterior(p: Floats, worth: Floats, strength: Floats, cost: Floats, shift: float = 1.0) -> Posterior:
    return Posterior.of(p * worth, cost, p, strength, np.full(p.shape, shift))


@given(chances, values, strengths, costs, masks)
def test_it_is_a_distribution_over_what_is_available(
    p: Floats, worth: Floats, strength: Floats, cost: Floats, is_available: NDArray[np.bool_]
) -> None:
    """Probabilities sum to 1 over the available candidates, whatever they are worth; nothing else has any."""
    won = posterior(p, worth, strength, cost).probabilities(is_available)
    assert (won >= 0).all()
    assert (won[~is_available] == 0).all()
    assert np.allclose(won.sum(axis=1), is_available.any(axis=1), atol=1e-12)


@given(chances, values, strengths, costs, masks)
def test_rows_do_not_know_of_each_other(
    p: Floats, worth: Floats, strength: Floats, cost: Floats, is_available: NDArray[np.bool_]
) -> None:
    """A row's probabilities are bit for bit the same alone and among others."""
    together = posterior(p, worth, strength, cost).probabilities(is_available)
    for i in range(len(p)):
        row = slice(i, i + 1)
        alone = posterior(p[row], worth[row], strength[row], cost).probabilities(is_available[row])
        assert alone.tobytes() == together[row].tobytes()


def by_quadrature(p: Floats, worth: Floats, strength: Floats, cost: Floats) -> Floats:
    """Integrate P(win) of the Beta distributions themselves on 20,000 points."""
    x = np.linspace(-cost.max(), (worth - cost).max(), 20_001)
    drawn = np.clip((x + cost[:, None]) / worth[:, None], 0, 1)
    below = betainc(strength[:, None], (strength * (1 - p) / p)[:, None], drawn)
    middle = (below[:, 1:] + below[:, :-1]) / 2
    others = np.array([np.delete(middle, i, axis=0).prod(axis=0) for i in range(len(p))])
    return (np.diff(below, axis=1) * others).sum(axis=1)


@pytest.mark.parametrize(("most_likely", "bound"), [(0.05, 0.02), (0.1, 0.03), (0.2, 0.05)])
@pytest.mark.parametrize("weights", ["one positive each", "1 to 1,000", "10 to 1,000", "new against known"])
def test_error_against_the_beta(most_likely: float, bound: float, weights: str) -> None:
    """No probability is off by more than is stated, for any weights, costs and values; most by far less."""
    rng = np.random.default_rng(7)
    errors = []
    for _ in range(25):
        m = int(rng.integers(2, 25))
        p, worth = rng.uniform(0.002, most_likely, m), rng.uniform(0.5, 15, m)
        if rng.random() < 0.4:  # a close race
            worth = 0.05 * rng.uniform(0.9, 1.1, m) / p
        strength = {
            "one positive each": np.ones(m),
            "1 to 1,000": 10 ** rng.uniform(0, 3, m),
            "10 to 1,000": 10 ** rng.uniform(1, 3, m),
            "new against known": rng.choice([1.0, 500.0], m),
        }[weights]
        cost = rng.choice([0.0, 0.01, 0.2], m)
        row = [a[None] for a in (p, worth, strength)]
        won = posterior(*row, cost).probabilities(np.ones((1, m), np.bool_))[0]
        errors.append(np.abs(won - by_quadrature(p, worth, strength, cost)).max())
    assert max(errors) < bound
    assert np.mean(errors) < bound / 2


def test_much_evidence_leaves_no_doubt() -> None:
    """With a million positives behind each the best by priority wins; with one, the others have their chance."""
    p, worth, cost = np.array([[0.02, 0.05, 0.04]]), np.array([[5.0, 3.0, 3.0]]), np.array([0.0, 0.0, 0.02])
    everything = np.ones((1, 3), np.bool_)
    sure = posterior(p, worth, np.full((1, 3), 1e6), cost).probabilities(everything)
    doubtful = posterior(p, worth, np.full((1, 3), 1.0), cost).probabilities(everything)
    assert sure.tolist() == [[0, 1, 0]]
    assert (doubtful > 0.1).all()


def test_equals_share_evenly() -> None:
    """Candidates that are the same in all win as often as each other, however many they are."""
    for m in (1, 2, 40):
        p = np.full((1, m), 0.03)
        won = posterior(p, p * 100, p * 300, np.zeros(m)).probabilities(np.ones((1, m), np.bool_))
        assert np.allclose(won, 1 / m, atol=1e-12)


def test_what_did_better_than_expected_wins_more_often() -> None:
    """A shift moves one candidate's whole distribution, up or down."""
    p, strength = np.full((1, 2), 0.03), np.full((1, 2), 20.0)
    won = [
        Posterior.of(p, np.zeros(2), p, strength, np.array([[shift, 1.0]])).probabilities(np.ones((1, 2), np.bool_))[
            0, 0
        ]
        for shift in (0.7, 0.9, 1.0, 1.1, 1.4)
    ]
    assert (np.diff(won) > 0.05).all()
    assert abs(won[2] - 0.5) < 1e-12


def test_what_gains_nothing_is_certain() -> None:
    """A candidate that gains nothing or loses is worth minus its loss and cost, and loses against any that gains."""
    gains, cost = np.array([[0.0, -0.3, 0.05, -0.1]]), np.array([0.0, 0.0, 0.0, 0.0])
    p = np.full((1, 4), 0.05)
    post = Posterior.of(gains, cost, p, np.ones((1, 4)), np.ones((1, 4)))
    assert post.probabilities(np.ones((1, 4), np.bool_))[0, 2] > 0.99
    without = post.probabilities(np.array([[False, True, False, True]]))
    assert np.allclose(without, [[0, 0, 0, 1]])

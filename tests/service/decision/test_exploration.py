"""Probabilities of a slot and the draw from them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.decision.exploration import draw, greedy_mix, softmax

scores = arrays(np.float64, (3, 7), elements=st.floats(-100, 100))
masks = arrays(np.bool_, (3, 7))


@given(scores, masks, st.floats(0, 1))
def test_greedy_mix_is_a_distribution(values: np.ndarray, is_available: np.ndarray, epsilon: float) -> None:  # type: ignore[type-arg]
    """The mix sums to 1 over what is available, gives each at least epsilon / n, and the best 1 - epsilon more."""
    mixed = greedy_mix(values, is_available, np.full((3, 1), epsilon))
    assert (mixed[~is_available] == 0).all()
    for row, mask, value in zip(mixed, is_available, values, strict=True):
        if mask.any():
            assert abs(row.sum() - 1) < 1e-12
            assert (row[mask] >= epsilon / mask.sum()).all()
            assert (
                row[np.where(mask, value, -np.inf).argmax()] == 1 - epsilon + epsilon / mask.sum()
                or abs(row.max() - (1 - epsilon + epsilon / mask.sum())) < 1e-15
            )
        else:
            assert (row == 0).all()


@given(scores, masks, st.floats(0.01, 100))
def test_softmax_is_a_distribution(values: np.ndarray, is_available: np.ndarray, temperature: float) -> None:  # type: ignore[type-arg]
    """Softmax sums to 1 over what is available, and orders probabilities as scores."""
    soft = softmax(values, is_available, temperature)
    assert (soft[~is_available] == 0).all()
    for row, mask, value in zip(soft, is_available, values, strict=True):
        if mask.any():
            assert abs(row.sum() - 1) < 1e-12
            order = np.argsort(value[mask], kind="stable")
            assert (np.diff(row[mask][order]) >= 0).all()
        else:
            assert (row == 0).all()


@given(scores, masks, st.floats(0, 1, exclude_max=True))
def test_draw_never_takes_what_is_impossible(values: np.ndarray, is_available: np.ndarray, uniform: float) -> None:  # type: ignore[type-arg]
    """Whatever the uniform, only a candidate of positive probability is drawn; an empty row draws none."""
    for probabilities in (softmax(values, is_available, 1.0), greedy_mix(values, is_available, np.zeros((3, 1)))):
        for row, pick in zip(probabilities, draw(probabilities, np.full(3, uniform)), strict=True):
            assert row[pick] > 0 if row.any() else pick == -1


def test_draw_at_the_ends() -> None:
    """The smallest and the largest uniform draw the first and the last possible candidate."""
    probabilities = np.array([[0.0, 0.1, 0.2, 0.7, 0.0]] * 2)
    assert draw(probabilities, np.array([0.0, 1 - 2**-53])).tolist() == [1, 3]


def test_ties_go_to_the_first() -> None:
    """Among equal scores the first available candidate is the best."""
    mixed = greedy_mix(np.ones((1, 4)), np.array([[False, True, True, True]]), np.zeros((1, 1)))
    assert mixed.tolist() == [[0, 1, 0, 0]]

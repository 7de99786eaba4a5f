"""A challenger replaces the champion only where nothing measured on the same customers stands against it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.decision.model import ISSUES
from training.gate import judge
from training.held_out import HeldOut

N = 6000


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return 1 / (1 + np.exp(-np.random.default_rng(1).normal(-2.0, 1.2, N)))


@pytest.fixture(scope="module")
def held_out(truth: np.ndarray) -> HeldOut:
    draw = np.random.default_rng(2)
    return HeldOut(
        np.zeros((N, 1)), ("x",), (draw.random(N) < truth).astype(float), np.repeat(np.arange(2), N // 2),
        draw.integers(0, 500, N), "f",
    )  # fmt: skip


def test_an_equal_model_passes(held_out: HeldOut, truth: np.ndarray) -> None:
    """The same probabilities again are no worse, and the gain is none."""
    verdict = judge(held_out, truth, truth)
    assert verdict.is_passed
    assert set(verdict.measures) == set(ISSUES[:2])
    assert verdict.measures["upsell"]["gain"] == 0.0


def test_a_worse_order_is_refused_with_the_issue_and_by_how_much(held_out: HeldOut, truth: np.ndarray) -> None:
    """Probabilities shuffled within one issue are worse in that issue and in no other."""
    shuffled = truth.copy()
    own = held_out.issues == 1
    shuffled[own] = np.random.default_rng(3).permutation(shuffled[own])
    refusals = judge(held_out, shuffled, truth).refusals
    assert any(r.startswith("upsell: its log loss is") and "worse than the champion's" in r for r in refusals)
    assert not [r for r in refusals if r.startswith("cross_sell")]


def test_a_better_order_passes_and_its_gain_is_said(held_out: HeldOut, truth: np.ndarray) -> None:
    """Against a constant the truth gains, and the interval leaves no doubt."""
    verdict = judge(held_out, truth, np.full(N, truth.mean()))
    assert verdict.is_passed
    assert verdict.measures["cross_sell"]["gain_low"] > 0.05


def test_probabilities_at_the_wrong_level_are_refused_even_without_a_champion(
    held_out: HeldOut, truth: np.ndarray
) -> None:
    """Twice the truth is a good order and no probability."""
    refusals = judge(held_out, np.minimum(2 * truth, 0.99), None).refusals
    assert any("mean predicted / observed" in refusal for refusal in refusals)


def test_without_positives_nothing_is_judged(held_out: HeldOut, truth: np.ndarray) -> None:
    """Rows without responses let nobody through."""
    empty = HeldOut(held_out.inputs, ("x",), np.zeros(N), held_out.issues, held_out.customers, "f")
    assert "nothing can be judged" in judge(empty, truth, truth).refusals[0]


def test_what_is_written_is_read_again(held_out: HeldOut, tmp_path: Path) -> None:
    """Labels, issues, customers and fingerprint survive whole."""
    again = HeldOut.read(held_out.write(tmp_path))
    assert (again.names, again.fingerprint) == (held_out.names, held_out.fingerprint)
    for name in ("labels", "issues", "customers"):
        assert np.array_equal(getattr(again, name), getattr(held_out, name))

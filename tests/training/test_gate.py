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
        draw.integers(0, 500, N), "f", ("",) * N, {},
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
    empty = HeldOut(held_out.inputs, ("x",), np.zeros(N), held_out.issues, held_out.customers, "f", held_out.groups, {})
    assert "nothing can be judged" in judge(empty, truth, truth).refusals[0]


def test_what_is_written_is_read_again(held_out: HeldOut, tmp_path: Path) -> None:
    """Labels, issues, customers and fingerprint survive whole."""
    again = HeldOut.read(held_out.write(tmp_path))
    assert (again.names, again.fingerprint) == (held_out.names, held_out.fingerprint)
    for name in ("labels", "issues", "customers", "groups"):
        assert np.array_equal(getattr(again, name), getattr(held_out, name))


def test_a_row_of_the_log_is_read_with_each_models_own_codes(tmp_path: Path) -> None:
    """What one model calls channel 0 another calls channel 1, or has no name for."""
    names = ("x", "action", "channel")
    inputs = np.array([[7.0, 0.0, 0.0], [8.0, 1.0, 1.0], [9.0, np.nan, np.nan]])
    texts = {"action": ("fish", "cake"), "channel": ("app", "email")}
    made = HeldOut(inputs, names, np.zeros(3), np.zeros(3, np.int64), np.arange(3), "f", ("", "", ""), texts)
    again = HeldOut.read(made.write(tmp_path))
    assert again.texts == texts
    assert np.array_equal(again.as_read_by(texts), inputs, equal_nan=True)
    other = again.as_read_by({"action": ("cake",), "channel": ("till", "email", "app")})
    assert np.array_equal(other, [[7.0, np.nan, 2.0], [8.0, 0.0, 1.0], [9.0, np.nan, np.nan]], equal_nan=True)
    assert np.isnan(again.as_read_by({})[:, 1:]).all()

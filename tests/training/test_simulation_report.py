"""How far a policy got, with and without what its hold-out costs."""

from __future__ import annotations

import pytest

from training.books import Day
from training.simulation_report import table, verdicts, way_of_the_arm, way_to_the_best


def day(gains: dict[str, tuple[int, float]]) -> Day:
    """Return a day of 100 decisions by arm."""
    total = sum(gain for _, gain in gains.values())
    return Day(0, 100, 0, 10, total, 0.0, {"retention": (1, total)}, {}, {"sleeping dog": (1, -1.0)}, gains, 5, 0.1)


RUNS = {
    "nba": [day({"nba": (80, 64.0), "holdout": (20, 0.0)})] * 40,
    "random": [day({"random": (100, 20.0)})] * 40,
    "oracle": [day({"nba": (100, 100.0)})] * 40,
}


def test_the_whole_policy_pays_for_its_hold_out_and_its_arm_does_not() -> None:
    """64 of the way from 20 to 100 is .55; a decision of the arm gains .8, which is .75 of the way from .2 to 1."""
    assert way_to_the_best(RUNS, "nba") == pytest.approx(0.55)
    assert way_of_the_arm(RUNS, "nba") == pytest.approx(0.75)
    assert (way_of_the_arm(RUNS, "oracle"), way_to_the_best(RUNS, "random")) == (1.0, 0.0)


def test_both_are_told_with_intervals_over_the_seeds() -> None:
    """The table has the whole, the verdicts the arm; every seed being the same, the intervals are points."""
    said = verdicts([RUNS, RUNS])
    assert any("arm nba" in line and "75% (75% to 75%)" in line for line in said)
    assert "55% (55% to 55%)" in list(table([RUNS, RUNS]).columns[3].cells)

"""The share of responses that showing makes, against trials in which it is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.test_uplift import trial, truth
from training.attributable import attributable_shares, document_of_shares
from training.uplift import EffectRows

ISSUE_OF = {"persuades": "upsell", "nothing": "retention", "wakes_dogs": "cross_sell"}
TRUE = {"upsell": 0.08 / 0.28, "retention": 0.0, "cross_sell": -0.08 / 0.12}


def robust(rows: EffectRows) -> np.ndarray:
    """Return doubly robust scores whose outcome models are the truth itself."""
    base, effect = truth(rows.inputs, rows.actions)
    e = rows.propensities
    assert e is not None
    apart = rows.outcomes - base - effect * rows.treated
    return effect + apart * np.where(rows.treated, 1 / e, -1 / (1 - e))


@pytest.fixture(scope="module")
def trials() -> list[EffectRows]:
    return [trial(seed) for seed in range(12)]


def test_shares_are_found_and_intervals_hold_the_truth(trials: list[EffectRows]) -> None:
    """Of 36 intervals of 95 % at most five miss (chance of more: below 1 %); the mean share is right."""
    found = [attributable_shares(rows, robust(rows), ISSUE_OF) for rows in trials]
    missed = sum(not shares[i].low <= TRUE[i] <= shares[i].high for shares in found for i in TRUE)
    assert missed <= 5
    for issue in TRUE:
        error = np.std([shares[issue].value for shares in found]) / np.sqrt(len(found))
        assert abs(np.mean([shares[issue].value for shares in found]) - TRUE[issue]) < 4 * error


def test_a_share_is_used_where_it_is_known(trials: list[EffectRows]) -> None:
    """What persuades keeps its part, what does harm is worth nothing, what cannot be told stays a propensity."""
    document = document_of_shares(attributable_shares(trials[0], robust(trials[0]), ISSUE_OF))
    assert document["upsell"]["is_used"]
    assert 0.1 < document["upsell"]["used"] < 0.5
    assert document["cross_sell"]["is_used"]
    assert document["cross_sell"]["used"] == 0.0
    assert not document["retention"]["is_used"]


def test_an_issue_without_responses_has_no_share() -> None:
    """Nobody who was shown responded: nothing is said of the issue, nor of actions that have none."""
    rows = trial(1, 400)
    silent = EffectRows(
        rows.inputs, rows.treated, np.where(rows.treated, 0.0, rows.outcomes), rows.propensities, rows.customers,
        rows.actions,
    )  # fmt: skip
    assert attributable_shares(silent, np.zeros(400), ISSUE_OF) == {}
    assert attributable_shares(rows, np.zeros(400), {}) == {}

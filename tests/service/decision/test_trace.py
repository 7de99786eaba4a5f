"""The trace accounts for every candidate, in words and values that a person can check."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from service.catalogue.loader import load_catalogue
from service.decision.engine import CompiledCatalogue, compile_catalogue, decide
from service.decision.model import Decisions, Experiment, Request, Stage
from service.decision.trace import WORDS, reasons, trace
from tests.service.decision.worlds import (
    CATALOGUE,
    COLUMNS,
    NOW,
    SMALL,
    TableScorer,
    described,
    keys_for,
    random_batch,
    random_contacts,
)

SHOPPER = {
    "facts": {"baskets_count": 9, "first_seen_at": 300, "aisle_purchase_at.seafood": 20, "largest_basket": 150},
    "shopped_days_ago": [70, 77, 84, 91],
    "context": {"device": "ios"},
    "contacts": [["reject", "help", 2]],
}


@pytest.fixture(scope="module")
def small() -> CompiledCatalogue:
    return compile_catalogue(load_catalogue(SMALL), COLUMNS)


@pytest.fixture(scope="module")
def shipped() -> CompiledCatalogue:
    return compile_catalogue(load_catalogue(CATALOGUE), COLUMNS)


def decided(catalogue: CompiledCatalogue, n: int = 25) -> Decisions:
    batch = random_batch(n, 11)
    actions = [action.id for action in catalogue.catalogue.actions]
    batch = replace(batch, contacts=random_contacts(n, 11, actions, 3))
    return decide(batch, Request("app"), catalogue, TableScorer(len(actions)), NOW, keys_for(n))


def test_every_candidate_once(shipped: CompiledCatalogue) -> None:
    """A trace names every treatment of the channel once, with a reason, the shown first and in order."""
    decisions = decided(shipped)
    treatments = sorted(t.id for t in shipped.catalogue.treatments if t.channel == "app")
    for i in range(25):
        entries = trace(decisions, shipped, i)
        assert sorted(entry["treatment_id"] for entry in entries) == treatments
        assert all(entry["reason"] for entry in entries)
        shown = [entry for entry in entries if entry["stage"] == "ranked"]
        assert entries[: len(shown)] == shown
        assert [entry["rank"] for entry in shown] == list(range(1, len(decisions.chosen[i]) + 1))
        json.dumps(entries, allow_nan=False)


def test_factors_multiply_to_the_priority(shipped: CompiledCatalogue) -> None:
    """Where a candidate was arbitrated, its factors give its priority."""
    entries = [entry for i in range(25) for entry in trace(decided(shipped), shipped, i) if "factors" in entry]
    assert len(entries) > 100
    for entry in entries:
        f = entry["factors"]
        worth = f["context_weight"] * f["value"] * f["lever"] * f["stage"]
        assert math.isclose(f["propensity"] * worth - f["cost"], f["priority"])


def test_a_rule_shows_what_it_read(small: CompiledCatalogue) -> None:
    """An excluded candidate names its rule and the facts it read: codes as texts, elapsed days, NULL as None."""
    request = Request("app", context={"device": 0.0})
    decisions = decide(described(SHOPPER), request, small, None, NOW, keys_for(1))
    entries = {entry["action_id"]: entry for entry in trace(decisions, small, 0)}
    assert entries["fish"]["rule"] == "new_to_fish.fish"
    assert entries["fish"]["reason"] == "buys fish"
    assert entries["fish"]["facts"] == {"known": True, "days_since_aisle_purchase__seafood": 20.0}
    assert entries["cake"]["facts"] == {"device": "ios"}
    assert entries["rare"]["facts"] == {"largest_basket": 150.0}
    assert "cap" not in entries["help"]
    assert entries["win_back"]["stage"] == "ranked"
    assert entries["win_back"]["factors"].keys() == {"propensity", "value", "cost", "priority"}
    assert entries["summer"]["reason"] == WORDS[Stage.OUT_OF_DATES]
    declined = described({**SHOPPER, "contacts": [["reject", "win_back", 2]]})
    entries = {
        entry["action_id"]: entry for entry in trace(decide(declined, request, small, None, NOW, keys_for(1)), small, 0)
    }
    assert (entries["win_back"]["cap"], entries["win_back"]["stage"]) == ("declined", "contact_policy")
    stranger = decide(described({}), request, small, None, NOW, keys_for(1))
    entries = {entry["action_id"]: entry for entry in trace(stranger, small, 0)}
    assert entries["win_back"]["facts"] == {"stage": None}


def test_reasons_are_the_catalogues_words(small: CompiledCatalogue) -> None:
    """A shown action says what its rules found and what it is worth."""
    shopper = {"facts": {"baskets_count": 9, "aisle_purchase_at.seafood": 200}}
    decisions = decide(described(shopper), Request("app"), small, None, NOW, keys_for(1))
    texts = {
        small.catalogue.actions[decisions.actions[c.candidate]].id: reasons(decisions, small, 0, c.candidate)
        for c in decisions.chosen[0]
    }
    assert texts["cake"] == ["small baskets", "10.0% likely, worth 5.00 USD"]
    assert texts["help"] == ["1.0% likely, worth 2.00 USD"]


def test_held_out_is_told(shipped: CompiledCatalogue) -> None:
    """In the hold-out the trace says what would have been shown, and where."""
    held = compile_catalogue(replace(shipped.catalogue, experiment=Experiment("h", "h", (("holdout", 1.0),))), COLUMNS)
    decisions = decided(held)
    i = next(i for i, withheld in enumerate(decisions.withheld) if withheld)
    entries = [entry for entry in trace(decisions, held, i) if entry["stage"] == "held_out"]
    assert {entry["treatment_id"] for entry in entries} == {
        held.catalogue.treatments[decisions.candidates[c.candidate]].id for c in decisions.withheld[i]
    }
    assert all(entry["reason"] == WORDS[Stage.HELD_OUT] and entry["selection_probability"] > 0 for entry in entries)


def test_every_stage_has_words() -> None:
    """Every stage that names no rule or cap has a sentence of its own."""
    named = {Stage.ELIGIBILITY, Stage.APPLICABILITY, Stage.SUITABILITY, Stage.CONTACT_POLICY}
    assert set(WORDS) == set(Stage) - named
    assert len(set(WORDS.values())) == len(WORDS)


def test_trace_without_extras(small: CompiledCatalogue) -> None:
    """A decision rebuilt without its extras still traces: what is not there is None."""
    decisions = decide(described(SHOPPER), Request("app", context={"device": 0.0}), small, None, NOW, keys_for(1))
    bare = replace(decisions, extras=np.empty((0, 0)))
    entries = {entry["action_id"]: entry for entry in trace(bare, small, 0)}
    assert entries["cake"]["facts"] == {"device": None}

"""Slots: quotas, what is mandatory, ramps, hold-outs by issue, and frequencies against stated probabilities."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from service.catalogue.loader import load_catalogue
from service.decision.engine import CompiledCatalogue, compile_catalogue, decide
from service.decision.experiment import held_issues
from service.decision.model import (
    Catalogue,
    CustomerBatch,
    Decisions,
    Evidence,
    Experiment,
    Exploration,
    Floats,
    Quota,
    Ramp,
    Request,
    Stage,
)
from service.decision.selection import select
from service.decision.trace import trace
from tests.service.decision.worlds import (
    CATALOGUE,
    COLUMNS,
    NOW,
    SMALL,
    TableScorer,
    described,
    keys_for,
    random_batch,
)

SHIPPED, TINY = load_catalogue(CATALOGUE), load_catalogue(SMALL)
EVERYONE = Experiment("e", "s", (("nba", 1.0),))
STRATEGIES = (
    Exploration("none"),
    Exploration("epsilon_greedy", 0.3),
    Exploration("softmax", 0.5),
    Exploration("thompson", prior_positives=3.0),
)
EXPLORING = STRATEGIES[1:]


def compiled(catalogue: Catalogue, **changes: Any) -> CompiledCatalogue:
    plain = {"experiment": EVERYONE, "quotas": (), "stage_weights": {}}
    return compile_catalogue(replace(catalogue, **{**plain, **changes}), COLUMNS)


def run(catalogue: CompiledCatalogue, batch: CustomerBatch, request: Request, **more: Any) -> Decisions:
    scorer = TableScorer(len(catalogue.catalogue.actions))
    return decide(batch, request, catalogue, scorer, NOW, keys_for(len(batch.customer_ids)), **more)


def shown(decisions: Decisions, catalogue: CompiledCatalogue, i: int) -> list[Any]:
    return [catalogue.catalogue.actions[decisions.actions[c.candidate]] for c in decisions.chosen[i]]


def many(n: int, seed: int = 3) -> CustomerBatch:
    return random_batch(n, seed, missing=0.05, consent=1.0)


@pytest.mark.parametrize("exploration", STRATEGIES, ids=lambda e: e.strategy)
def test_quotas_hold(exploration: Exploration) -> None:
    """No answer has more of an issue, group or placement than its quotas allow, with any strategy."""
    quotas = (
        Quota("two_upsells", "issue", "upsell", most=2),
        Quota("one_of_a_group", "group", "*", most=1),
        Quota("one_service_at_home", "issue", "service", most=1, placement="app_home"),
    )
    catalogue = compiled(SHIPPED, quotas=quotas, exploration=exploration)
    decisions = run(catalogue, many(60), Request("app"))
    for i in range(60):
        actions = shown(decisions, catalogue, i)
        assert Counter(a.issue for a in actions)["upsell"] <= 2
        assert max(Counter(a.group for a in actions).values()) <= 1
        places = [(a.issue, c.placement) for a, c in zip(actions, decisions.chosen[i], strict=True)]
        assert places.count(("service", "app_home")) <= 1


@pytest.mark.parametrize("exploration", STRATEGIES, ids=lambda e: e.strategy)
def test_least_is_kept_where_there_are_candidates(exploration: Exploration) -> None:
    """Every answer has as many of an issue as its quota says at least; the first slots stay as they were."""
    catalogue = compiled(SHIPPED, quotas=(Quota("q", "issue", "service", least=2),), exploration=exploration)
    free = compiled(SHIPPED, exploration=exploration)
    request = Request("app", (("app_home", 3), ("app_checkout", 1)))
    decisions, without = run(catalogue, many(60), request), run(free, many(60), request)
    counts = [sum(a.issue == "service" for a in shown(decisions, catalogue, i)) for i in range(60)]
    assert min(counts) == 2
    assert min(sum(a.issue == "service" for a in shown(without, free, i)) for i in range(60)) < 2
    for i in range(60):  # the first slots are not touched
        assert decisions.chosen[i][:2] == without.chosen[i][:2]


def test_least_of_an_issue_that_fits_one_placement_is_placed_there() -> None:
    """Slots that do not fit the issue are no reserve for it: it gets the last one that fits."""
    changes = {"rules": (), "caps": (), "exploration": Exploration("none"), "least_priority": -99.0}
    catalogue = compiled(SHIPPED, quotas=(Quota("q", "issue", "retention", least=1),), **changes)
    decisions = run(catalogue, many(40), Request("app"))  # retention fits app_home alone, app_checkout comes after it
    for i in range(40):
        pairs = zip(shown(decisions, catalogue, i), decisions.chosen[i], strict=True)
        assert {c.placement for a, c in pairs if a.issue == "retention"} == {"app_home"}


def test_least_within_a_limit() -> None:
    """What an answer must have comes within the request's limit."""
    catalogue = compiled(SHIPPED, quotas=(Quota("q", "issue", "service", least=1),), exploration=Exploration("none"))
    decisions = run(catalogue, many(30), Request("app", limit=2))
    assert all(sum(a.issue == "service" for a in shown(decisions, catalogue, i)) >= 1 for i in range(30))


def test_mandatory_comes_first_but_not_past_eligibility() -> None:
    """A mandatory action takes the first slot that it fits, below any threshold, surely; a rule still excludes it."""
    actions = tuple(replace(a, is_mandatory=a.id == "dear") for a in TINY.actions)
    case = {"facts": {"baskets_count": 9, "aisle_purchase_at.seafood": 200}}
    catalogue = compiled(TINY, actions=actions, exploration=Exploration("softmax", 1.0))
    decisions = run(catalogue, described(case), Request("app"))
    first = decisions.chosen[0][0]
    assert TINY.actions[decisions.actions[first.candidate]].id == "dear"
    assert first.selection_probability == 1.0
    assert decisions.priorities[0, first.candidate] < TINY.least_priority
    excluded = run(catalogue, described({**case, "facts": {**case["facts"], "largest_basket": 150}}), Request("app"))
    assert "dear" not in [a.id for a in shown(excluded, catalogue, 0)]


def ramped(positives: float, n: int = 4000) -> tuple[float, set[str]]:
    """Return the share of customers within reach of a new action, and who they are."""
    catalogue = compiled(TINY, rules=(), caps=(), exploration=Exploration("thompson", ramp=Ramp(0.02, 200.0)))
    evidence = Evidence.none(len(TINY.actions))
    evidence.positives[TINY.index["fish"]] = positives
    ids = tuple(f"c{i}" for i in range(n))
    one = described({"facts": {"baskets_count": 9}})
    batch = replace(
        one,
        customer_ids=ids,
        facts=np.repeat(one.facts, n, axis=1),
        view_times=np.repeat(one.view_times, n, axis=1),
        is_known=np.ones(n, bool),
        consents=one.consents * n,
    )
    decisions = decide(batch, Request("app"), catalogue, None, NOW, keys_for(n), evidence=evidence)
    fish = [catalogue.catalogue.actions[a].id for a in decisions.actions].index("fish")
    is_out = decisions.stages[:, fish] == Stage.OUT_OF_REACH
    return 1 - is_out.mean(), {ids[i] for i in np.flatnonzero(~is_out)}


def test_reach_grows_with_positives() -> None:
    """A new action reaches 2 % of customers, all at 200 positives, in a straight line; who is reached stays so."""
    found = [ramped(positives) for positives in (0, 50, 100, 199, 200)]
    for (share, _), expected in zip(found, (0.02, 0.265, 0.51, 0.9951, 1.0), strict=True):
        assert abs(share - expected) < 4 * np.sqrt(0.25 / 4000)
    for (_, before), (_, after) in pairwise(found):
        assert before <= after


def test_ramps_of_two_actions_reach_different_customers() -> None:
    """Which customers see a new action first is drawn anew for each action."""
    changes = {"actions": tuple(replace(a, is_ramped=True) for a in SHIPPED.actions), "rules": (), "caps": ()}
    catalogue = compiled(SHIPPED, exploration=Exploration("thompson", ramp=Ramp(0.3, 200.0)), **changes)
    decisions = decide(many(800), Request("app"), catalogue, None, NOW, keys_for(800))
    is_out = decisions.stages == Stage.OUT_OF_REACH
    shares = 1 - is_out.mean(axis=0)
    assert np.allclose(shares, 0.3, atol=4 * np.sqrt(0.21 / 800))
    correlations = np.corrcoef(is_out.T.astype(float))
    assert np.abs(correlations[~np.eye(len(correlations), dtype=bool)]).max() < 0.2


def test_a_ramp_holds_on_its_channels_and_spares_who_is_exempt() -> None:
    """Outside its channels, and for exempt or mandatory actions, there is no ramp."""
    ramp = Exploration("none", ramp=Ramp(0.0, 200.0, channels=("app",)))
    actions = tuple(replace(a, is_ramped=a.is_marketing) for a in SHIPPED.actions)
    catalogue = compiled(SHIPPED, exploration=ramp, actions=actions, rules=(), caps=())
    for channel in ("app", "email"):
        decisions = decide(many(20), Request(channel), catalogue, None, NOW, keys_for(20))
        is_marketing = np.array([SHIPPED.actions[a].is_marketing for a in decisions.actions])
        is_out = (decisions.stages == Stage.OUT_OF_REACH).all(axis=0)
        assert (is_out == (is_marketing & (channel == "app"))).all()


def test_hold_out_of_an_issue() -> None:
    """Who is held out of retention is shown none, is told what would have been, and still gets the other issues."""
    experiment = Experiment("e", "s", (("nba", 1.0),), holdouts=(("retention", 0.5),))
    changes = {"rules": (), "caps": (), "exploration": Exploration("none")}
    catalogue, free = compiled(SHIPPED, experiment=experiment, **changes), compiled(SHIPPED, **changes)
    decisions, would_be = run(catalogue, many(80), Request("app")), run(free, many(80), Request("app"))
    held = [i for i in range(80) if held_issues(decisions.layers[i]) == ("retention",)]
    assert 20 < len(held) < 60
    for i in range(80):
        issues = [a.issue for a in shown(decisions, catalogue, i)]
        if i not in held:
            assert (decisions.chosen[i], decisions.withheld[i]) == (would_be.chosen[i], ())
            continue
        assert "retention" not in issues
        assert "upsell" in issues or "cross_sell" in issues
        assert len(issues) == 4
        assert decisions.withheld[i] == tuple(
            c for c in would_be.chosen[i] if SHIPPED.actions[decisions.actions[c.candidate]].issue == "retention"
        )
        for k, choice in enumerate(decisions.chosen[i]):  # what was shown was drawn from what is logged
            assert choice.selection_probability == decisions.distributions[k, i, choice.candidate]
    assert any(decisions.withheld[i] for i in held)


def test_second_layer_switches_exploration_off() -> None:
    """Who is in the arm `none` of the exploration layer is shown the best surely; the others are drawn for."""
    experiment = Experiment("e", "s", (("nba", 1.0),), exploration=(("catalogued", 0.5), ("none", 0.5)))
    for exploration in EXPLORING:
        catalogue = compiled(SHIPPED, experiment=experiment, exploration=exploration)
        decisions = run(catalogue, many(60), Request("app", (("app_home", 1),)))
        for of, row, priorities in zip(decisions.layers, decisions.distributions[0], decisions.priorities, strict=True):
            if of[1][1] == "none":
                assert row.max() == 1.0
                best = np.where(row >= 0, priorities, -np.inf)
                is_open = decisions.stages[decisions.layers.index(of)] <= Stage.HELD_OUT
                assert row.argmax() in np.flatnonzero(is_open & (best == best[row.argmax()]))
            else:
                assert (row > 0).sum() > 1


def test_no_levers_leaves_levers_and_stages_out() -> None:
    """In the arm `no_levers` a priority has neither lever nor stage weight; in `nba` it has both."""
    actions = tuple(replace(a, lever=3.0) for a in SHIPPED.actions)
    weights = {(issue, "lapsing"): 2.0 for issue in SHIPPED.arbitration}
    batch = many(120)
    stages = COLUMNS.as_of(batch.facts, NOW)[COLUMNS.index["stage"]]
    is_lapsing = stages == COLUMNS.vocabulary("stage").index("lapsing")
    assert 0 < is_lapsing.sum() < 120
    found = {}
    for arm in ("nba", "no_levers"):
        catalogue = compiled(
            SHIPPED, actions=actions, stage_weights=weights, rules=(), experiment=Experiment("e", "s", ((arm, 1.0),))
        )
        found[arm] = run(catalogue, batch, Request("app"))
        costs = catalogue.plans["app"].terms.costs
        found[arm] = found[arm].priorities + costs
    ratio = found["nba"] / found["no_levers"]
    is_priced = ~np.isnan(ratio)
    expected = np.where(is_lapsing[:, None], 6.0, 3.0) * np.ones_like(ratio)
    assert np.allclose(ratio[is_priced], expected[is_priced])


def test_uplift_is_used_where_it_is_significant() -> None:
    """An issue on uplift is arbitrated on the effect where one is known, else on the propensity; harm is left alone."""
    catalogue = compiled(SHIPPED, estimates={"upsell": "uplift"}, rules=(), caps=())
    decisions = run(catalogue, many(30), Request("app"))
    terms = catalogue.plans["app"].terms
    for j, position in enumerate(decisions.actions):
        action = SHIPPED.actions[position]
        used = decisions.uplifts[:, j]
        assert np.isnan(used).all() == (action.issue != "upsell" or position % 2 == 1)
        estimate = np.where(np.isnan(used), decisions.propensities[:, j], used)
        assert np.allclose(decisions.priorities[:, j], estimate * terms.worths[j] - terms.costs[j], equal_nan=True)
    is_harmful = decisions.uplifts < 0
    assert is_harmful.any()
    assert (decisions.stages[is_harmful] == Stage.BELOW_THRESHOLD).all()


def test_an_effect_that_is_not_known_is_the_part_of_the_propensity_that_showing_makes() -> None:
    """An issue on `attributable` falls back to propensity x share, says so, and is the same for one and for many."""
    catalogue = compiled(SHIPPED, estimates={"upsell": "attributable", "retention": "uplift"}, rules=(), caps=())
    batch, terms = many(30), catalogue.plans["app"].terms
    decisions = run(catalogue, batch, Request("app"))
    shares = TableScorer(len(SHIPPED.actions)).attributable
    for j, position in enumerate(decisions.actions):
        share = shares[position] if SHIPPED.actions[position].issue == "upsell" else 1.0
        used = np.where(
            np.isnan(decisions.uplifts[:, j]), decisions.propensities[:, j] * share, decisions.uplifts[:, j]
        )
        assert np.array_equal(decisions.estimates[:, j], used, equal_nan=True)
        assert np.allclose(decisions.priorities[:, j], used * terms.worths[j] - terms.costs[j], equal_nan=True)
    said = [entry for i in range(30) for entry in trace(decisions, catalogue, i) if "factors" in entry]
    parts = [entry["factors"] for entry in said if "attributable" in entry["factors"]]
    assert len(parts) > 30
    assert all("uplift" not in factors and factors["attributable"] < factors["propensity"] for factors in parts)
    for i in (0, 17):
        alone = run(catalogue, batch.only(i), Request("app"))
        assert alone.priorities.tobytes() == decisions.priorities[i : i + 1].tobytes()
        assert decisions.take([i]).estimates.tobytes() == alone.estimates.tobytes()


def test_the_challenger_scores_its_arm() -> None:
    """Customers of the challenger's arm get its scores and evidence, the others the champion's, in one batch."""

    class Another(TableScorer):
        def score(self, *args: Any) -> Any:
            return super().score(*args) * 0.5

    experiment = Experiment("e", "s", (("nba", 0.5), ("challenger", 0.5)))
    catalogue = compiled(SHIPPED, experiment=experiment, exploration=Exploration("thompson"), rules=(), caps=())
    challenger = Another(len(SHIPPED.actions))
    challenger.evidence = challenger.evidence * 50
    alone = run(catalogue, many(40), Request("app"))
    both = run(catalogue, many(40), Request("app"), challenger=challenger)
    assert set(alone.arms) == {"nba"}
    assert set(both.arms) == {"nba", "challenger"}
    needs_score = np.array([SHIPPED.actions[a].scoring.value == "model" for a in both.actions])
    for i, arm in enumerate(both.arms):
        factor = 0.5 if arm == "challenger" else 1.0
        assert np.array_equal(both.propensities[i, needs_score], alone.propensities[i, needs_score] * factor)
        assert (both.strengths[i] == (50 if arm == "challenger" else 1)).all()


def test_forced_slots_are_asked_and_not_drawn() -> None:
    """Given what took the slots, each slot has the probabilities that it had then, whatever the key."""
    catalogue = compiled(SHIPPED, exploration=Exploration("thompson"))
    batch, request = many(20), Request("app")
    before = run(catalogue, batch, request)
    forced = np.full((4, 20), -1)
    for i, choices in enumerate(before.chosen):
        filled = np.flatnonzero(before.distributions[:, i].sum(axis=1) > 0)
        forced[filled, i] = [c.candidate for c in choices]
    scorer = TableScorer(len(SHIPPED.actions))
    again = decide(batch, request, catalogue, scorer, NOW, keys_for(20, seed=99), forced=forced)
    assert again.chosen == before.chosen
    assert again.distributions.tobytes() == before.distributions.tobytes()


EQUAL = tuple(replace(a, value=3.0, lever=1.0, cost=0.0, prior=0.1) for a in TINY.actions)
FISH = tuple(a if a.id == "fish" else replace(a, ends_at=0.0) for a in TINY.actions)
GROUPS = (Quota("a", "group", "*", most=1), Quota("b", "issue", "service", least=1))
SCENES: dict[str, tuple[dict[str, Any], Request]] = {
    "caps and two placements": ({}, Request("app")),
    "quotas": ({"quotas": GROUPS}, Request("app")),
    "ties": ({"actions": EQUAL}, Request("app")),
    "one candidate": ({"actions": FISH}, Request("app", (("side", 1),))),
    "none": ({}, Request("app", (("side", 1),), issues=("retention",))),
}


def surprise(exploration: Exploration, scene: str, n: int) -> tuple[float, int, int]:
    """Select n times for one customer; return chi-square of all slots given those before, its degrees, and draws."""
    changes, request = SCENES[scene]
    catalogue = compiled(TINY, exploration=exploration, **changes)
    plan = catalogue.plans["app"]
    one = described({"facts": {"baskets_count": 9, "aisle_purchase_at.seafood": 200}})
    decisions = decide(one, request, catalogue, None, NOW, keys_for(1))
    is_open = np.isin(decisions.stages, (Stage.RANKED, Stage.NOT_SELECTED))
    found: dict[tuple[int, ...], Floats] = {}
    stated: dict[tuple[int, ...], Floats] = {}
    for start in range(0, n, 20_000):
        size = min(20_000, n - start)
        keys = np.random.default_rng(start + 1).integers(0, 2**64, size, dtype=np.uint64)
        placed = select(catalogue, plan, decisions.take([0] * size), np.repeat(is_open, size, axis=0), keys)
        for k, distribution in enumerate(placed.distributions):
            befores, of_before = np.unique(placed.picks[:k], axis=1, return_inverse=True)
            for b in range(befores.shape[1]):
                rows = np.flatnonzero(of_before.ravel() == b)
                before = tuple(befores[:, b].tolist())
                probabilities = stated.setdefault(before, distribution[rows[0]])
                assert (distribution[rows] == probabilities).all()
                picks = placed.picks[k, rows]
                assert ((picks >= 0) == probabilities.any()).all()
                counts = np.bincount(picks[picks >= 0], minlength=len(probabilities))
                found[before] = found.get(before, 0) + counts
    chi_square, degrees = 0.0, 0
    for before, seen in found.items():
        expected = stated[before] * seen.sum()
        assert not seen[expected == 0].any()
        likely = expected >= 5
        cells = [*zip(seen[likely], expected[likely], strict=True)]
        if expected[~likely].sum() >= 5:
            cells.append((seen[~likely].sum(), expected[~likely].sum()))
        chi_square += sum((s - e) ** 2 / e for s, e in cells)
        degrees += max(len(cells) - 1, 0)
    draws = int(sum(seen.sum() for seen in found.values()))
    if scene == "none":
        assert draws == 0
    if scene == "one candidate":
        assert max((probabilities > 0).sum() for probabilities in stated.values()) == 1
    return chi_square, degrees, draws


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("exploration", STRATEGIES, ids=lambda e: e.strategy)
def test_frequencies(exploration: Exploration, scene: str) -> None:
    """What is drawn into every slot follows its stated distribution, over 10,000 keys (chi-square, seeded)."""
    chi_square, degrees, _ = surprise(exploration, scene, 10_000)
    assert chi_square <= degrees + 5 * np.sqrt(2 * degrees)


@pytest.mark.prove
@pytest.mark.parametrize("exploration", EXPLORING, ids=lambda e: e.strategy)
def test_frequencies_of_a_million(exploration: Exploration) -> None:
    """The same over 200,000 keys a scene: at least a million draws for each strategy."""
    total = 0
    for scene in SCENES:
        chi_square, degrees, draws = surprise(exploration, scene, 200_000)
        print(f"{exploration.strategy}, {scene}: {draws} draws, chi-square {chi_square:.1f} of {degrees} degrees")
        assert chi_square <= degrees + 5 * np.sqrt(2 * degrees)
        total += draws
    assert total >= 1_000_000

"""Laws of a decision, on random customers, contacts, requests and the shipped catalogue."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.catalogue.loader import load_catalogue
from service.decision.engine import CompiledCatalogue, compile_catalogue, decide, select_again
from service.decision.model import (
    Cap,
    Catalogue,
    Contacts,
    CustomerBatch,
    Decisions,
    Experiment,
    Exploration,
    Ramp,
    Request,
    Scoring,
    Stage,
)
from tests.service.decision.worlds import (
    CATALOGUE,
    COLUMNS,
    NO_CONTACTS,
    NOW,
    TableScorer,
    keys_for,
    one_of,
    random_batch,
    random_contacts,
    showing,
)

SHIPPED = load_catalogue(CATALOGUE)
ID = SHIPPED.index
ALL_ARMS = Experiment(
    "all",
    "salt",
    (("nba", 0.4), ("holdout", 0.2), ("random", 0.15), ("propensity_only", 0.15), ("no_levers", 0.1)),
    exploration=(("catalogued", 0.8), ("none", 0.2)),
    holdouts=(("retention", 0.1), ("upsell", 0.2)),
)
EXPLORATIONS = (
    Exploration("none", 0.0),
    Exploration("epsilon_greedy", 0.2),
    Exploration("softmax", 0.05),
    Exploration("thompson", prior_positives=2.0, ramp=Ramp(0.3, 20.0)),
)
seeds = st.integers(0, 10_000)
channels = st.sampled_from(SHIPPED.channels)
explorations = st.sampled_from(EXPLORATIONS)
thorough = settings(max_examples=25, deadline=None)


def compiled(catalogue: Catalogue, **changes: object) -> CompiledCatalogue:
    return compile_catalogue(replace(catalogue, **changes), COLUMNS)


def busy_batch(n: int, seed: int) -> CustomerBatch:
    contacts = random_contacts(n, seed, [action.id for action in SHIPPED.actions])
    return replace(random_batch(n, seed), contacts=contacts)


def run(catalogue: CompiledCatalogue, batch: CustomerBatch, request: Request, seed: int = 0) -> Decisions:
    scorer = TableScorer(len(catalogue.catalogue.actions))
    return decide(batch, request, catalogue, scorer, NOW, keys_for(len(batch.customer_ids), seed))


@thorough
@given(seeds, channels, explorations)
def test_batch_is_many_of_one(seed: int, channel: str, exploration: Exploration) -> None:
    """A batch of n customers gives, bit for bit, what n batches of one give."""
    catalogue = compiled(SHIPPED, experiment=ALL_ARMS, exploration=exploration)
    batch, keys = busy_batch(12, seed), keys_for(12, seed)
    scorer = TableScorer(len(SHIPPED.actions))
    together = decide(batch, Request(channel), catalogue, scorer, NOW, keys)
    for i in range(12):
        alone = decide(one_of(batch, i), Request(channel), catalogue, scorer, NOW, keys[i : i + 1])
        for name in ("stages", "reasons", "propensities", "priorities", "room"):
            assert getattr(alone, name)[0].tobytes() == getattr(together, name)[i].tobytes(), name
        assert alone.distributions[:, 0].tobytes() == np.ascontiguousarray(together.distributions[:, i]).tobytes()
        assert (alone.chosen[0], alone.withheld[0]) == (together.chosen[i], together.withheld[i])
        assert alone.arms[0] == together.arms[i]


@thorough
@given(seeds, channels, explorations)
def test_each_candidate_ends_once(seed: int, channel: str, exploration: Exploration) -> None:
    """What is shown is ranked, what is withheld is held out, and nothing that a filter excluded is either."""
    catalogue = compiled(SHIPPED, experiment=ALL_ARMS, exploration=exploration)
    decisions = run(catalogue, busy_batch(20, seed), Request(channel), seed)
    for i in range(20):
        shown = {c.candidate for c in decisions.chosen[i]}
        held = {c.candidate for c in decisions.withheld[i]}
        stages = decisions.stages[i]
        assert set(np.flatnonzero(stages == Stage.RANKED)) == shown
        assert set(np.flatnonzero(stages == Stage.HELD_OUT)) == held
        actions = [decisions.actions[c] for c in shown]
        assert len(actions) == len(set(actions))
        is_filtered = (stages >= Stage.SWITCHED_OFF) & (stages <= Stage.MUST_BE_LOGGED)
        assert np.isnan(decisions.priorities[i][is_filtered]).all()
        assert not np.isnan(decisions.priorities[i][~is_filtered]).any()
        has_cause = (stages >= Stage.ELIGIBILITY) & (stages <= Stage.CONTACT_POLICY)
        assert ((decisions.reasons[i] >= 0) == has_cause).all()


@thorough
@given(seeds, channels, explorations)
def test_probabilities_sum_to_one(seed: int, channel: str, exploration: Exploration) -> None:
    """Each filled slot's distribution sums to 1 over open candidates, and what was drawn is logged with its own."""
    catalogue = compiled(SHIPPED, experiment=ALL_ARMS, exploration=exploration)
    decisions = run(catalogue, busy_batch(20, seed), Request(channel), seed)
    sums = decisions.distributions.sum(axis=2)
    assert np.all((np.abs(sums - 1) < 1e-12) | (sums == 0))
    for i, arm in enumerate(decisions.arms):
        excluded = (decisions.stages[i] >= Stage.SWITCHED_OFF) & (decisions.stages[i] <= Stage.BELOW_THRESHOLD)
        assert (decisions.distributions[:, i, excluded] == 0).all()
        if arm != "holdout":
            filled = [k for k in range(len(sums)) if sums[k, i] > 0]
            assert len(filled) == len(decisions.chosen[i])
            for k, choice in zip(filled, decisions.chosen[i], strict=True):
                assert choice.selection_probability == decisions.distributions[k, i, choice.candidate] > 0


@thorough
@given(seeds, channels, st.integers(0, 4), explorations)
def test_an_answer_stays_within_the_caps(seed: int, channel: str, limit: int, exploration: Exploration) -> None:
    """Contacts before plus what an answer shows never exceed a cap; what is no marketing is bound by scope all only."""
    caps = (
        Cap("all", "all", "", "impression", limit + 2, 7 * 86_400, (), ""),
        Cap("marketing", "marketing", "", "decision", limit, 7 * 86_400, (), ""),
        Cap("group", "group", "*", "decision", 1, 7 * 86_400, (), ""),
        Cap("elsewhere", "all", "", "decision", 0, 7 * 86_400, ("pigeon",), ""),
    )
    catalogue = compiled(SHIPPED, caps=caps, exploration=exploration)
    batch = busy_batch(20, seed)
    decisions = run(catalogue, batch, Request(channel), seed)
    recent = batch.contacts.times > NOW - 7 * 86_400
    for i in range(20):
        shown = [SHIPPED.actions[decisions.actions[c.candidate]] for c in decisions.chosen[i]]
        mine = np.flatnonzero(recent & (batch.contacts.customers == i))
        before = [(batch.contacts.kinds[k], batch.contacts.showings[k].action_id) for k in mine]
        seen = sum(kind == "impression" for kind, _ in before)
        assert len(shown) == 0 or seen + len(shown) <= limit + 2
        marketing = [a for a in shown if a.is_marketing]
        sold = [n for kind, n in before if kind == "decision" and (n not in ID or SHIPPED.actions[ID[n]].is_marketing)]
        assert len(marketing) == 0 or len(sold) + len(marketing) <= limit
        groups = [a.group for a in marketing]
        assert len(groups) == len(set(groups))


@thorough
@given(seeds, channels, st.floats(1.0, 20.0), st.integers(0, len(SHIPPED.actions) - 1))
def test_raising_a_value_never_lowers_a_rank(seed: int, channel: str, factor: float, position: int) -> None:
    """Without exploration, an action that becomes worth more is placed no later than before."""
    actions = list(SHIPPED.actions)
    actions[position] = replace(actions[position], value=actions[position].value * factor)
    plain = {"exploration": Exploration("none", 0.0), "experiment": Experiment("n", "n", (("nba", 1.0),))}
    batch = random_batch(15, seed)
    before = run(compiled(SHIPPED, **plain), batch, Request(channel))
    after = run(compiled(SHIPPED, actions=tuple(actions), **plain), batch, Request(channel))
    for i in range(15):
        assert rank(after, i, position) <= rank(before, i, position)


def rank(decisions: Decisions, i: int, position: int) -> int:
    chosen = [int(decisions.actions[c.candidate]) for c in decisions.chosen[i]]
    return chosen.index(position) if position in chosen else 1_000


@thorough
@given(seeds, channels, explorations, st.randoms(use_true_random=False))
def test_order_of_the_catalogue_does_not_matter(seed: int, channel: str, exploration: Exploration, rng) -> None:  # type: ignore[no-untyped-def]
    """A catalogue with its lists in another order shows the same treatments with the same probabilities."""

    def shuffled(items: tuple) -> tuple:  # type: ignore[type-arg]
        return tuple(rng.sample(items, len(items)))

    changes = {name: shuffled(getattr(SHIPPED, name)) for name in ("actions", "treatments", "rules", "caps")}
    # Priors only: a scorer is made for one order of actions. Equal priors, values and costs make ties.
    batch, keys = busy_batch(10, seed), keys_for(10, seed)
    shown = []
    for other in ({}, changes):
        catalogue = compiled(SHIPPED, experiment=ALL_ARMS, exploration=exploration, **other)
        decisions = decide(batch, Request(channel), catalogue, None, NOW, keys)
        treatments = [catalogue.catalogue.treatments[t].id for t in decisions.candidates]
        shown.append(
            [[(treatments[c.candidate], c.placement, c.selection_probability) for c in row] for row in decisions.chosen]
        )
    assert shown[0] == shown[1]


def test_same_key_same_draw() -> None:
    """The same key draws the same answer, another key need not."""
    catalogue = compiled(SHIPPED, exploration=Exploration("softmax", 0.5))
    batch = random_batch(60, 3)
    first, again, other = (run(catalogue, batch, Request("app"), seed).chosen for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_hold_out_shows_no_marketing() -> None:
    """In the hold-out nothing that needs consent is shown, and what nba would have shown is noted."""
    catalogue = compiled(SHIPPED, experiment=Experiment("h", "h", (("holdout", 1.0),)))
    treated = compiled(SHIPPED, experiment=Experiment("h", "h", (("nba", 1.0),)))
    batch = random_batch(50, 8, consent=1.0)
    decisions, would_be = (run(c, batch, Request("app")) for c in (catalogue, treated))
    is_marketing = np.array([SHIPPED.actions[a].is_marketing for a in decisions.actions])
    assert any(decisions.withheld)
    assert all(decisions.chosen)
    for i in range(50):
        assert not any(is_marketing[c.candidate] for c in decisions.chosen[i])
        assert decisions.withheld[i] == tuple(c for c in would_be.chosen[i] if is_marketing[c.candidate])
        assert would_be.withheld[i] == ()


def test_one_action_once_through_two_treatments() -> None:
    """An action with two treatments on a channel is scored once, and placed once, through one of them."""
    doubled = [*SHIPPED.treatments, *(replace(t, id=t.id + "_b") for t in SHIPPED.treatments if t.channel == "app")]
    catalogue = compiled(SHIPPED, treatments=tuple(doubled), exploration=Exploration("softmax", 1.0))
    decisions = run(catalogue, random_batch(40, 5), Request("app"))
    assert len(decisions.candidates) == 2 * len(set(decisions.actions.tolist()))
    for i in range(40):
        actions = [int(decisions.actions[c.candidate]) for c in decisions.chosen[i]]
        assert len(actions) == len(set(actions))
    pairs = decisions.propensities.reshape(40, -1, 2)
    assert np.array_equal(pairs[:, :, 0], pairs[:, :, 1], equal_nan=True)


def test_refused_reservation_is_selected_around() -> None:
    """Selecting again for one customer leaves out what was refused, keeps the others' rows and fills the slots."""
    catalogue = compiled(SHIPPED, experiment=Experiment("n", "n", (("nba", 1.0),)))
    batch, keys = random_batch(6, 2, consent=1.0), keys_for(6)
    decisions = run(catalogue, batch, Request("app"))
    first = decisions.chosen[3][0].candidate
    again = select_again(decisions, catalogue, 3, [int(decisions.actions[first])], keys)
    assert again.stages[3, first] == Stage.RESERVATION_REFUSED
    assert len(again.chosen[3]) == len(decisions.chosen[3])
    assert first not in [c.candidate for c in again.chosen[3]]
    twice = select_again(again, catalogue, 3, [int(decisions.actions[again.chosen[3][0].candidate])], keys)
    assert (twice.stages[3] == Stage.RESERVATION_REFUSED).sum() == 2
    for i in (0, 1, 2, 4, 5):
        assert again.chosen[i] == decisions.chosen[i]
        assert np.array_equal(again.stages[i], decisions.stages[i])
    assert (decisions.stages[3] != Stage.RESERVATION_REFUSED).all()


def test_selecting_again_draws_with_the_customers_own_key() -> None:
    """Selecting again with nothing refused repeats the answer, whatever the customer's place in the batch."""
    catalogue = compiled(SHIPPED, exploration=Exploration("softmax", 0.5), experiment=ALL_ARMS)
    batch, keys = random_batch(30, 2, consent=1.0), keys_for(30)
    decisions = run(catalogue, batch, Request("app"))
    for i in range(30):
        again = select_again(decisions, catalogue, i, [], keys)
        assert again.chosen == decisions.chosen
        assert again.withheld == decisions.withheld
        assert np.array_equal(again.stages, decisions.stages)


@pytest.mark.parametrize(("starts", "ends", "is_in"), [(0, 1, True), (1, 2, False), (-1, 0, False), (-1, 1, True)])
def test_dates_are_from_inclusive_to_exclusive(starts: int, ends: int, is_in: bool) -> None:
    """An action is valid from its start on, and no longer at its end."""
    actions = [replace(a, starts_at=NOW + starts, ends_at=NOW + ends) for a in SHIPPED.actions]
    decisions = run(compiled(SHIPPED, actions=tuple(actions)), random_batch(3, 1, consent=1.0), Request("app"))
    assert (decisions.stages == Stage.OUT_OF_DATES).any() == (not is_in)
    assert any(decisions.chosen) == is_in


def test_without_a_model_priors_stand_in() -> None:
    """Without a model every propensity is the catalogue's prior; with one, risk is multiplied with the response."""
    catalogue = compiled(SHIPPED)
    batch = random_batch(30, 6, consent=1.0)
    bare = decide(batch, Request("app"), catalogue, None, NOW, keys_for(30))
    scored = run(catalogue, batch, Request("app"))
    as_of, slots = COLUMNS.as_of(batch.facts, NOW), {a.id: k for k, a in enumerate(SHIPPED.actions)}
    assert len(slots) == len(SHIPPED.actions)
    for j, position in enumerate(scored.actions):
        action = SHIPPED.actions[position]
        is_open = ~np.isnan(bare.propensities[:, j])
        assert (bare.propensities[is_open, j] == action.prior).all()
        rows = np.flatnonzero(is_open)
        raw = TableScorer(1).score(batch, as_of, rows, np.full(len(rows), position), NOW, "app")
        expected = {
            Scoring.MODEL: raw,
            Scoring.RISK: raw * action.prior,
            Scoring.PRIOR: np.full(len(rows), action.prior),
        }
        assert np.array_equal(scored.propensities[rows, j], expected[action.scoring])


def test_empty_batch_parts() -> None:
    """A request for a placement of another channel shows nothing, and says so of every candidate."""
    catalogue = compiled(SHIPPED)
    batch = replace(random_batch(3, 1), contacts=NO_CONTACTS)
    decisions = run(catalogue, batch, Request("app", (("email_hero", 1),)))
    assert decisions.chosen == ((), (), ())
    assert not (decisions.stages == Stage.RANKED).any()


def test_contacts_of_others_do_not_count() -> None:
    """Contacts count for the customer they were with."""
    catalogue = compiled(SHIPPED)
    gone = (showing("no_longer_there"),) * 9
    full = Contacts(np.zeros(9, np.int64), np.full(9, NOW - 60), ("impression",) * 9, tuple("abcdefghi"), gone)
    batch = replace(random_batch(2, 1, consent=1.0), contacts=full)
    decisions = run(catalogue, batch, Request("app"))
    capped = (decisions.stages == Stage.CONTACT_POLICY).sum(axis=1)
    assert capped[0] > 0
    assert capped[1] == 0


@pytest.mark.parametrize("unlogged", [True, False])
def test_no_log_no_marketing(unlogged: bool) -> None:
    """Where the decision cannot be logged, only what may go unlogged is shown."""
    batch = replace(random_batch(10, 1, consent=1.0), is_loggable=not unlogged)
    decisions = run(compiled(SHIPPED), batch, Request("app"))
    shown = {SHIPPED.actions[decisions.actions[c.candidate]].may_be_unlogged for row in decisions.chosen for c in row}
    assert shown == ({True} if unlogged else {True, False})

"""Propensities from a bundle: Booster's own bits, whoever is in the batch, and a fair guess for the unknown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.contract import LAYOUT
from features.matrix import ACTION_COLUMNS, LOG_COLUMNS, OFFER_COLUMNS, Columns, ModelInput
from service.adapters.bundle_dir import BundleDir
from service.adapters.scoring import Golden, open_booster, open_lignum, open_predictor
from service.catalogue.loader import load_catalogue
from service.decision.bundle_scorer import BundleScorer, ColdStart, Domain
from service.decision.calibration import Calibrator
from service.decision.compiled import CompiledCatalogue, compile_catalogue
from service.decision.model import Contacts, CustomerBatch, Scorer, Scoring
from tests.small_world import SmallWorld
from training.past import Past

CATALOGUE = Path(__file__).resolve().parents[3] / "service" / "catalogue.yaml"
NOW = 1_509_500_000.0
"""2017-11-01: within the data, so that households of all kinds are there."""


@pytest.fixture(scope="module")
def compiled() -> CompiledCatalogue:
    return compile_catalogue(load_catalogue(CATALOGUE), Columns())


@pytest.fixture(scope="module")
def scorer(small_world: SmallWorld, compiled: CompiledCatalogue) -> Scorer:
    return BundleDir(small_world.models).load(small_world.digest).scorer_for(compiled)


@pytest.fixture(scope="module")
def batch(small_world: SmallWorld) -> CustomerBatch:
    with Past(small_world.history, threads=1) as past:
        facts = past.facts_at(NOW)[:, :60]
    return _batch(facts)


def _batch(facts: np.ndarray) -> CustomerBatch:
    n = facts.shape[1]
    no_contacts = Contacts.none()
    return CustomerBatch(
        tuple(f"c{i}" for i in range(n)),
        facts,
        np.full((len(LAYOUT.views), n), NOW),
        ~np.isnan(facts).all(axis=0),
        np.ones(n, np.int8),
        no_contacts,
    )


def _pairs(batch: CustomerBatch, compiled: CompiledCatalogue) -> tuple[np.ndarray, np.ndarray]:
    scored = [i for i, action in enumerate(compiled.catalogue.actions) if action.scoring is not Scoring.PRIOR]
    customers = np.repeat(np.arange(len(batch.customer_ids)), len(scored))
    return customers, np.tile(np.array(scored), len(batch.customer_ids))


def _read(small_world: SmallWorld, name: str) -> Any:
    return json.loads((small_world.models / small_world.digest / name).read_text())


def test_a_propensity_is_boosters_score_through_the_calibrator_to_the_bit(
    small_world: SmallWorld, scorer: Scorer, compiled: CompiledCatalogue, batch: CustomerBatch
) -> None:
    """The serving path gives what LightGBM and the calibrator give on the same rows, every bit of it."""
    customers, actions = _pairs(batch, compiled)
    columns = Columns()
    as_of = columns.as_of(batch.facts, NOW)
    served = scorer.score(batch, as_of, customers, actions, NOW, "app")
    known = compiled.catalogue.actions
    table = Domain.from_contract(_read(small_world, "contract.json")).restrict(compiled.action_table, known)
    rows = ModelInput(columns).rows(as_of, customers, actions, table)
    raw = open_booster(small_world.models / small_world.digest / "model.txt")(rows)
    calibrator = Calibrator.from_document(_read(small_world, "calibrator.json"))
    expected = calibrator.apply(raw, calibrator.lines((known[a].issue, known[a].group) for a in actions))
    assert np.array_equal(served, expected)
    assert ((served > 0) & (served < 1)).all()
    assert len(np.unique(served)) > 100


def test_a_row_alone_gets_the_bits_it_gets_in_company(
    scorer: Scorer, compiled: CompiledCatalogue, batch: CustomerBatch
) -> None:
    """Scoring n customers at once equals scoring them one by one, pair by pair too."""
    customers, actions = _pairs(batch, compiled)
    columns = Columns()
    together = scorer.score(batch, columns.as_of(batch.facts, NOW), customers, actions, NOW, "app")
    for i in range(len(batch.customer_ids)):
        alone = _batch(batch.facts[:, i : i + 1])
        own = customers == i
        as_of = columns.as_of(alone.facts, NOW)
        zeros = np.zeros(own.sum(), np.int64)
        assert np.array_equal(scorer.score(alone, as_of, zeros, actions[own], NOW, "app"), together[own])
        if i < 3:
            singles = [
                scorer.score(alone, as_of, zeros[:1], actions[own][k : k + 1], NOW, "app")[0] for k in range(own.sum())
            ]
            assert np.array_equal(np.array(singles), together[own])


def test_both_engines_give_the_same_bits(small_world: SmallWorld) -> None:
    """lignum is used only because it equals Booster; here it does, on rows it has not seen."""
    path = small_world.models / small_world.digest / "model.txt"
    fast = open_lignum(path)
    if fast is None:
        pytest.skip("lignum is not installed")
    rows = Golden.from_document(_read(small_world, "golden.json")).rows
    random = np.random.default_rng(1)
    mixed = np.ascontiguousarray(random.permuted(np.repeat(rows, 40, axis=0), axis=0))
    assert np.array_equal(fast(mixed), open_booster(path)(mixed))


def test_booster_serves_where_lignum_does_not_give_its_bits(
    small_world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that is off in the last bit is passed over, with the same scores as ever."""
    import service.adapters.scoring as scoring

    path = small_world.models / small_world.digest / "model.txt"
    golden = Golden.from_document(_read(small_world, "golden.json"))
    exact = open_booster(path)
    monkeypatch.setattr(scoring, "open_lignum", lambda model: lambda rows: np.nextafter(exact(rows), 1.0))
    assert np.array_equal(open_predictor(path, golden)(golden.rows), golden.raw)


def test_the_unknown_customer_is_scored_as_a_typical_new_one(
    small_world: SmallWorld, scorer: Scorer, compiled: CompiledCatalogue, batch: CustomerBatch
) -> None:
    """Nothing known means the cold-start profile, at any time of asking, and not rows of nothing or zeros."""
    cold = ColdStart.from_document(_read(small_world, "cold_start.json"))
    columns = Columns()
    nobody = _batch(np.full((LAYOUT.width, 1), np.nan))
    customers, actions = _pairs(nobody, compiled)
    answers = []
    for now in (NOW, NOW + 86_400 * 30):
        typical = _batch(cold.facts(now))
        expected = scorer.score(typical, columns.as_of(typical.facts, now), customers, actions, now, "app")
        answers.append(scorer.score(nobody, columns.as_of(nobody.facts, now), customers, actions, now, "app"))
        assert np.array_equal(answers[-1], expected)
        zeros = _batch(np.zeros((LAYOUT.width, 1)))
        with np.errstate(divide="ignore"):
            of_zeros = scorer.score(zeros, columns.as_of(zeros.facts, now), customers, actions, now, "app")
        assert not np.array_equal(answers[-1], of_zeros)
    assert np.array_equal(answers[0], answers[1]), "a typical new customer is as new next month"
    stage = columns.as_of(cold.facts(NOW), NOW)[columns.index["stage"], 0]
    assert columns.vocabulary("stage")[int(stage)] == "new"


def test_an_unknown_neighbour_changes_nobodys_score(
    scorer: Scorer, compiled: CompiledCatalogue, batch: CustomerBatch
) -> None:
    """Known customers keep their bits when an unknown one stands in the same batch, and so does the caller's matrix."""
    customers, actions = _pairs(batch, compiled)
    columns = Columns()
    as_of = columns.as_of(batch.facts, NOW)
    before, kept = scorer.score(batch, as_of, customers, actions, NOW, "app"), as_of.copy()
    is_known = batch.is_known.copy()
    is_known[7] = False
    after = scorer.score(replace(batch, is_known=is_known), as_of, customers, actions, NOW, "app")
    own = customers == 7
    assert np.array_equal(before[~own], after[~own])
    assert not np.array_equal(before[own], after[own])
    assert np.array_equal(as_of, kept, equal_nan=True)


def test_evidence_counts_positives_of_the_issue_and_member(
    small_world: SmallWorld, scorer: Scorer, compiled: CompiledCatalogue
) -> None:
    """An action has the positives its own cell was trained on; an assumed response has none behind it."""
    counted = _read(small_world, "evidence.json")
    for action, evidence in zip(compiled.catalogue.actions, scorer.evidence, strict=True):
        is_learnt = action.scoring is Scoring.MODEL
        expected = counted.get(f"{action.issue}|{action.member or ''}", 0) if is_learnt else 0
        assert evidence == expected
    assert (scorer.evidence > 0).sum() > 10
    assert (scorer.evidence == 0).any()


def test_a_kind_of_action_that_was_never_seen_is_read_as_the_nearest_seen(compiled: CompiledCatalogue) -> None:
    """A response window beyond training's is clipped to it, and an unseen campaign type counts as none."""
    domain = Domain({"cross_sell": (30.0, 30.0)}, {"cross_sell": ()})
    issues = [action.issue for action in compiled.catalogue.actions]
    table = compiled.action_table
    table = replace(table, statics=np.where(np.isnan(table.statics), 1.0, table.statics))
    restricted = domain.restrict(table, compiled.catalogue.actions)
    own = np.array(issues) == "cross_sell"
    assert (restricted.statics[own, 3] == 30.0).all()
    assert np.isnan(restricted.statics[own, 2]).all()
    told = [i for i, name in enumerate(ACTION_COLUMNS) if name not in LOG_COLUMNS]
    assert np.array_equal(restricted.statics[~own][:, told], table.statics[~own][:, told])
    assert not np.isnan(table.statics).any(), "the catalogue's own table is left alone"


def test_an_offer_is_read_within_what_the_issue_has_seen(compiled: CompiledCatalogue) -> None:
    """Coupons and breadth are clipped to training's; an issue that never saw an offer has none."""
    offers = {"upsell": {"offer_coupons": (1.0, 5.0), "offer_breadth": (0.1, 1.0)}}
    seen = {"window_days": [30.0, 30.0], "campaign_types": []}
    actions = {"cross_sell": seen, "upsell": {**seen, "offers": offers["upsell"]}}
    domain = Domain.from_contract({"actions": actions})
    assert domain.offers["upsell"] == offers["upsell"]
    issues = np.array([action.issue for action in compiled.catalogue.actions])
    table = replace(compiled.action_table, statics=np.full_like(compiled.action_table.statics, 0.0))
    places = [ACTION_COLUMNS.index(name) for name in OFFER_COLUMNS]
    restricted = domain.restrict(table, compiled.catalogue.actions).statics[:, places]
    assert (restricted[issues == "upsell"] == [1.0, 0.1]).all()
    assert np.isnan(restricted[issues == "cross_sell"]).all()
    assert (restricted[issues == "retention"] == 0.0).all()


def _scorer_of(compiled: CompiledCatalogue, domain: Domain, counts: dict[str, float]) -> BundleScorer:
    """A scorer whose score is the sum of the codes of what the action is."""
    places = [ModelInput(Columns()).names.index(name) for name in ("dimension", "action", "channel")]
    return BundleScorer(
        compiled, version="v", predict=lambda rows: np.nansum(rows[:, places], axis=1), calibrator=CALIBRATOR,
        cold_start=ColdStart(np.full(LAYOUT.width, np.nan)), evidence=counts, domain=domain, columns=Columns(),
    )  # fmt: skip


CALIBRATOR = Calibrator(np.ones(5), np.array([0.0, 0.0, 0.0, 0.0, 0.5]), {("cross_sell", "fresh"): 4})


def test_a_rare_action_is_scored_as_any_of_its_group_and_an_unseen_issue_not_at_all(
    compiled: CompiledCatalogue, batch: CustomerBatch
) -> None:
    """Too few positives take the name from a row, not the customer's own facts; what was never seen has no score."""
    known = compiled.catalogue.actions
    domain = Domain({"cross_sell": (30.0, 30.0)}, {"cross_sell": ()}, members={"cross_sell": frozenset({"seafood"})})
    counts = {"cross_sell|seafood": 90.0, "cross_sell|deli": 3.0}
    scorer = _scorer_of(compiled, domain, counts)
    of = {action.id: i for i, action in enumerate(known)}
    seafood, deli, rare, unseen = (
        of[name] for name in ("cross_sell_seafood", "cross_sell_deli", "cross_sell_coffee_tea", "upsell_cheese")
    )
    assert [scorer.sources[i] for i in (seafood, deli, rare, unseen)] == ["model", "group", "group", "prior"]
    assert scorer.evidence[[seafood, deli, rare, unseen]].tolist() == [90.0, 3.0, 0.0, 0.0]
    actions = np.array([seafood, deli, rare, unseen])
    as_of = Columns().as_of(batch.facts, NOW)
    scores = scorer.score(batch, as_of, np.zeros(4, np.int64), actions, NOW, "app")
    code = scorer.rows(batch, as_of, np.zeros(1, np.int64), actions[:1], NOW, "app")[0]
    place = scorer.names.index("dimension")
    # Fresh actions are half a unit of log-odds above their issue; coffee, of another group, is not.
    expected = 1 / (1 + np.exp(-np.array([code[place] + 0.5, 0.5, 0.0])))
    np.testing.assert_allclose(scores[:3], expected, rtol=1e-12)
    assert np.isnan(scores[3])
    rows = scorer.rows(batch, as_of, np.zeros(3, np.int64), actions[:3], NOW, "app")
    assert np.isnan(rows[1:, place]).all()
    own = scorer.names.index("aisle_baskets_count")
    assert np.array_equal(
        rows[:, own], as_of[compiled.action_table.relative_rows[actions[:3]], 0][:, _relative(own)], True
    )


def _relative(place: int) -> int:
    return place - len(ModelInput(Columns()).columns.scalars)


def test_an_action_with_a_log_of_its_own_and_a_channel_are_told_apart_by_name(
    compiled: CompiledCatalogue, batch: CustomerBatch
) -> None:
    """Codes are those of the model's own log; a channel that it never saw is no channel."""
    texts = {"action": ("cross_sell_deli", "cross_sell_seafood"), "channel": ("app", "email")}
    domain = Domain({"cross_sell": (30.0, 30.0)}, {"cross_sell": ()}, members={"cross_sell": frozenset()}, logged=texts)
    scorer = _scorer_of(compiled, domain, {"cross_sell|deli": 25.0})
    deli = np.array([compiled.catalogue.index["cross_sell_deli"]])
    coffee = np.array([compiled.catalogue.index["cross_sell_coffee_tea"]])
    as_of, first = Columns().as_of(batch.facts, NOW), np.zeros(1, np.int64)
    places = [scorer.names.index(name) for name in LOG_COLUMNS]
    for channel, code in (("app", 0.0), ("email", 1.0), ("till", np.nan)):
        rows = [scorer.rows(batch, as_of, first, action, NOW, channel)[0, places] for action in (deli, coffee)]
        assert np.array_equal(rows, [[0.0, code], [np.nan, code]], equal_nan=True)
    assert scorer.sources[deli[0]] == "model"
    assert scorer.sources[coffee[0]] == "group"


def test_no_pair_gives_no_score(scorer: Scorer, batch: CustomerBatch) -> None:
    """An empty question has an empty answer."""
    nothing = np.zeros(0, np.int64)
    assert scorer.score(batch, Columns().as_of(batch.facts, NOW), nothing, nothing, NOW, "app").shape == (0,)

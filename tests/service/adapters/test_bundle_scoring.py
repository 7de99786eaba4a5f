"""Propensities from a bundle: Booster's own bits, whoever is in the batch, and a fair guess for the unknown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.contract import LAYOUT
from features.matrix import ACTION_COLUMNS, OFFER_COLUMNS, Columns, ModelInput
from service.adapters.bundle_dir import BundleDir
from service.adapters.scoring import Golden, open_booster, open_lignum, open_predictor
from service.catalogue.loader import load_catalogue
from service.decision.bundle_scorer import ColdStart, Domain
from service.decision.calibration import Calibrator
from service.decision.compiled import CompiledCatalogue, compile_catalogue
from service.decision.model import ISSUES, Contacts, CustomerBatch, Scorer, Scoring
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
    served = scorer.score(batch, as_of, customers, actions, NOW)
    table = Domain.from_document(_read(small_world, "contract.json")["actions"]).restrict(
        compiled.action_table, [action.issue for action in compiled.catalogue.actions]
    )
    rows = ModelInput(columns).rows(as_of, customers, actions, table)
    raw = open_booster(small_world.models / small_world.digest / "model.txt")(rows)
    issues = np.array([float(ISSUES.index(compiled.catalogue.actions[a].issue)) for a in actions])
    expected = Calibrator.from_document(_read(small_world, "calibrator.json")).apply(raw, issues)
    assert np.array_equal(served, expected)
    assert ((served > 0) & (served < 1)).all()
    assert len(np.unique(served)) > 100


def test_a_row_alone_gets_the_bits_it_gets_in_company(
    scorer: Scorer, compiled: CompiledCatalogue, batch: CustomerBatch
) -> None:
    """Scoring n customers at once equals scoring them one by one, pair by pair too."""
    customers, actions = _pairs(batch, compiled)
    columns = Columns()
    together = scorer.score(batch, columns.as_of(batch.facts, NOW), customers, actions, NOW)
    for i in range(len(batch.customer_ids)):
        alone = _batch(batch.facts[:, i : i + 1])
        own = customers == i
        as_of = columns.as_of(alone.facts, NOW)
        zeros = np.zeros(own.sum(), np.int64)
        assert np.array_equal(scorer.score(alone, as_of, zeros, actions[own], NOW), together[own])
        if i < 3:
            singles = [scorer.score(alone, as_of, zeros[:1], actions[own][k : k + 1], NOW)[0] for k in range(own.sum())]
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
        expected = scorer.score(typical, columns.as_of(typical.facts, now), customers, actions, now)
        answers.append(scorer.score(nobody, columns.as_of(nobody.facts, now), customers, actions, now))
        assert np.array_equal(answers[-1], expected)
        zeros = _batch(np.zeros((LAYOUT.width, 1)))
        with np.errstate(divide="ignore"):
            of_zeros = scorer.score(zeros, columns.as_of(zeros.facts, now), customers, actions, now)
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
    before, kept = scorer.score(batch, as_of, customers, actions, NOW), as_of.copy()
    is_known = batch.is_known.copy()
    is_known[7] = False
    after = scorer.score(replace(batch, is_known=is_known), as_of, customers, actions, NOW)
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
    restricted = domain.restrict(table, issues)
    own = np.array(issues) == "cross_sell"
    assert (restricted.statics[own, 3] == 30.0).all()
    assert np.isnan(restricted.statics[own, 2]).all()
    assert np.array_equal(restricted.statics[~own], table.statics[~own])
    assert not np.isnan(table.statics).any(), "the catalogue's own table is left alone"


def test_an_offer_is_read_within_what_the_issue_has_seen(compiled: CompiledCatalogue) -> None:
    """Coupons and breadth are clipped to training's; an issue that never saw an offer has none."""
    offers = {"upsell": {"offer_coupons": (1.0, 5.0), "offer_breadth": (0.1, 1.0)}}
    seen = {"window_days": [30.0, 30.0], "campaign_types": []}
    domain = Domain.from_document({"cross_sell": seen, "upsell": {**seen, "offers": offers["upsell"]}})
    assert domain.offers["upsell"] == offers["upsell"]
    issues = np.array([action.issue for action in compiled.catalogue.actions])
    table = replace(compiled.action_table, statics=np.full_like(compiled.action_table.statics, 0.0))
    places = [ACTION_COLUMNS.index(name) for name in OFFER_COLUMNS]
    restricted = domain.restrict(table, issues.tolist()).statics[:, places]
    assert (restricted[issues == "upsell"] == [1.0, 0.1]).all()
    assert np.isnan(restricted[issues == "cross_sell"]).all()
    assert (restricted[issues == "retention"] == 0.0).all()


def test_no_pair_gives_no_score(scorer: Scorer, batch: CustomerBatch) -> None:
    """An empty question has an empty answer."""
    nothing = np.zeros(0, np.int64)
    assert scorer.score(batch, Columns().as_of(batch.facts, NOW), nothing, nothing, NOW).shape == (0,)

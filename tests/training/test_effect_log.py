"""The effect of being shown, learned from a log with a hold-out, and served from a bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from features.contract import REGISTERED_MODEL
from features.matrix import Columns
from service.adapters.bundle_dir import BundleDir
from service.adapters.journal_entries import encode
from service.adapters.model_check import check_in_child
from service.catalogue.loader import load_catalogue
from service.decision.bundle_scorer import Domain
from service.decision.engine import compile_catalogue, decide
from service.decision.model import Request
from service.model_agent import sync_once
from service.ports import BundleRefused, Event
from tests.service.decision.worlds import NOW, keys_for
from tests.small_world import SmallWorld, feast_environment
from tests.training.core_log import DAY, CoreLog, catalogue_at
from training.attributable import attributable_shares
from training.effect_log import document_of, effect_rows, success_moments, treated_share
from training.evaluate_policy import read_decisions
from training.uplift import CannotLearn, Effect, EffectRows, fit_effect
from training.uplift_version import register_with_effect

HELD_OUT = {
    "experiment": {"id": "lift", "salt": "lift", "arms": {"nba": 0.5, "holdout": 0.5}},
    "exploration": {"strategy": "epsilon_greedy", "parameter": 0.5},
    "caps": {},
}
BOUGHT = {"fish": (0.10, 0.20), "cake": (0.35, 0.15)}
"""action -> P(bought | not shown), P(bought | shown): fish persuades, cake is a sleeping dog."""
ISSUE_OF = {"fish": "cross_sell", "cake": "upsell"}
AISLES = {"fish": "seafood", "cake": "bread_bakery"}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> CoreLog:
    """A log of some weeks in which those who see cake buy less of it."""
    folder = tmp_path_factory.mktemp("effects")
    path = catalogue_at(folder / "catalogue.yaml", HELD_OUT)
    catalogue = load_catalogue(path)
    actions = [replace(a, success_rule=f"purchase:{AISLES[a.id]}", positive="conversion") if a.id in AISLES else a
               for a in catalogue.actions]  # fmt: skip
    made = CoreLog(folder, replace(catalogue, actions=tuple(actions)), customers=900, seed=3)
    for week in range(4):
        for row in made.decide(Request("app", (("home", 2),)), 8.0 * week):
            shown = {row.treatment_ids[candidate].split(".")[0] for candidate, _, _ in row.chosen}
            for action, aisle in AISLES.items():
                if made.random.random() < BOUGHT[action][action in shown]:
                    bought = {"lines": [{"aisle": aisle, "quantity": 1, "sales_value": 2.0}]}
                    event = Event(
                        f"{row.decision_id}-{action}", row.customer_id, "purchase", row.decision_time + DAY, bought
                    )
                    made.append(row.customer_id, "event", encode(event))
    made.close()
    return made


@pytest.fixture(scope="module")
def rows(log: CoreLog) -> EffectRows:
    decisions = list(read_decisions(log.lake.folder, 0.0, NOW + 99 * DAY))
    moments = success_moments(log.lake.folder)
    return effect_rows(decisions, moments, log.catalogue, lambda version: log.catalogue, Domain({}, {}), NOW + 60 * DAY)


@pytest.fixture(scope="module")
def effect(rows: EffectRows) -> Effect:
    return fit_effect(rows, resamples=20)


def test_treated_and_control_are_what_chance_parted(log: CoreLog, rows: EffectRows):
    """Placements of nba are treated, those withheld are control, each with the share of its customers."""
    assert treated_share(log.catalogue, "cross_sell") == 0.5
    placed = sum(
        row.treatment_ids[c].split(".")[0] in AISLES for row in log.rows if row.arm == "nba" for c, *_ in row.chosen
    )
    withheld = sum(row.treatment_ids[c].split(".")[0] in AISLES for row in log.rows for c, *_ in row.withheld)
    assert 0 < rows.treated.sum() <= placed
    assert 0 < (~rows.treated).sum() <= withheld
    assert set(rows.propensities.tolist()) == {0.5}
    assert set(rows.actions) == set(AISLES)


def test_outcomes_are_counted_alike_in_both_groups(rows: EffectRows):
    """Rates of success are those of the world, whether an action was shown or withheld."""
    for action, (without, shown) in BOUGHT.items():
        own = rows.actions == action
        assert abs(rows.outcomes[own & rows.treated].mean() - shown) < 0.06
        assert abs(rows.outcomes[own & ~rows.treated].mean() - without) < 0.06


def test_what_is_known_is_said_by_action(effect: Effect):
    """Fish is known to persuade and cake to do harm."""
    assert {name for name, found in effect.actions.items() if found.is_significant} == {"fish", "cake"}
    assert effect.actions["fish"].effect.low > 0.0 > effect.actions["cake"].effect.high


def test_a_hold_out_by_issue_makes_control_of_its_issue_alone(log: CoreLog):
    """Half of nba held out of retention is control there; other issues lose their share of treated customers."""
    held = replace(log.catalogue.experiment, arms=(("nba", 0.8), ("holdout", 0.2)), holdouts=(("retention", 0.5),))
    catalogue = replace(log.catalogue, experiment=held)
    assert treated_share(catalogue, "retention") == pytest.approx(0.4 / (0.4 + 0.2 + 0.4))
    assert treated_share(catalogue, "cross_sell") == pytest.approx(0.4 / 0.6)


def test_a_log_without_success_rules_is_refused(log: CoreLog):
    """Where no action says what a success is, it says so."""
    plain = replace(log.catalogue, actions=tuple(replace(a, success_rule="") for a in log.catalogue.actions))
    with pytest.raises(CannotLearn, match="success rule"):
        effect_rows(log.rows, {}, plain, lambda version: plain, Domain({}, {}), NOW + 60 * DAY)


@pytest.fixture(scope="module")
def lifted(small_world: SmallWorld, effect: Effect, rows: EffectRows) -> Iterator[str]:
    """The champion's propensities with this effect model, as champion; afterwards all is as before."""
    client = MlflowClient(small_world.mlflow_uri, small_world.mlflow_uri)
    before = client.get_registered_model(REGISTERED_MODEL).aliases
    document = json.dumps(document_of(effect, rows, ISSUE_OF)).encode()
    version = register_with_effect(small_world.mlflow_uri, before["champion"], effect, document, rows)
    client.set_registered_model_alias(REGISTERED_MODEL, "champion", version)
    yield version
    for alias in client.get_registered_model(REGISTERED_MODEL).aliases:
        client.delete_registered_model_alias(REGISTERED_MODEL, alias)
    for alias, number in before.items():
        client.set_registered_model_alias(REGISTERED_MODEL, alias, number)
    client.delete_model_version(REGISTERED_MODEL, version)


def test_the_bundle_serves_uplift_where_it_is_significant_and_leaves_sleeping_dogs_alone(
    small_world: SmallWorld, log: CoreLog, lifted: str, rows: EffectRows, effect: Effect, tmp_path: Path
):
    """The agent makes its bundle; cake below zero is left alone, fish goes by its effect, and damage is refused."""
    aliases = (
        MlflowClient(small_world.mlflow_uri, small_world.mlflow_uri).get_registered_model(REGISTERED_MODEL).aliases
    )
    assert str(aliases["challenger"]) == lifted
    with feast_environment(small_world.var) as registry:
        digest = sync_once(tmp_path / "models", small_world.mlflow_uri, registry)
    assert digest is not None
    bundle = BundleDir(tmp_path / "models").load(digest)
    assert bundle.model_version.endswith(f"/{lifted}")
    catalogue = replace(log.catalogue, estimates={"cross_sell": "uplift"})
    compiled = compile_catalogue(catalogue, Columns())
    scorer = bundle.scorer_for(compiled)
    n = len(log.batch.customer_ids)
    decisions = decide(log.batch, Request("app", (("home", 2),)), compiled, scorer, NOW, keys_for(n))
    ids = np.array([catalogue.actions[a].id for a in decisions.actions])
    [fish], [cake], [rare] = (np.flatnonzero(ids == name) for name in ("fish", "cake", "rare"))
    known = ~np.isnan(decisions.uplifts[:, fish])
    assert known.sum() > 50
    assert np.nanmean(decisions.uplifts[:, fish]) == pytest.approx(effect.actions["fish"].effect.value, abs=0.05)
    assert (decisions.uplifts[:, cake][~np.isnan(decisions.uplifts[:, cake])] < 0).mean() > 0.95
    assert np.isnan(decisions.uplifts[:, rare]).all()
    shares = {action.issue: scorer.attributable[i] for i, action in enumerate(catalogue.actions)}
    known = attributable_shares(rows, effect.robust, ISSUE_OF)["cross_sell"]
    assert known.low <= 0.5 <= known.high  # of those who see fish .20 buy, and half of them would have anyway
    assert shares["cross_sell"] == min(max(known.value, 0.0), 1.0)
    assert shares["retention"] == 1.0
    placed = [{c.candidate for c in chosen} for chosen in decisions.chosen]
    assert sum(fish in one for one in placed) > 5
    dogs = np.flatnonzero(decisions.uplifts[:, cake] < 0)
    assert len(dogs) > 50
    assert not any(cake in placed[i] for i in dogs)
    folder = tmp_path / "models" / digest
    text = (folder / "uplift.txt").read_text()
    (folder / "uplift.txt").write_text(text[: len(text) // 2])
    with pytest.raises(BundleRefused, match=r"uplift\.txt is damaged"):
        BundleDir(tmp_path / "models").load(digest)
    with pytest.raises(ValueError, match="whole LightGBM text model"):
        check_in_child(folder)

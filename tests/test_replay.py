"""A logged decision is made anew from the lake, bit for bit, whatever stage, arm or lack it met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.version import features_version
from service.adapters.bundle_dir import BundleDir
from service.adapters.journal_entries import encode_decision
from service.adapters.parquet_lake import ParquetLake
from service.catalogue.loader import load_catalogue
from service.decision.engine import CompiledCatalogue, compile_catalogue, decide, select_again
from service.decision.experiment import ARMS
from service.decision.log_columns import from_columns
from service.decision.log_row import LogRows
from service.decision.model import CustomerBatch, Evidence, Experiment, Exploration, Ramp, Request, Scorer, Stage
from service.decision.record import DecisionRow, decision_id_from, random_key
from service.decision.replay import AnotherCatalogue, decide_again, differences
from service.past import NO_BUNDLE, NO_CONTRACT, look_back
from tests.service.decision.worlds import CATALOGUE, COLUMNS, NOW, one_of, random_batch, random_contacts
from tests.small_world import SmallWorld

STRATEGIES = (("none", 0.0), ("epsilon_greedy", 0.2), ("softmax", 0.4), ("thompson", 0.0))
REQUESTS = (
    Request("app"),
    Request("email", limit=2),
    Request("app", (("app_home", 2),), issues=("upsell", "retention"), limit=5, locale="pt"),
    Request("till"),
)


@pytest.fixture(scope="module")
def worlds(small_world: SmallWorld) -> list[tuple[CompiledCatalogue, Scorer]]:
    """The shipped catalogue with every strategy, its arms in equal shares, and a real model's scorer for each."""
    shipped = load_catalogue(CATALOGUE)
    arms = tuple((arm, 1 / len(ARMS)) for arm in ARMS)
    layers = Experiment("e", "salt", arms, (("catalogued", 0.9), ("none", 0.1)), (("retention", 0.1), ("upsell", 0.1)))
    bundle = BundleDir(small_world.models).load(small_world.digest)
    made = []
    for strategy, parameter in STRATEGIES:
        catalogue = compile_catalogue(
            replace(shipped, experiment=layers, exploration=Exploration(strategy, parameter, ramp=Ramp())),
            COLUMNS,
        )
        made.append((catalogue, bundle.scorer_for(catalogue)))
    return made


def logged(worlds: list[tuple[CompiledCatalogue, Scorer]], n: int) -> Iterator[tuple[int, DecisionRow]]:
    """Decide for n customers, all unlike, and yield the row of each with the world it was decided in."""
    rng = np.random.default_rng(7)
    actions = tuple(action.id for action in worlds[0][0].catalogue.actions)
    for block in range(0, n, 250):
        batch = random_batch(250, block, consent=0.8)
        batch = replace(batch, contacts=random_contacts(250, block, actions, per_customer=3))
        for i in range(250):
            w = int(rng.integers(len(worlds)))
            yield w, one_row(worlds[w], one_of(batch, i), REQUESTS[int(rng.integers(len(REQUESTS)))], rng)


def one_row(
    world: tuple[CompiledCatalogue, Scorer], alone: CustomerBatch, request: Request, rng: np.random.Generator
) -> DecisionRow:
    """Decide for one, sometimes without facts, log or some actions, and return the row."""
    catalogue, scorer = world
    luck, reasons = rng.random(), ()
    if luck < 0.1:
        alone = replace(alone, paused=frozenset({("issue", "upsell"), ("group", "dairy")}))
    elif luck < 0.2:
        alone, reasons = replace(alone, is_loggable=False), ("log_unavailable",)
    elif luck < 0.3:
        facts, views = np.full_like(alone.facts, np.nan), np.full_like(alone.view_times, np.nan)
        alone = replace(alone, facts=facts, view_times=views, is_known=np.array([False]))
        reasons = ("features_unavailable",)
    declared = next(field for field in catalogue.catalogue.context if field.vocabulary)
    request = replace(request, context={declared.name: float(rng.integers(len(declared.vocabulary)))})
    decision_id = decision_id_from(rng.bytes(16), alone.customer_ids[0])
    keys = np.array([random_key(decision_id, alone.customer_ids[0])], np.uint64)
    now = NOW + float(rng.random()) * 86_400
    n_actions = len(catalogue.catalogue.actions)
    evidence = Evidence(rng.poisson(0.4, n_actions) * 0.7, rng.poisson(0.4, n_actions) * rng.random(n_actions))
    decisions = decide(
        alone, request, catalogue, scorer, now, keys, evidence=evidence, challenger=scorer if luck > 0.5 else None
    )
    is_reselected = luck > 0.8 and bool(decisions.chosen[0])
    if is_reselected:
        refused = [int(decisions.actions[choice.candidate]) for choice in decisions.chosen[0][:1]]
        decisions = select_again(decisions, catalogue, 0, refused, keys)
    return LogRows(alone, decisions, catalogue).row(
        0,
        decision_id,
        model_version=scorer.version,
        features_version="f",
        bundle_digest="b",
        degraded_reasons=reasons,
        reselected=is_reselected,
    )


def through_the_lake(folder: Path, rows: list[DecisionRow]) -> dict[str, DecisionRow]:
    """Write rows through the journal's form into a lake and read its files back, by decision."""
    entries = [(f"1700000000000-{n}", "decision", encode_decision(row)) for n, row in enumerate(rows)]
    ParquetLake(folder).write(0, entries)
    files = sorted((folder / "decisions").rglob("*.parquet"))
    read = [from_columns(columns) for path in files for columns in pq.read_table(path, partitioning=None).to_pylist()]
    return {row.decision_id: row for row in read}


def check(worlds: list[tuple[CompiledCatalogue, Scorer]], folder: Path, n: int) -> Counter[str]:
    """Decide, log and decide again n times; return how often each stage, arm and lack was met."""
    made = list(logged(worlds, n))
    back = through_the_lake(folder, [row for _, row in made])
    met: Counter[str] = Counter(bytes=int(np.median([len(encode_decision(row)) for _, row in made])))
    for w, row in made:
        catalogue, scorer = worlds[w]
        stored = back[row.decision_id]
        again = decide_again(stored, catalogue, scorer)
        assert differences(stored, again, catalogue) == ()
        met.update(Stage(int(stage)).name for stage in np.unique(np.frombuffer(row.stages, np.int8)))
        met.update((row.arm, *row.degraded_reasons))
    return met


def check_all_was_met(met: Counter[str]) -> None:
    stages = {"RANKED", "SWITCHED_OFF", "ISSUE_NOT_ASKED", "NO_CONSENT", "ELIGIBILITY", "APPLICABILITY", "SUITABILITY"}
    stages |= {"OUT_OF_REACH", "CONTACT_POLICY", "MUST_BE_LOGGED", "NOT_SELECTED", "HELD_OUT", "RESERVATION_REFUSED"}
    assert stages <= set(met), stages - set(met)
    assert {*ARMS, "log_unavailable", "features_unavailable"} <= set(met)


def test_logged_decisions_are_made_anew(worlds: list[tuple[CompiledCatalogue, Scorer]], tmp_path: Path) -> None:
    """Every one of 750 decisions over all arms, strategies and lacks is the same when it is made from the lake."""
    check_all_was_met(check(worlds, tmp_path, 750))


@pytest.mark.prove
def test_ten_thousand_logged_decisions_are_made_anew(
    worlds: list[tuple[CompiledCatalogue, Scorer]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of 10,000 logged decisions are the same, to the bit, when they are made from the lake."""
    met = check(worlds, tmp_path, 10_000)
    check_all_was_met(met)
    with capsys.disabled():
        print(f"\n10,000 of 10,000 made anew to the bit; {met.pop('bytes')} bytes a row in the journal (median)")
        print("decisions that met each:", dict(met.most_common()))


def test_another_decision_is_not_taken_for_the_same(worlds: list[tuple[CompiledCatalogue, Scorer]]) -> None:
    """A row in which a switch or a number was changed is not what it was made of, and the difference is named."""
    w, row = next((w, row) for w, row in logged(worlds, 250) if row.chosen and not row.paused)
    catalogue, scorer = worlds[w]
    assert differences(row, decide_again(row, catalogue, scorer), catalogue) == ()
    paused = replace(row, paused=(("all", ""),))
    assert "stages" in differences(paused, decide_again(paused, catalogue, scorer), catalogue)
    propensities = np.frombuffer(row.propensities, "<f8") * (1 + 2**-52)
    nudged = replace(row, propensities=propensities.tobytes())
    assert differences(nudged, decide_again(nudged, catalogue, scorer), catalogue) == ("propensities",)
    ours = replace(row, features_version=features_version(), bundle_digest="b")
    assert (look_back(ours, catalogue, scorer).is_recomputed, look_back(ours, catalogue, scorer).why) == (True, "")
    assert look_back(ours, catalogue, None).why == NO_BUNDLE
    assert look_back(row, catalogue, scorer).why == NO_CONTRACT
    assert look_back(replace(ours, paused=(("all", ""),)), catalogue, scorer).why.startswith("made anew it differs in")
    with pytest.raises(AnotherCatalogue):
        decide_again(replace(row, treatment_ids=row.treatment_ids[1:]), catalogue, scorer)

"""Simulated policies meet the same households and luck, and the truth orders them as it must."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from features.matrix import Columns
from service.catalogue.loader import load_catalogue
from service.decision.engine import CompiledCatalogue, compile_catalogue
from tests.small_world import SmallWorld
from training.books import Day
from training.policies import make_policy
from training.simulator import Policy, Setting, Simulation
from training.world import SLEEPING_DOG, Pairs

CATALOGUE = Path(__file__).resolve().parents[2] / "service" / "catalogue.yaml"
START, DAYS = datetime(2017, 6, 5, 5, tzinfo=UTC), 35


@pytest.fixture(scope="module")
def base() -> CompiledCatalogue:
    return compile_catalogue(load_catalogue(CATALOGUE), Columns())


@pytest.fixture(scope="module")
def setting(small_world: SmallWorld, base: CompiledCatalogue) -> Setting:
    return Setting(small_world.history, base, START, DAYS, seed=5)


@pytest.fixture(scope="module")
def runs(setting: Setting) -> dict[str, list[Day]]:
    names = ("random", "oracle", "oracle_full", "best_single", "nba")
    return {name: list(Simulation(setting, make_policy(name, setting)).run()) for name in names}


@dataclass(frozen=True)
class Learned:
    """The learning policy before and after a run of its own."""

    before: CompiledCatalogue
    policy: Policy
    simulation: Simulation
    books: list[Day]


@pytest.fixture(scope="module")
def learned(setting: Setting) -> Learned:
    policy = make_policy("nba", setting)
    before, simulation = policy.catalogue(), Simulation(setting, policy)
    return Learned(before, policy, simulation, list(simulation.run()))


def _gain(days: list[Day]) -> float:
    return sum(day.gain for day in days)


def test_the_truth_orders_the_policies(runs: dict[str, list[Day]]) -> None:
    """Who knows all gains most, then who knows what facts say; chance and a single action come far behind."""
    full, told, single, chance = (_gain(runs[name]) for name in ("oracle_full", "oracle", "best_single", "random"))
    assert full > told > 1.5 * max(single, chance)


def test_every_policy_meets_the_same_households(runs: dict[str, list[Day]]) -> None:
    """Traffic does not depend on what is decided."""
    met = {name: [day.decisions for day in days] for name, days in runs.items()}
    assert sum(met["random"]) > 1000
    assert all(days == met["random"] for days in met.values())


def test_books_add_up(runs: dict[str, list[Day]]) -> None:
    """By issue, stage, segment and arm the gains of a day are the day's gain."""
    for days in runs.values():
        for day in days:
            for part in (day.by_issue, day.by_stage, day.by_segment, day.by_arm):
                assert np.isclose(sum(gain for _, gain in part.values()), day.gain)
            assert sum(n for n, _ in day.by_issue.values()) == day.shown


def test_who_knows_all_leaves_sleeping_dogs_alone(runs: dict[str, list[Day]]) -> None:
    """Nothing that does harm is shown by the full truth; chance shows plenty of it."""
    harmed = {name: sum(d.by_segment.get(SLEEPING_DOG, (0, 0.0))[0] for d in days) for name, days in runs.items()}
    assert harmed["oracle_full"] == 0
    assert harmed["random"] > 100


def test_the_same_seed_is_the_same_run(learned: Learned, runs: dict[str, list[Day]]) -> None:
    """A second run of the learning policy gives the same books, to the last bit."""
    assert learned.books == runs["nba"]


def test_the_engine_learns_from_its_log(learned: Learned) -> None:
    """After a month the priors give way to a model, and held-out households to an estimate of the effect."""
    assert learned.policy.catalogue() is not learned.before
    scorer = learned.policy.scorer(learned.simulation)
    assert scorer is not None
    assert scorer.evidence.sum() > 50


def test_no_fact_tells_the_unobservable_part(setting: Setting) -> None:
    """What facts say is right on average, and wrong for single households by the share that was declared."""
    n, k = len(setting.customer_ids), len(setting.base.catalogue.actions)
    pairs = Pairs(setting.first_columns(), *np.divmod(np.arange(n * k), k))
    households, none = np.arange(n * k) // k, np.zeros(n * k)
    _, true = setting.world.probabilities(pairs, households, "app", setting.start, none)
    _, told = setting.world.expected(pairs, "app", setting.start, none)
    assert abs(true.mean() - told.mean()) < 0.01
    unseen = np.var(np.log(true / (1 - true)) - np.log(told / (1 - told))) / np.var(np.log(true / (1 - true)))
    assert 0.2 < unseen < 0.4


def test_new_actions_come_late(setting: Setting) -> None:
    """They cannot be offered on the first day, and can when their day has come."""
    born = setting.world.is_born(setting.start)
    assert born.sum() == len(born) - len(setting.world.parameters.new_actions)
    assert setting.world.is_born(setting.start + 61 * 86_400).all()


def test_an_unknown_policy_is_named(setting: Setting) -> None:
    """The error lists what there is."""
    with pytest.raises(ValueError, match="choose one of nba"):
        make_policy("luck", setting)


def test_the_shipped_catalogue_is_the_one_simulated(setting: Setting, base: CompiledCatalogue) -> None:
    """Rules and caps of the policy under test are the catalogue's own."""
    catalogue = make_policy("oracle", setting).catalogue().catalogue
    assert catalogue.rules == base.catalogue.rules
    assert catalogue.caps == base.catalogue.caps
    assert replace(base.catalogue.actions[0], scoring=catalogue.actions[0].scoring) == catalogue.actions[0]

"""Evidence: what the script of outcomes keeps, what a process reads of it, and that it moves exploration at once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import numpy as np

from features.contract import LAYOUT
from features.layout import SECONDS_PER_DAY
from service.adapters.connection import Link
from service.adapters.evidence_reader import EvidenceReader
from service.adapters.redis_journal import RedisJournal
from service.adapters.redis_state import RedisState
from service.catalogue.loader import load_catalogue
from service.decision.engine import CompiledCatalogue, compile_catalogue, decide
from service.decision.model import Decisions, Evidence, Experiment, Exploration, Request
from service.ports import Caps, Offer, Outcome
from tests.service.decision.worlds import CATALOGUE, COLUMNS, NOW, TableScorer, keys_for, random_batch
from tests.service.rows import decision_row

HALF_LIFE_DAYS = 10.0


def catalogue_with(exploration: Exploration) -> CompiledCatalogue:
    everyone = Experiment("e", "s", (("nba", 1.0),))
    return compile_catalogue(replace(load_catalogue(CATALOGUE), exploration=exploration, experiment=everyone), COLUMNS)


THOMPSON = catalogue_with(Exploration("thompson", half_life_days=HALF_LIFE_DAYS))
ACTIONS = THOMPSON.catalogue.index


@dataclass
class Now:
    """A clock that stands where it is put."""

    at: float

    def now(self) -> float:
        """Return the moment."""
        return self.at


class World:
    """A store with decisions and outcomes, and a reader of its evidence."""

    def __init__(self, url: str) -> None:
        self.link, self.clock = Link(url), Now(NOW)
        self.state = RedisState(self.link, self.link, LAYOUT)
        self.journal = RedisJournal(url, deadline_seconds=5, idempotency_seconds=3600)
        self.reader = EvidenceReader(self.link, self.clock)
        self._ids = itertools.count()

    async def shown(
        self, customer: str, action_id: str, *outcomes: tuple[str, float], propensity: float = 0.02
    ) -> None:
        """Record a decision of one action and what became of it: (type, days ago)."""
        offer = Offer(action_id, "upsell", "fresh", "t", True, propensity=0.02, half_life_days=HALF_LIFE_DAYS)
        row = decision_row(customer, NOW)
        await self.state.record(row, (offer,), Caps(), answer=None, request_digest="", deadline_seconds=5)
        for kind, days_ago in outcomes:
            outcome = Outcome(
                f"o{next(self._ids)}", row.decision_id, action_id, kind, None, NOW - days_ago * SECONDS_PER_DAY
            )
            [receipt] = await self.journal.append_outcomes([outcome], NOW)
            assert receipt.status == "accepted"

    async def read(self) -> Evidence:
        """Look, and return what there is."""
        await self.reader.look()
        return self.reader.of(THOMPSON)


def on(url: str, scenario: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        world = World(url)
        try:
            await scenario(world)
        finally:
            await world.state.close()
            await world.journal.close()

    asyncio.run(run())


def test_sums_decay_and_add_up_over_partitions(clean_url: str) -> None:
    """Positives and expectations in any partition add up, halved by each half-life, in any order, once a decision."""

    async def scenario(world: World) -> None:
        for customer, days_ago in (("a", 0.0), ("b", 10.0), ("c", 20.0), ("d", 5.0)):
            await world.shown(customer, "upsell_cheese", ("impression", days_ago), ("conversion", days_ago))
        await world.shown("a", "upsell_produce", ("conversion", 10.0), ("impression", 0.0), ("impression", 20.0))
        await world.shown("a", "upsell_produce", ("impression", 20.0))
        evidence = await world.read()
        cheese, produce = ACTIONS["upsell_cheese"], ACTIONS["upsell_produce"]
        weight = 1 + 0.5 + 0.25 + 2**-0.5
        assert np.isclose(evidence.positives[cheese], weight, rtol=1e-12)
        assert np.isclose(evidence.expected[cheese], 0.02 * weight, rtol=1e-12)
        assert np.isclose(evidence.positives[produce], 0.5, rtol=1e-12)
        assert np.isclose(evidence.expected[produce], 0.02 * 1.25, rtol=1e-12)
        world.clock.at += 10 * SECONDS_PER_DAY
        later = await world.read()
        assert np.allclose(later.positives, evidence.positives / 2, rtol=1e-12)

    on(clean_url, scenario)


def test_only_the_actions_own_type_is_a_positive(clean_url: str) -> None:
    """A click is no positive of an action whose positive is a conversion; what is unknown to the catalogue is left."""

    async def scenario(world: World) -> None:
        await world.shown("a", "upsell_cheese", ("impression", 0.0), ("click", 0.0))
        await world.shown("b", "gone_from_the_catalogue", ("impression", 0.0), ("conversion", 0.0))
        evidence = await world.read()
        assert evidence.positives.sum() == 0
        assert evidence.expected.sum() == 0.02

    on(clean_url, scenario)


def test_one_outcome_moves_exploration(clean_url: str) -> None:
    """One conversion makes its action likelier to be drawn in the next decision, with the very same model."""

    def first_slot(evidence: Evidence) -> tuple[Decisions, np.ndarray]:  # type: ignore[type-arg]
        batch = random_batch(1, 4, missing=0.02, consent=1.0)
        scorer = TableScorer(len(ACTIONS))
        decisions = decide(batch, Request("app"), THOMPSON, scorer, NOW, keys_for(1), evidence=evidence)
        return decisions, decisions.distributions[0, 0]

    async def scenario(world: World) -> None:
        decisions, before = first_slot(await world.read())
        runner_up = int(np.argsort(before)[-2])
        action_id = THOMPSON.catalogue.actions[decisions.actions[runner_up]].id
        positive = THOMPSON.catalogue.actions[decisions.actions[runner_up]].positive
        await world.shown("someone", action_id, ("impression", 0.0), (positive, 0.0))
        again, after = first_slot(await world.read())
        assert 0 < before[runner_up] < 0.999
        assert after[runner_up] > before[runner_up]
        assert np.array_equal(again.propensities, decisions.propensities, equal_nan=True)

    on(clean_url, scenario)


def test_what_did_not_move_is_not_read_again(clean_url: str) -> None:
    """While nothing comes in the same evidence stands; a partition that moved is read alone."""

    async def scenario(world: World) -> None:
        await world.shown("a", "upsell_cheese", ("impression", 0.0))
        first = await world.read()
        assert await world.read() is first
        await world.shown("b", "upsell_cheese", ("impression", 0.0))
        second = await world.read()
        assert second.expected[ACTIONS["upsell_cheese"]] == 2 * first.expected[ACTIONS["upsell_cheese"]]

    on(clean_url, scenario)

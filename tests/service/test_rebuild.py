"""What an emptied store gets back from the lake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.contract import LAYOUT
from service.adapters import redis_keys as keys
from service.adapters.erasures import Erasures
from service.adapters.redis_state import RedisState
from service.adapters.seal import UNKEYED
from service.adapters.state_restore import StateRestore, begin_epoch, mark_whole
from service.catalogue.loader import load_catalogue
from service.decision.model import Catalogue
from service.decision.record import partition_of
from service.ports import Caps, Event, FactPlan, Offer, Outcome
from service.rebuild import Rebuild, Rebuilt, WorkersRun
from service.settings import CHECKOUT
from tests.service.rows import decision_row
from tests.service.worker_world import NOW, World, expected, purchase

SEAFOOD = "cross_sell_seafood"
CONSENT = {"channel": "app", "purpose": "marketing", "granted": True, "source": "web", "expiry": None}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue(CHECKOUT / "service" / "catalogue.yaml")


class Restored(World):
    """A world that can lose its store and be rebuilt."""

    def __init__(self, url: str, folder: Path, plan: FactPlan, catalogue: Catalogue) -> None:
        super().__init__(url, folder, plan)
        self.catalogue = catalogue

    async def live(self) -> str:
        """Let customers buy, agree, be shown something and answer; return the decision's id."""
        [action] = [a for a in self.catalogue.actions if a.id == SEAFOOD]
        row = replace(
            decision_row("a", NOW - 3600), treatment_ids=(f"{SEAFOOD}.app",), chosen=((0, "app_home", 0.5),),
            propensities=np.array([0.25]).tobytes(), priorities=np.zeros(1).tobytes(), stages=bytes(1),
            reasons=bytes(4), uplifts=b"", catalogue_version=self.catalogue.version,
        )  # fmt: skip
        half_life = self.catalogue.exploration.half_life_days
        offer = Offer(SEAFOOD, action.issue, action.group, f"{SEAFOOD}.app", True, "app_home", 0.25, half_life)
        await self.state.record(row, (offer,), Caps(), answer=None, request_digest="", deadline_seconds=5)
        told = [Outcome(f"o{i}", row.decision_id, SEAFOOD, kind, None, NOW - 1800 + i, f"digest {i}")
                for i, kind in enumerate(("impression", "click", "reject"))]  # fmt: skip
        await self.journal.append_outcomes(told, NOW)
        refused = {**CONSENT, "granted": False, "channel": "email"}
        await self.send(
            purchase(0, "a"), purchase(0, "b"), purchase(1, "a", "deli"),
            Event("c1", "a", "consent_changed", NOW - 100, CONSENT, "consent"),
            Event("c2", "a", "consent_changed", NOW - 90, refused),
            Event("c3", "a", "consent_changed", NOW - 95, {**refused, "granted": True}),
        )  # fmt: skip
        await self.state.set_switch("issue", "upsell", paused=True, who="ana", why="price", now=NOW)
        await self.state.set_switch("group", "fresh", paused=True, who="ana", why="price", now=NOW)
        await self.state.set_switch("group", "fresh", paused=False, who="ana", why="done", now=NOW + 1)
        return row.decision_id

    async def held(self) -> dict[str, Any]:
        """Return what the store holds of customers, evidence and switches."""
        sums = {}
        for i, field in enumerate(found := await self.ask("HGETALL", keys.of_partition(partition_of("a"), "evidence"))):
            if i % 2 == 0 and field != b"version":
                sums[field] = [float(part) for part in found[i + 1].split(b"|")]
        return {
            "contacts": await self.ask("ZRANGE", keys.contacts("a"), "0", "-1", "WITHSCORES"),
            "consent": sorted(await self.ask("HGETALL", keys.consent("a"))),
            "switches": await self.ask("HGETALL", keys.SWITCHES),
            "evidence": sums,
        }

    async def lose(self) -> None:
        """Empty the store."""
        await self.ask("FLUSHALL")

    async def rebuild(self, **more: Any) -> Rebuilt:
        """Rebuild from the lake."""
        restore = StateRestore(
            self.link, self.journal, lambda version: self.catalogue if version == self.catalogue.version else None, NOW,
            decision_ttl_days=45, idempotency_seconds=1e9,
        )  # fmt: skip
        erasures = Erasures(self.link, self.lake.folder, UNKEYED)
        return await Rebuild(self.link, self.lake.folder, erasures, restore, self.store, NOW, **more).run()


Scenario = Callable[[Callable[[Restored], Awaitable[None]]], None]


@pytest.fixture
def on(clean_url: str, tmp_path: Path, feast_world: tuple[Any, FactPlan], catalogue: Catalogue) -> Scenario:
    """Run a scenario in a fresh world."""

    def run_it(scenario: Callable[[Restored], Awaitable[None]]) -> None:
        async def whole() -> None:
            world = Restored(clean_url, tmp_path / "lake", feast_world[1], catalogue)
            try:
                await scenario(world)
            finally:
                await world.link.close()
                await world.journal.close()

        asyncio.run(whole())

    return run_it


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Compare what a store holds; decayed sums up to rounding."""
    sums, others = one.pop("evidence"), other.pop("evidence")
    assert one == other
    assert sums.keys() == others.keys()
    for field, value in sums.items():
        np.testing.assert_allclose(value, others[field], rtol=1e-9)


def test_a_lost_store_gets_back_what_it_held(on: Scenario) -> None:
    """Contacts, evidence, consents, pauses and facts are as before; ids are known; outcomes find their decisions."""

    async def scenario(world: Restored) -> None:
        decision_id = await world.live()
        await world.worker().drain_once()
        before = await world.held()
        assert len(before["contacts"]) == 2 * 4
        assert before["evidence"]
        facts = [await world.facts(customer) for customer in "ab"]
        await world.lose()
        done = await world.rebuild()
        same(await world.held(), before)
        for customer, row in zip("ab", facts, strict=True):
            np.testing.assert_allclose(await world.facts(customer, NOW + 1), row, rtol=1e-12)
        assert (done.decisions, done.outcomes, done.events, done.customers, done.switches) == (1, 3, 6, 2, 1)
        again = Outcome("o1", decision_id, SEAFOOD, "click", None, NOW, "digest 1")
        other = replace(again, outcome_id="o9", type="accept", body_digest="new")
        receipts = await world.journal.append_outcomes([again, replace(again, body_digest="x"), other], NOW)
        assert [r.status for r in receipts] == ["duplicate", "conflict", "accepted"]

    on(scenario)


def test_rebuilding_twice_changes_nothing(on: Scenario) -> None:
    """A rebuild that is run again, or over a store that lost nothing, leaves everything as it is."""

    async def scenario(world: Restored) -> None:
        await world.live()
        await world.worker().drain_once()
        await world.kill_workers()
        before = await world.held()
        for _ in range(2):
            await world.rebuild()
            same(await world.held(), dict(before))
        bought = expected(purchase(0, "a"), purchase(1, "a", "deli"))
        np.testing.assert_allclose(await world.facts("a", NOW + 1), bought, rtol=1e-12)

    on(scenario)


def test_what_the_journal_holds_beyond_the_lake_is_applied_once(on: Scenario) -> None:
    """Events taken in after the loss stay in the journal during a rebuild and are folded on top of it, once."""

    async def scenario(world: Restored) -> None:
        await world.live()
        await world.worker().drain_once()
        await world.lose()
        await world.send(purchase(5, "a", "baby"))
        half = world.worker()
        await half.own()
        await half.step()  # applied to facts that are not there, and not in the lake yet
        await world.kill_workers()
        done = await world.rebuild()
        assert done.waiting == 1
        await world.worker().drain_once()
        bought = expected(purchase(0, "a"), purchase(1, "a", "deli"), purchase(5, "a", "baby"))
        np.testing.assert_allclose(await world.facts("a", NOW + 1), bought, rtol=1e-12)

    on(scenario)


def test_no_rebuild_beside_a_worker(on: Scenario) -> None:
    """While a worker owns partitions nothing is rebuilt, and the error says what to do."""

    async def scenario(world: Restored) -> None:
        worker = world.worker()
        await worker.own()
        with pytest.raises(WorkersRun, match="stop the workers first"):
            await world.rebuild()

    on(scenario)


def test_an_emptied_store_is_not_believed(on: Scenario) -> None:
    """Where the lake has a past, a store without its epoch gives no contacts and no consent until it is rebuilt."""

    async def scenario(world: Restored) -> None:
        state = RedisState(world.link, world.link, LAYOUT, needs_epoch=True)

        async def reasons() -> tuple[bool, bool]:
            gathered = await state.gather(world.plan, ["a"], "app", NOW, 1.0)
            return "state_rebuilding" in gathered.degraded_reasons, gathered.batch.is_loggable

        await begin_epoch(world.link, world.lake.folder, NOW)
        assert await reasons() == (False, True)
        await world.live()
        await world.worker().drain_once()
        await world.lose()
        await begin_epoch(world.link, world.lake.folder, NOW)
        assert await reasons() == (True, False)
        batch = (await state.gather(world.plan, ["a"], "app", NOW, 1.0)).batch
        assert batch.consents == ({},)
        await world.rebuild()
        assert await reasons() == (False, True)
        assert (await state.gather(world.plan, ["a"], "app", NOW, 1.0)).batch.consents == ({"marketing": 1},)

    on(scenario)


def test_a_store_is_marked_once(on: Scenario) -> None:
    """The epoch is the moment since when the store is whole: a later mark does not move it."""

    async def scenario(world: Restored) -> None:
        await mark_whole(world.link, NOW)
        await mark_whole(world.link, NOW + 5)
        assert float(await world.ask("GET", keys.EPOCH)) == NOW

    on(scenario)

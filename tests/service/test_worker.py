"""The worker with a real journal, a real Feast and a real lake."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.contract import LAYOUT
from features.facts import fold, unknown
from service.adapters import redis_keys as keys
from service.adapters.connection import Link
from service.adapters.fact_store import Change, Known
from service.adapters.partition_owner import NotOwner
from service.adapters.redis_facts import RedisFacts
from service.adapters.redis_journal import RedisJournal
from service.adapters.redis_state import RedisState
from service.decision.record import partition_of
from service.lake_files import files
from service.ports import Caps, Event, FactPlan, Outcome, StoreUnavailable
from service.worker import run
from tests.service.rows import CHEESE, decision_row
from tests.service.worker_world import NOW, Scenario, World, as_mapping, expected, purchase

REPO = Path(__file__).resolve().parents[2]


class Dying:
    """Writes some views of some customers and then fails, as a process that is killed would leave things."""

    def __init__(self, store: RedisFacts, views: int) -> None:
        self.store, self.views = store, views

    async def read(self, customers: Iterable[str]) -> dict[str, Known]:
        """Read."""
        return await self.store.read(customers)

    async def write(self, changes: Mapping[str, Change]) -> set[str]:
        """Write while views are left."""
        for customer, change in changes.items():
            some = frozenset(sorted(change.views)[: self.views])
            self.views -= len(some)
            if some:
                await self.store.write({customer: replace(change, views=some)})
            if some != change.views:
                raise RuntimeError("killed")
        return set()


class Interrupted:
    """Lets somebody else write between the reading and the writing, once."""

    def __init__(self, store: RedisFacts, between: Callable[[], Awaitable[None]]) -> None:
        self.store, self.between = store, between
        self.refused: list[str] = []

    async def read(self, customers: Iterable[str]) -> dict[str, Known]:
        """Read."""
        return await self.store.read(customers)

    async def write(self, changes: Mapping[str, Change]) -> set[str]:
        """Write after the other one, the first time."""
        if not self.refused:
            await self.between()
        refused = await self.store.write(changes)
        self.refused += sorted(refused)
        return refused


def test_events_become_facts_and_records_exactly_once(on: Scenario) -> None:
    """After a drain a decision sees the folded facts, the lake has each event once, and the journal is trimmed."""

    async def scenario(world: World) -> None:
        bought = [purchase(i, "a", aisle) for i, aisle in enumerate(("cheese", "deli", "cheese"))]
        await world.send(bought[0], purchase(0, "b"), bought[1])
        worker = world.worker()
        assert await worker.drain_once() == 3
        np.testing.assert_allclose(await world.facts("a"), expected(*bought[:2]), rtol=1e-12)
        await world.send(bought[2])
        assert await worker.drain_once() == 1
        np.testing.assert_allclose(await world.facts("a"), expected(*bought), rtol=1e-12)
        np.testing.assert_allclose(await world.facts("b"), expected(purchase(0, "b")), rtol=1e-12)
        assert await worker.drain_once() == 0
        assert world.rows("events", "event_id") == ["e0-a", "e0-b", "e1-a", "e2-a"]
        assert await world.journal_length("a") == 0

    on(scenario)


def test_decisions_outcomes_and_consents_reach_the_lake(on: Scenario) -> None:
    """All kinds of entries are written; what is no fact touches no feature."""

    async def scenario(world: World) -> None:
        row = decision_row("a", NOW)
        await world.state.record(row, (CHEESE,), Caps(), answer=None, request_digest="", deadline_seconds=5)
        await world.journal.append_outcomes(
            [
                Outcome("o1", row.decision_id, "upsell_cheese", "click", None, NOW),
                Outcome("o2", "unknown", "upsell_cheese", "click", None, NOW),
            ],
            NOW,
        )
        consent = {"channel": "app", "purpose": "marketing", "granted": True, "source": "x", "expiry": None}
        await world.send(Event("c1", "a", "consent_changed", NOW, consent))
        assert await world.worker().drain_once() == 4
        assert world.rows("decisions", "decision_id") == [row.decision_id]
        assert world.rows("outcomes", "outcome_id") == ["o1", "o2"]
        assert world.rows("events", "type") == ["consent_changed"]
        assert np.isnan(await world.facts("a")).all()
        found = await world.state.find_decision(row.decision_id)
        assert found is not None
        assert found[2] is None
        assert world.lake.file_with("decisions", partition_of("a"), found[0]) is not None

    on(scenario)


def test_outcomes_that_came_before_their_decision_count_once_it_is_there(on: Scenario) -> None:
    """Parked outcomes become contacts and evidence when the worker meets their decision, once; foreign ones never."""

    async def scenario(world: World) -> None:
        row, worker = decision_row("a", NOW), world.worker()
        early = [
            Outcome("o1", row.decision_id, "upsell_cheese", "impression", None, NOW),
            Outcome("o2", row.decision_id, "upsell_cheese", "accept", None, NOW + 1),
            Outcome("o3", row.decision_id, "upsell_deli", "accept", None, NOW + 1),
        ]
        receipts = await world.journal.append_outcomes(early, NOW)
        assert {receipt.status for receipt in receipts} == {"orphan"}
        assert await worker.drain_once() == 3
        assert (await world.state.contacts_of("a", NOW))["contacts"] == []
        await world.state.record(row, (CHEESE,), Caps(), answer=None, request_digest="", deadline_seconds=5)
        for _ in range(2):
            await worker.drain_once()
            contacts = (await world.state.contacts_of("a", NOW))["contacts"]
            kinds = [(contact["kind"], contact["action_id"]) for contact in contacts]
            assert sorted(kinds) == [(k, "upsell_cheese") for k in ("accept", "decision", "impression")]
            counted = await world.ask("HGET", keys.of_partition(partition_of("a"), "evidence"), "upsell_cheese|accept")
            assert counted is not None
            await world.state.record(row, (CHEESE,), Caps(), answer=None, request_digest="", deadline_seconds=5)
        assert (await world.journal.append_outcomes(early[:1], NOW))[0].status == "duplicate"
        assert await world.ask("EXISTS", keys.parked(row.decision_id)) == 0
        assert world.rows("outcomes", "outcome_id") == ["o1", "o2", "o3"]

    on(scenario)


def test_facts_that_somebody_else_wrote_meanwhile_are_built_upon(on: Scenario) -> None:
    """Rows written between reading and writing, as a materialization does, are kept, with the new events on top."""

    async def scenario(world: World) -> None:
        async def other() -> None:
            facts, views = fold(unknown(), as_mapping(purchase(0, "a")))
            known = await world.store.read(["a"])
            assert await world.store.write({"a": Change(known["a"], facts, views, round(NOW * 1e6) + 5)}) == set()

        await world.send(purchase(1, "a", "deli"), purchase(1, "b"))
        store = Interrupted(world.store, other)
        await world.worker(store).drain_once()
        assert store.refused == ["a"]
        both = expected(purchase(0, "a"), purchase(1, "a", "deli"))
        np.testing.assert_allclose(await world.facts("a", NOW + 1), both, rtol=1e-12)
        np.testing.assert_allclose(await world.facts("b"), expected(purchase(1, "b")), rtol=1e-12)

    on(scenario)


@pytest.mark.parametrize("views", [0, 1, 3, 4, 5])
def test_a_worker_that_dies_in_a_push_applies_each_event_once(on: Scenario, views: int) -> None:
    """Killed with some views of some customers pushed, its successor pushes the others and folds nothing twice."""

    async def scenario(world: World) -> None:
        await world.send(purchase(0, "a"), purchase(0, "b"))
        await world.worker().drain_once()
        await world.kill_workers()
        await world.send(purchase(1, "a", "deli"), purchase(2, "a"), purchase(1, "b", "seafood"))
        dying = world.worker(Dying(world.store, views))
        await dying.own()
        with pytest.raises(RuntimeError, match="killed"):
            await dying.step()
        await world.kill_workers()
        await world.send(purchase(3, "a", "baby"))
        await world.worker().drain_once()
        bought = [purchase(0, "a"), purchase(1, "a", "deli"), purchase(2, "a"), purchase(3, "a", "baby")]
        np.testing.assert_allclose(await world.facts("a"), expected(*bought), rtol=1e-12)
        both = expected(purchase(0, "b"), purchase(1, "b", "seafood"))
        np.testing.assert_allclose(await world.facts("b"), both, rtol=1e-12)
        assert len(world.rows("events", "event_id")) == 6

    on(scenario)


def test_a_worker_that_fails_goes_on_from_what_is_stored(on: Scenario) -> None:
    """A push that fails once delays facts, loses none and doubles none, in one and the same process."""

    async def scenario(world: World) -> None:
        failing = Dying(world.store, 2)
        worker = world.worker(failing)
        await world.send(*(purchase(i, "a") for i in range(4)))
        stop = asyncio.Event()
        running = asyncio.create_task(run(worker, stop))
        while failing.views:
            await asyncio.sleep(0.01)
        failing.views = 1000
        async with asyncio.timeout(20):
            while np.isnan((await world.facts("a"))[LAYOUT.slices["baskets_count"]]).any():
                await asyncio.sleep(0.01)
        stop.set()
        await running
        np.testing.assert_allclose(await world.facts("a"), expected(*(purchase(i, "a") for i in range(4))), rtol=1e-12)
        assert world.rows("events", "event_id") == [f"e{i}-a" for i in range(4)]

    on(scenario)


def test_a_row_stamped_ahead_does_not_stop_its_customer(on: Scenario) -> None:
    """Facts written with a moment ahead of the clock are built upon, not lost, and later pushes still take effect."""

    async def scenario(world: World) -> None:
        facts, views = fold(unknown(), as_mapping(purchase(0, "a")))
        known = await world.store.read(["a"])
        await world.store.write({"a": Change(known["a"], facts, views, round((NOW + 86_400) * 1e6))})
        await world.send(purchase(1, "a", "deli"))
        await world.worker().drain_once()
        both = expected(purchase(0, "a"), purchase(1, "a", "deli"))
        np.testing.assert_allclose(await world.facts("a", NOW + 90_000), both, rtol=1e-12)

    on(scenario)


def test_an_entry_that_cannot_be_used_is_set_aside_and_blocks_nothing(on: Scenario) -> None:
    """Damaged entries go to the poison stream with their error; the others of their batch are applied and written."""

    async def scenario(world: World) -> None:
        journal = keys.of_partition(partition_of("a"), "journal")
        await world.ask("XADD", journal, "*", "k", "event", "v", "rubbish")
        await world.send(purchase(0, "a"))
        await world.send(Event("bad", "a", "purchase", NOW, {"lines": [{"aisle": "nowhere"}]}))
        await world.ask("XADD", journal, "*", "k", "riddle", "v", "x")
        await world.ask("XADD", journal, "*", "other", "fields")
        await world.send(purchase(1, "a"))
        worker = world.worker()
        assert await worker.drain_once() == 6
        assert await worker.drain_once() == 0
        np.testing.assert_allclose(await world.facts("a"), expected(purchase(0, "a"), purchase(1, "a")), rtol=1e-12)
        assert world.rows("events", "event_id") == ["e0-a", "e1-a"]
        aside = await world.ask("XRANGE", keys.of_partition(partition_of("a"), "poison"), "-", "+")
        errors = [dict(zip(pairs[::2], pairs[1::2], strict=True))[b"error"].decode() for _, pairs in aside]
        assert len(errors) == 4
        assert any("KeyError" in error for error in errors)
        assert any("riddle" in error for error in errors)
        assert await world.journal_length("a") == 0

    on(scenario)


def test_a_partition_has_one_owner_and_the_former_one_can_change_nothing(on: Scenario) -> None:
    """A second worker waits while the lease holds; once it lapsed, the first one's pushes and trims are refused."""

    async def scenario(world: World) -> None:
        first, second = world.worker(lease_seconds=0.3), world.worker()
        assert await first.own() == 64
        assert await second.own() == 0
        await world.send(purchase(0, "a"))
        await asyncio.sleep(0.35)
        second._renew_at = 0.0
        assert await second.own() == 64
        with pytest.raises(NotOwner):
            await first.step()
        with pytest.raises(NotOwner):
            await first.owner.trim(partition_of("a"), "9999999999999-0")
        assert np.isnan(await world.facts("a")).all()
        assert await second.drain_once() == 1
        np.testing.assert_allclose(await world.facts("a"), expected(purchase(0, "a")), rtol=1e-12)
        assert world.rows("events", "event_id") == ["e0-a"]

    on(scenario)


def test_what_waits_for_the_lake_is_written_when_it_is_due(on: Scenario) -> None:
    """Facts are online at once, the lake waits for its time; until then the journal keeps the entries."""

    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.own()
        await world.send(purchase(0, "a"))
        await worker.step()
        assert not np.isnan(await world.facts("a")).all()
        assert await worker.flush() == 0
        assert await world.journal_length("a") == 1
        worker.flush_seconds = 0.0
        assert await worker.flush() == 1
        assert await world.journal_length("a") == 0
        assert world.rows("events", "event_id") == ["e0-a"]

    on(scenario)


def test_without_a_store_nothing_is_forgotten(on: Scenario) -> None:
    """A worker whose feature store is away raises and applies later what it had read."""

    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.own()
        await world.send(purchase(0, "a"))
        world.store.link = Link("redis://127.0.0.1:1")
        with pytest.raises(StoreUnavailable):
            await worker.step()
        world.store.link = world.link
        worker.forget()
        await worker.drain_once()
        np.testing.assert_allclose(await world.facts("a"), expected(purchase(0, "a")), rtol=1e-12)

    on(scenario)


PROCESS = """
import sys
from pathlib import Path
from pydantic import SecretStr
from service.settings import Settings
from service.worker import run_worker
run_worker(Settings(var=Path(sys.argv[1]), redis_url=SecretStr(sys.argv[2]), clock="wall"), sys.argv[3])
"""


def test_a_worker_process_follows_the_journal_and_leaves_in_order(
    clean_url: str, feast_world: tuple[Any, FactPlan], tmp_path: Path
) -> None:
    """The process applies events as they come; on SIGTERM it writes what waits and gives its partitions back."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROCESS, str(tmp_path), clean_url, os.environ["NBA_FEAST_REDIS"]]
    )

    async def scenario() -> None:
        link = Link(clean_url)
        state, now = RedisState(link, link, LAYOUT), time.time()
        journal = RedisJournal(clean_url, deadline_seconds=5, idempotency_seconds=1000)
        await journal.append_events([purchase(0, "a", at=now - 86_400)], now)
        async with asyncio.timeout(60):
            while not (await state.gather(feast_world[1], ["a"], "app", now + 60, 1.0)).batch.is_known.all():
                assert process.poll() is None
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        while process.poll() is None:
            await asyncio.sleep(0.05)
        [lease] = await link.exchange([("GET", keys.of_partition(0, "lease"))], deadline_seconds=5, reason="")
        assert lease is None
        await journal.close()
        await link.close()

    try:
        asyncio.run(scenario())
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
    assert process.returncode == 0
    assert len(files(tmp_path / "lake", "events")) == 1

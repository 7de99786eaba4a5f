"""Facts as served against facts recomputed from the lake."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from features.contract import LAYOUT
from features.facts import fold, unknown
from service.adapters.fact_store import Change
from service.ports import Caps
from service.skew import find_skew
from tests.service.rows import decision_row
from tests.service.worker_world import NOW, Scenario, World, as_mapping, purchase
from training.backfill import view_table

SNAPSHOT = NOW - 30 * 86_400


async def decide(world: World, customer: str) -> None:
    """Log a decision with the facts that are online now."""
    batch = (await world.state.gather(world.plan, [customer], "app", NOW, 1.0)).batch
    facts, times = batch.facts[:, 0].tobytes(), batch.view_times[:, 0].tobytes()
    row = replace(decision_row(customer, NOW), facts=facts, view_times=times)
    await world.state.record(row, (), Caps(), answer=None, request_digest="", deadline_seconds=5)


async def begin_with_snapshot(world: World, customer: str) -> None:
    """Give a customer facts by a snapshot, in the lake and online."""
    facts, views = fold(unknown(), as_mapping(purchase(0, customer, at=SNAPSHOT - 86_400)))
    for view in LAYOUT.views:
        path = world.lake.folder / "facts" / view.name / "1.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        moment = datetime.fromtimestamp(SNAPSHOT, UTC)
        pq.write_table(view_table(view, np.array([customer], dtype=object), facts[:, None], moment), path)
    known = await world.store.read([customer])
    await world.store.write({customer: Change(known[customer], facts, views, round(SNAPSHOT * 1e6))})


def test_facts_of_snapshot_and_events_are_no_skew(on: Scenario) -> None:
    """Decisions before and after events, with and without a snapshot beneath, are recomputed within 1e-9."""

    async def scenario(world: World) -> None:
        worker = world.worker()
        await begin_with_snapshot(world, "a")
        for i in range(3):
            await decide(world, "a")
            await decide(world, "b")
            await asyncio.sleep(0.005)  # what is told in the very millisecond of a decision may count as on its way
            await world.send(purchase(i, "a"), purchase(i, "b", "deli"))
            await worker.drain_once()
        await decide(world, "a")
        await worker.drain_once()
        found = find_skew(world.lake.folder)
        assert (found.decisions, found.is_skewed) == (7, False)
        assert {view.same for view in found.views.values()} == {7}

    on(scenario)


def test_events_not_applied_yet_are_in_flight_for_a_while_only(on: Scenario) -> None:
    """A decision between the acknowledgement and the worker is in flight; without any patience it is skewed."""

    async def scenario(world: World) -> None:
        worker = world.worker()
        await world.send(purchase(0, "a"))
        await worker.drain_once()
        await world.send(purchase(1, "a", "deli"))
        await decide(world, "a")
        await worker.drain_once()
        views = find_skew(world.lake.folder).views
        assert (views["purchases"].in_flight, views["contacts"].same) == (1, 1)
        assert find_skew(world.lake.folder, lag_seconds=-1.0).views["purchases"].verdict == "skewed"

    on(scenario)


def test_a_fact_that_was_served_otherwise_is_found(on: Scenario) -> None:
    """One altered number in the store is skew of its view, named with both values; the other views are fine."""

    async def scenario(world: World) -> None:
        worker = world.worker()
        await world.send(purchase(0, "a"))
        await worker.drain_once()
        known = (await world.store.read(["a"]))["a"]
        altered = known.facts.copy()
        altered[LAYOUT.slices["spend_total"]] *= 1.000_001
        change = Change(known, altered, frozenset(("purchases",)), max(known.stamps.values()) + 1)
        assert await world.store.write({"a": change}) == set()
        await decide(world, "a")
        await worker.drain_once()
        found = find_skew(world.lake.folder)
        assert [name for name, view in found.views.items() if view.skewed] == ["purchases"]
        worst = found.views["purchases"].worst
        assert worst is not None
        assert (worst.fact, worst.recomputed) == ("spend_total", 2.0)

    on(scenario)


def test_an_empty_lake_has_no_skew(tmp_path: Path) -> None:
    """Where nothing was decided there is nothing to compare."""
    assert find_skew(tmp_path).decisions == 0

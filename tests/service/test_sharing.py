"""Several workers: a fair share for each, nothing done twice, nothing by one that slept, the lake kept by one."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.adapters.fact_stream import FactStream
from service.adapters.journal_entries import encode
from service.adapters.lake_upkeep import MIN_FILES
from service.adapters.parquet_lake import LakeConflict, ParquetLake
from service.adapters.partition_owner import NotOwner, PartitionOwner
from service.decision.record import PARTITIONS, partition_of
from service.lake_files import files, read_manifest
from service.upkeep import Upkeep
from service.worker import Worker
from tests.service.worker_world import FixedClock, Scenario, World, purchase


def worker(world: World, lease_seconds: float = 10.0) -> Worker:
    """Return a worker with a lake of its own, as a process has it."""
    lake = ParquetLake(world.lake.folder)
    owner = PartitionOwner(world.link, lease_seconds=lease_seconds, fence_of=lake.fence)
    return Worker(owner, FactStream(owner, world.store, FixedClock()), world.journal, lake)


async def share(*workers: Worker, rounds: int = 3) -> list[int]:
    """Let each look for partitions in turn, some times over; return how many each holds."""
    held = []
    for _ in range(rounds):
        held = []
        for one in workers:
            one._renew_at = 0.0
            held.append(await one.own())
    return held


@pytest.mark.parametrize("count", [2, 3, 5])
def test_workers_share_fairly(on: Scenario, count: int) -> None:
    """Whoever joins gets its share, whoever leaves gives it to the others; shares differ by one at most."""

    async def scenario(world: World) -> None:
        workers = [worker(world) for _ in range(count)]
        assert await share(workers[0]) == [PARTITIONS]
        held = await share(*workers)
        assert sum(held) == PARTITIONS
        assert max(held) - min(held) <= 1
        owned = [p for one in workers for p in one.owner.tokens]
        assert sorted(owned) == list(range(PARTITIONS))
        await workers[0].owner.leave()
        held = await share(*workers[1:])
        assert sum(held) == PARTITIONS
        assert max(held) - min(held) <= 1

    on(scenario)


def test_partitions_that_move_take_their_work_with_them(on: Scenario) -> None:
    """Events that one worker has read and not written are written before their partition goes to another, once."""

    async def scenario(world: World) -> None:
        first, second = worker(world), worker(world)
        await first.own()
        await world.send(*(purchase(0, f"c{n}") for n in range(50)))
        while await first.step():
            pass
        await share(first, second)
        await world.send(*(purchase(1, f"c{n}") for n in range(50)))
        for one in (first, second):
            await one.drain_once()
        assert world.rows("events", "event_id") == sorted(f"e{i}-c{n}" for i in (0, 1) for n in range(50))

    on(scenario)


def test_a_worker_that_slept_writes_nothing(on: Scenario) -> None:
    """With its lease gone a worker is refused by the store, and by the lake even where it does not ask the store."""

    async def scenario(world: World) -> None:
        sleeper, successor = worker(world, lease_seconds=0.2), worker(world)
        await sleeper.own()
        await world.send(purchase(0, "a"))
        await sleeper.step()
        await asyncio.sleep(0.25)
        assert await share(successor) == [PARTITIONS]
        with pytest.raises(NotOwner):
            await sleeper.flush_all()
        held = sleeper._held[partition_of("a")]
        with pytest.raises(LakeConflict):
            sleeper.lake.write(partition_of("a"), held.waiting, held.in_lake)
        with pytest.raises(LakeConflict):
            sleeper.lake.take_over(partition_of("a"), sleeper.owner.tokens[partition_of("a")])
        assert files(world.lake.folder, "events") == []
        await successor.drain_once()
        assert world.rows("events", "event_id") == ["e0-a"]

    on(scenario)


def test_tokens_grow_in_a_new_store_too(on: Scenario) -> None:
    """A store that forgot its tokens gives greater ones than the lake has seen, so the lake goes on."""

    async def scenario(world: World) -> None:
        before = worker(world)
        await world.send(purchase(0, "a"))
        for _ in range(3):
            await before.drain_once()
            await before.owner.leave()
        assert before.lake.fence(0) == 3
        await world.ask("FLUSHALL")
        after = worker(world)
        await world.send(purchase(1, "a"))
        await after.drain_once()
        assert after.owner.tokens[0] == 4
        assert world.rows("events", "event_id") == ["e0-a", "e1-a"]

    on(scenario)


def test_the_owner_of_the_first_partition_keeps_the_lake(on: Scenario) -> None:
    """When it is time, one worker puts small files together and lets old days go; the others do not."""

    async def scenario(world: World) -> None:
        writer = ParquetLake(world.lake.folder)
        for i in range(MIN_FILES):
            writer.write(7, [(f"{int(time.time() * 1000)}-{i}", "event", encode(purchase(i, "a")))])
        for owns_first in (False, True):
            owner = PartitionOwner(world.link)
            owner.tokens = {0: 1} if owns_first else {1: 1}
            upkeep = Upkeep(owner, None, None, world.lake.folder, {"events": 30})  # type: ignore[arg-type]
            upkeep.keep()
            assert upkeep._keeping is None
            upkeep._keep_at = 0.0
            upkeep.keep()
            assert (upkeep._keeping is not None) == owns_first
            if upkeep._keeping is not None:
                await upkeep._keeping
        assert len(read_manifest(world.lake.folder / "events").days) == 1
        assert len(world.rows("events", "event_id")) == MIN_FILES

    on(scenario)

"""The worker: follows the journal, keeps the facts up to date, writes the lake, trims what is safely there.

Decides the order of things, which is what makes a crash harmless: events are applied, then written to the lake, then
trimmed. Knows nothing of decisions. Workers share the partitions fairly; when one ends, the others take over its share.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from features.contract import LAYOUT
from service.adapters.connection import Link
from service.adapters.eraser import Eraser
from service.adapters.erasures import Erasures
from service.adapters.fact_store import FactStore
from service.adapters.fact_stream import FactStream, event_of
from service.adapters.journal_entries import decision_id_of
from service.adapters.parquet_lake import LakeConflict, ParquetLake, UnreadableEntry, id_order
from service.adapters.partition_owner import Entry, NotOwner, PartitionOwner
from service.adapters.redis_facts import RedisFacts
from service.adapters.redis_journal import RedisJournal
from service.adapters.seal import open_seal
from service.adapters.state_restore import begin_epoch
from service.decision.record import PARTITIONS, partition_of
from service.ports import Event, FactPlan, StoreUnavailable
from service.settings import Settings
from service.upkeep import Upkeep

log = logging.getLogger("nba.worker")

READ_COUNT = 50
"""Entries read of one partition at a time: what is read at once must be applied well within the lease."""
FLUSH_ENTRIES = 2_000
"""A partition is written to the lake when so many entries wait..."""
FLUSH_SECONDS = 30.0
"""...or the first of them has waited so long..."""
FLUSH_BYTES = 64_000_000
"""...or all partitions together hold so much in memory."""
LEASE_SECONDS = 10.0
BLOCK_SECONDS = 0.5
RETRY_SECONDS = 0.5
JOURNAL_SECONDS = 5.0
FEATURE_REPO = Path(__file__).resolve().parent.parent / "features"


@dataclass
class _Partition:
    """What the worker remembers of a partition it owns.

    Attributes:
        cursor: Last entry read. in_lake: last entry in the lake. applied: last event whose facts are pushed.
        waiting: Read and applied, not yet in the lake. since: monotonic time of the first of them. held_bytes: of them.
    """

    cursor: str
    in_lake: str
    applied: str
    waiting: list[Entry] = field(default_factory=list)
    since: float = 0.0
    held_bytes: int = 0

    def is_due(self, flush_seconds: float) -> bool:
        if not self.waiting:
            return False
        return len(self.waiting) >= FLUSH_ENTRIES or time.monotonic() - self.since >= flush_seconds


@dataclass
class Worker:
    """Owns partitions and works them off."""

    owner: PartitionOwner
    facts: FactStream
    journal: RedisJournal
    lake: ParquetLake
    flush_seconds: float = FLUSH_SECONDS
    upkeep: Upkeep | None = None
    _held: dict[int, _Partition] = field(default_factory=dict)
    _renew_at: float = 0.0

    async def own(self) -> int:
        """Take or renew partitions when it is time to; finish what a dead owner left. Returns how many are held."""
        if time.monotonic() < self._renew_at:
            return len(self._held)
        taken = await self.owner.take(range(PARTITIONS))
        for partition in taken.lost:
            self._held.pop(partition, None)
        for partition in sorted(taken.surplus):
            await self._write(partition)
            self._held.pop(partition)
        await self.owner.give(taken.surplus)
        for partition in sorted(taken.gained):
            applied = await self.facts.resume(partition)
            last = await asyncio.to_thread(self.lake.take_over, partition, self.owner.tokens[partition])
            self._held[partition] = _Partition(cursor=last, in_lake=last, applied=applied)
        await self._look_after()
        self._renew_at = time.monotonic() + (LEASE_SECONDS / 3 if self._held else RETRY_SECONDS)
        return len(self._held)

    async def step(self, block_seconds: float | None = None) -> int:
        """Read what is new in all partitions and bring its facts online. Returns how many entries were read."""
        cursors = {p: held.cursor for p, held in self._held.items()}
        found = await self.owner.read(cursors, count=READ_COUNT, block_seconds=block_seconds)
        events: dict[int, list[tuple[Entry, Event]]] = {}
        for partition, entries in found.items():
            held = self._held[partition]
            good = [entry for entry in entries if await self._collect_event(partition, entry, events)]
            if good and not held.waiting:
                held.since = time.monotonic()
            held.waiting.extend(good)
            held.held_bytes += sum(len(entry.payload) for entry in good)
            held.cursor = entries[-1].id
        await self._settle(entry for entries in found.values() for entry in entries if entry.kind == "decision")
        aside = await self.facts.apply(events)
        for partition, items in events.items():
            held = self._held[partition]
            held.applied = items[-1][0].id
            if aside:
                held.waiting = [entry for entry in held.waiting if entry.id not in aside]
        return sum(len(entries) for entries in found.values())

    async def flush(self) -> int:
        """Write the partition that waits longest, if due: one at a time, so that events never wait for many."""
        due = [p for p, held in self._held.items() if held.is_due(self.flush_seconds)]
        if not due and self._waiting_bytes() > FLUSH_BYTES:
            due = [p for p, held in self._held.items() if held.waiting]
        return await self._write(min(due, key=lambda p: self._held[p].since)) if due else 0

    async def flush_all(self) -> int:
        """Write all that waits to the lake. Returns how many entries were written."""
        return sum([await self._write(partition) for partition in list(self._held)])

    async def drain_once(self) -> int:
        """Work off all that is in the journal now, lake included. Returns how many entries were read."""
        self._renew_at = 0.0
        await self.own()
        total = 0
        while read := await self.step():
            total += read
        await self.flush_all()
        return total

    def forget(self) -> None:
        """Drop all that is only in memory; the next `own` starts from what is stored."""
        self._held.clear()
        self.owner.tokens.clear()
        self._renew_at = 0.0

    async def _collect_event(self, partition: int, entry: Entry, events: dict[int, list[tuple[Entry, Event]]]) -> bool:
        """Say whether the entry is usable; collect it if it is an event that is not applied yet."""
        try:
            event = event_of(entry)
        except Exception as error:
            await self.facts.set_aside(partition, entry, error)
            return False
        if event is not None and id_order(entry.id) > id_order(self._held[partition].applied):
            events.setdefault(partition, []).append((entry, event))
        return True

    async def _settle(self, decisions: Iterable[Entry]) -> None:
        """Let outcomes that came before their decision take effect, now that it is there."""
        ids = [decision_id for entry in decisions if (decision_id := decision_id_of(entry.payload)) is not None]
        if settled := await self.journal.settle(ids):
            log.info("%d outcomes came before their decisions and count now", settled)

    async def _look_after(self) -> None:
        """Have the lake kept, and customers forgotten of whom everything is in the lake; bring it there first."""
        if self.upkeep is None:
            return
        self.upkeep.keep()
        for pending in await self.upkeep.pending():
            partition = partition_of(pending.customer_id)
            held = self._held.get(partition)
            if held is None or await self.owner.entries(partition, held.cursor, pending.after):
                continue
            await self._write(partition)
            self.upkeep.erase(pending)

    def _waiting_bytes(self) -> int:
        return sum(held.held_bytes for held in self._held.values())

    async def _write(self, partition: int) -> int:
        held = self._held[partition]
        while held.waiting:
            await self.owner.check(partition)
            try:
                await asyncio.to_thread(self.lake.write, partition, held.waiting, held.in_lake)
            except UnreadableEntry as error:
                unreadable = next(entry for entry in held.waiting if entry.id == error.entry_id)
                await self.facts.set_aside(partition, unreadable, error)
                held.waiting.remove(unreadable)
            else:
                written, held.in_lake = len(held.waiting), held.waiting[-1].id
                held.waiting, held.held_bytes = [], 0
                await self.owner.trim(partition, held.in_lake)
                return written
        return 0


async def run(worker: Worker, stop: asyncio.Event) -> None:
    """Work until told to stop; then write the lake and give the partitions back."""
    written = 0
    while not stop.is_set():
        try:
            if not await worker.own():
                await _sleep(stop, 1.0)
                continue
            await worker.step(None if written else BLOCK_SECONDS)
            written = await worker.flush()
        except (NotOwner, LakeConflict) as error:
            log.warning("another worker took over: %s", error)
            worker.forget()
            await _sleep(stop, RETRY_SECONDS)
        except StoreUnavailable as error:
            log.warning("waiting for the store: %s", error)
            worker.forget()
            await _sleep(stop, RETRY_SECONDS)
        except OSError as error:
            log.warning("the lake cannot be written, the journal keeps what waits: %s", error)
            worker.forget()
            await _sleep(stop, RETRY_SECONDS)
        except Exception:
            log.exception("starting over from what is stored")
            worker.forget()
            await _sleep(stop, RETRY_SECONDS)
    if worker.upkeep is not None:
        await worker.upkeep.stop()
    with suppress(NotOwner, LakeConflict, StoreUnavailable):
        with suppress(OSError):  # a full disk: the journal keeps what waits
            await worker.flush_all()
        await worker.owner.leave()


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def run_worker(settings: Settings, feast_redis: str) -> None:
    """Run the worker of this machine until SIGTERM or Ctrl-C.

    Args:
        feast_redis: The feature store as feature_store.yaml takes it.
    """
    os.environ["NBA_FEAST_REDIS"] = feast_redis
    os.environ.setdefault("NBA_FEAST_REGISTRY", f"sqlite:///{settings.var / 'registry.db'}")
    asyncio.run(_serve(settings, os.environ["NBA_FEAST_REGISTRY"]))


async def _serve(settings: Settings, registry: str) -> None:
    from service.adapters.bundle_dir import read_plan
    from service.adapters.clock import WallClock, open_clock
    from service.adapters.feast_plan import resolve_plan
    from service.bootstrap import redis_urls

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        features_url, state_url = redis_urls(settings, stack)
        features = Link(features_url)
        state = features if state_url == features_url else Link(state_url)
        plan: FactPlan | None = None
        while plan is None and not stop.is_set():
            try:
                plan = read_plan(await asyncio.to_thread(resolve_plan, FEATURE_REPO, registry))
            except Exception as error:
                log.warning("waiting for Feast's registry (run `nba apply`): %s", error)
                await _sleep(stop, 2.0)
        if plan is None:
            return
        clock = open_clock(settings.var / "clock.json") if settings.clock == "auto" else WallClock()
        lake = ParquetLake(settings.lake)
        owner = PartitionOwner(state, lease_seconds=LEASE_SECONDS, fence_of=lake.fence)
        store = await _fact_store(settings, features, features_url, plan, stack)
        journal = RedisJournal(
            state_url, deadline_seconds=JOURNAL_SECONDS, idempotency_seconds=settings.idempotency_days * 86_400
        )
        stack.push_async_callback(journal.close)
        erasures = Erasures(state, settings.lake, open_seal(settings.var))
        with suppress(StoreUnavailable):  # a store that was emptied must not take in who was forgotten
            await erasures.restore()
        eraser = Eraser(state, features, plan, settings.var, settings.lake)
        upkeep = Upkeep(
            owner, erasures, eraser, settings.lake, {str(t): days for t, days in settings.retention_days.items()}
        )
        worker = Worker(owner, FactStream(owner, store, clock), journal, lake, settings.lake_seconds, upkeep)
        with suppress(StoreUnavailable):
            await begin_epoch(state, settings.lake, clock.now())
        log.info("worker %s follows the journal", owner.name)
        await run(worker, stop)
        await features.close()
        await state.close()


async def _fact_store(
    settings: Settings, features: Link, features_url: str, plan: FactPlan, stack: AsyncExitStack
) -> FactStore:
    """Return where facts are kept online, by the setting that says how decisions read them."""
    if settings.fact_reader == "redis":
        return RedisFacts(features, plan, LAYOUT)
    from service.adapters.feast_push import FeastPush, SdkFacts
    from service.bootstrap import sdk_reader

    source = sdk_reader(settings, features_url)
    stack.push_async_callback(source.close)
    return SdkFacts(source, await asyncio.to_thread(FeastPush, FEATURE_REPO))

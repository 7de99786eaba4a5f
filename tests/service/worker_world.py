"""A worker's world for tests: a real journal, Feast's real layout and a real lake, on one server and one folder."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import duckdb

from features.contract import LAYOUT
from features.facts import Floats, fold, unknown
from service.adapters import redis_keys as keys
from service.adapters.connection import Link
from service.adapters.fact_store import FactStore
from service.adapters.fact_stream import FactStream
from service.adapters.parquet_lake import ParquetLake
from service.adapters.partition_owner import PartitionOwner
from service.adapters.redis_facts import RedisFacts
from service.adapters.redis_journal import RedisJournal
from service.adapters.redis_state import RedisState
from service.decision.record import partition_of
from service.lake_files import files
from service.ports import Event, FactPlan
from service.worker import Worker

NOW = 1_770_000_000.0


class FixedClock:
    """A clock that stands still."""

    def now(self) -> float:
        """Return NOW."""
        return NOW


class World:
    """All parts on one server and one folder; `worker` makes as many workers as a test wants."""

    def __init__(self, url: str, folder: Path, plan: FactPlan) -> None:
        self.link, self.plan = Link(url), plan
        self.store = RedisFacts(self.link, plan, LAYOUT)
        self.lake = ParquetLake(folder)
        self.state = RedisState(self.link, self.link, LAYOUT)
        self.journal = RedisJournal(url, deadline_seconds=5, idempotency_seconds=1000)

    def worker(self, store: FactStore | None = None, lease_seconds: float = 10.0) -> Worker:
        """Return a worker of a process of its own, as far as the journal can tell."""
        owner = PartitionOwner(self.link, lease_seconds=lease_seconds)
        return Worker(owner, FactStream(owner, store or self.store, FixedClock()), self.journal, self.lake)

    async def send(self, *events: Event) -> None:
        """Append events to the journal."""
        receipts = await self.journal.append_events(events, NOW)
        assert {receipt.status for receipt in receipts} == {"accepted"}

    async def facts(self, customer: str, now: float = NOW) -> Any:
        """Return what a decision would see of the customer."""
        batch = (await self.state.gather(self.plan, [customer], "app", now, 1.0)).batch
        return batch.facts[:, 0]

    async def journal_length(self, customer: str) -> int:
        """Return how many entries the customer's partition holds."""
        return int(await self.ask("XLEN", keys.of_partition(partition_of(customer), "journal")))

    async def ask(self, *command: str) -> Any:
        """Send one command."""
        [reply] = await self.link.exchange([command], deadline_seconds=5, reason="")
        return reply

    def rows(self, table: str, column: str) -> list[str]:
        """Return a column of a lake table, sorted."""
        found = files(self.lake.folder, table)
        return (
            sorted(name for (name,) in duckdb.sql(f"SELECT {column} FROM read_parquet({found})").fetchall())
            if found
            else []
        )

    async def kill_workers(self) -> None:
        """Let the leases lapse, as time does with those of a worker that is gone."""
        await self.ask("DEL", keys.WORKERS, *(keys.of_partition(p, "lease") for p in range(64)))


Scenario = Callable[[Callable[[World], Awaitable[None]]], None]


def purchase(i: int, customer: str, aisle: str = "cheese", at: float = NOW - 86_400) -> Event:
    """Return a purchase."""
    lines = [{"aisle": aisle, "quantity": 1.0, "sales_value": 2.0 + i, "retail_disc": 0.5}]
    return Event(f"e{i}-{customer}", customer, "purchase", at + i * 3600, {"lines": lines})


def expected(*events: Event) -> Floats:
    """Return the facts of a customer of whom only these events are known."""
    facts = unknown()
    for event in events:
        facts, _ = fold(facts, as_mapping(event))
    return facts


def as_mapping(event: Event) -> dict[str, Any]:
    """Return an event as the fold takes it."""
    return {"type": event.type, "occurred_at": event.occurred_at, "properties": event.properties}

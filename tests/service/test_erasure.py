"""A customer is forgotten everywhere, nothing of theirs comes back, and the receipt says what was removed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.contract import LAYOUT
from service.adapters import redis_keys as keys
from service.adapters.connection import Link
from service.adapters.eraser import Eraser
from service.adapters.erasures import Erasures
from service.adapters.fact_stream import FactStream
from service.adapters.held_data import files_with, logged_of
from service.adapters.journal_entries import encode
from service.adapters.lake_upkeep import compact
from service.adapters.parquet_lake import ParquetLake
from service.adapters.partition_owner import PartitionOwner
from service.adapters.redis_facts import RedisFacts
from service.adapters.redis_journal import RedisJournal
from service.adapters.redis_state import RedisState
from service.adapters.seal import Seal, open_seal
from service.decision.record import partition_of
from service.lake_files import files
from service.ports import Caps, Event, FactPlan, Outcome, Shadow
from service.upkeep import Upkeep
from service.worker import Worker
from tests.service.rows import CHEESE, decision_row

NOW = 1_770_000_000.0
NAME = "Zuzana-Canary"
SEAL = Seal(b"k" * 32)


class FixedClock:
    """A clock that stands still."""

    def now(self) -> float:
        """Return NOW."""
        return NOW


class World:
    """All parts on one server and one folder, with a worker that forgets."""

    def __init__(self, url: str, var: Path, plan: FactPlan) -> None:
        self.link, self.var, self.lake, self.plan = Link(url), var, var / "lake", plan
        self.state = RedisState(self.link, self.link, LAYOUT, seal=SEAL)
        self.journal = RedisJournal(url, deadline_seconds=5, idempotency_seconds=1000, seal=SEAL)
        self.erasures, self.lives = Erasures(self.link, self.lake, SEAL), 0

    def worker(self) -> Worker:
        """Return a worker with upkeep."""
        owner = PartitionOwner(self.link)
        store = RedisFacts(self.link, self.plan, LAYOUT)
        eraser = Eraser(self.link, self.link, self.plan, self.var, self.lake)
        upkeep = Upkeep(owner, self.erasures, eraser, self.lake, {}, clock=lambda: NOW)
        facts = FactStream(owner, store, FixedClock())
        return Worker(owner, facts, self.journal, ParquetLake(self.lake), upkeep=upkeep)

    async def live(self, customer: str) -> str:
        """Let a customer buy, be decided for, be shown and consent; return the decision's id."""
        row = decision_row(customer, NOW)
        n = self.lives = self.lives + 1
        await self.state.record(row, (CHEESE,), Caps(), answer=b"kept", request_digest="d", deadline_seconds=5)
        lines = [{"aisle": "cheese", "quantity": 1.0, "sales_value": 2.0, "retail_disc": 0.5}]
        said = {"channel": "app", "purpose": "marketing", "granted": True, "source": "form", "expiry": None}
        await self.journal.append_events(
            [
                Event(f"p{n}", customer, "purchase", NOW - 60, {"lines": lines}),
                Event(f"c{n}", customer, "consent_changed", NOW - 50, said),
            ],
            NOW,
        )
        shown = Outcome(f"o{n}", row.decision_id, "upsell_cheese", "accept", None, NOW + 1)
        await self.journal.append_outcomes([shown], NOW)
        return row.decision_id

    async def forget(self, worker: Worker, customer: str) -> dict[str, Any]:
        """Ask for an erasure and let the worker do it."""
        receipt_id = await self.erasures.ask(customer, "test", NOW)
        async with asyncio.timeout(20):
            while (found := await self.erasures.find(receipt_id) or {}).get("status") != "done":
                await worker.drain_once()
                await asyncio.sleep(0.02)
        return found

    async def is_known(self, customer: str) -> bool:
        """Say whether a decision would know the customer."""
        return bool((await self.state.gather(self.plan, [customer], "app", NOW, 1.0)).batch.is_known[0])

    async def everything(self) -> bytes:
        """Return every key and value of the server."""
        [names] = await self.ask(("KEYS", "*"))
        return b"".join([*names, *(await self.ask(*(("DUMP", name) for name in names)))])

    async def ask(self, *commands: Any) -> list[Any]:
        """Send commands."""
        return await self.link.exchange(commands, deadline_seconds=5, reason="")

    def text(self) -> bytes:
        """Return every byte under var, Parquet files as the texts of their rows."""
        found = [path.read_bytes() for path in self.var.rglob("*") if path.is_file() and path.suffix != ".parquet"]
        found += [str(pq.read_table(path).to_pylist()).encode() for path in self.var.rglob("*.parquet")]
        return b"".join(found)

    async def close(self) -> None:
        """Close the connections."""
        await self.state.close()
        await self.journal.close()


def snapshot(var: Path) -> Path:
    """Write a fact snapshot and a file of a batch run with both customers."""
    for path in (var / "lake" / "facts" / "prices" / "2026.parquet", var / "decisions.parquet"):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"customer_id": [NAME, "b"], "n": [1.0, 2.0]}), path)
    return var / "lake" / "facts"


def run(clean_url: str, plan: FactPlan, tmp_path: Path, scenario: Any) -> None:
    """Run a scenario in a fresh world."""

    async def whole() -> None:
        world = World(clean_url, tmp_path / "var", plan)
        try:
            await scenario(world)
        finally:
            await world.close()

    asyncio.run(whole())


def test_a_forgotten_customer_is_nowhere(clean_url: str, feast_world: tuple[Any, FactPlan], tmp_path: Path) -> None:
    """After the receipt no key, stream, row, snapshot or file holds the id, and the others are as they were."""

    async def scenario(world: World) -> None:
        snapshot(world.var)
        worker = world.worker()
        decision_id = await world.live(NAME)
        await world.live("b")
        shadow = encode(Shadow(decision_id, NAME, NOW, "m/2", "d", (0,), (0.1,), 0))
        await world.ask(("XADD", keys.of_partition(partition_of(NAME), "journal"), "*", "k", "shadow", "v", shadow))
        await worker.drain_once()
        compact(world.lake, NOW, whole=True)
        await world.live(NAME)
        before = await world.ask(("HGETALL", keys.of_partition(partition_of(NAME), "evidence")))
        held = await logged_of(NAME, world.link, world.lake)
        assert {table: len(rows) for table, rows in held.items()} == {
            "decisions": 2,
            "outcomes": 2,
            "events": 4,
            "shadows": 1,
        }
        assert len(files_with(NAME, world.var, world.lake)) == 2
        receipt = await world.forget(worker, NAME)
        assert NAME.encode() not in await world.everything()
        assert NAME.encode() not in world.text()
        assert not await world.is_known(NAME)
        assert await world.is_known("b")
        assert await world.state.find_decision(decision_id) is None
        contacts = await world.state.contacts_of("b", NOW)
        assert contacts["consents"]
        rows = duckdb.execute("SELECT customer_id FROM read_parquet(?)", [files(world.lake, "decisions")]).fetchall()
        assert rows == [("b",)]
        assert await world.ask(("HGETALL", keys.of_partition(partition_of(NAME), "evidence"))) == before
        assert SEAL.is_signed(receipt)
        assert receipt["removed"] == {
            "facts": 1, "contacts and consents": 0, "decisions and answers": 4, "journal": 0, "shadows": 1, "poison": 0,
            "decision log": 2, "outcomes": 2, "events": 4, "snapshots and files": 2,
        }  # fmt: skip
        assert not SEAL.is_signed({**receipt, "removed": {}})

    run(clean_url, feast_world[1], tmp_path, scenario)


def test_nothing_of_a_forgotten_customer_is_taken_in(
    clean_url: str, feast_world: tuple[Any, FactPlan], tmp_path: Path
) -> None:
    """Late events are refused as `erased`, decisions leave no trace, outcomes are orphans; also in a restored store."""

    async def scenario(world: World) -> None:
        worker = world.worker()
        decision_id = await world.live(NAME)
        receipt = await world.forget(worker, NAME)
        for _ in range(2):
            late = Event("late", NAME, "purchase", NOW, {"lines": []})
            assert [r.status for r in await world.journal.append_events([late], NOW)] == ["erased"]
            row = decision_row(NAME, NOW)
            await world.state.record(row, (CHEESE,), Caps(), answer=b"a", request_digest="d", deadline_seconds=5)
            assert await world.state.find_decision(row.decision_id) is None
            assert await world.state.find_answer(row.decision_id) is None
            outcome = Outcome("late", decision_id, "upsell_cheese", "accept", None, NOW)
            assert (await world.journal.append_outcomes([outcome], NOW))[0].status in ("orphan", "duplicate")
            await worker.drain_once()
            assert NAME.encode() not in await world.everything()
            assert NAME.encode() not in world.text()
            await world.ask(("FLUSHALL",))
            assert await world.erasures.restore() == 1
            worker.forget()
        again = await world.forget(world.worker(), NAME)
        assert again["receipt_id"] != receipt["receipt_id"]

    run(clean_url, feast_world[1], tmp_path, scenario)


def test_an_erasure_waits_until_what_was_taken_before_is_in_the_lake(
    clean_url: str, feast_world: tuple[Any, FactPlan], tmp_path: Path
) -> None:
    """Events that were acknowledged before the erasure and not applied yet do not bring the customer back."""

    async def scenario(world: World) -> None:
        await world.live(NAME)
        receipt_id = await world.erasures.ask(NAME, "test", NOW)
        assert await world.erasures.ask(NAME, "test", NOW) == receipt_id
        found = await world.erasures.find(receipt_id)
        assert found is not None
        assert found["status"] == "pending"
        assert (await world.state.contacts_of(NAME, NOW))["consents"] == []
        worker = world.worker()
        async with asyncio.timeout(20):
            while (await world.erasures.find(receipt_id) or {}).get("status") != "done":
                await worker.drain_once()
                await asyncio.sleep(0.02)
        assert not await world.is_known(NAME)
        assert NAME.encode() not in await world.everything()
        assert files(world.lake, "events")
        assert NAME.encode() not in world.text()

    run(clean_url, feast_world[1], tmp_path, scenario)


def test_an_erasure_that_dies_half_way_is_finished_by_the_next_worker(
    clean_url: str, feast_world: tuple[Any, FactPlan], tmp_path: Path
) -> None:
    """Whatever was removed before the crash, the next one removes the rest and writes the one receipt."""

    async def scenario(world: World) -> None:
        snapshot(world.var)
        worker = world.worker()
        await world.live(NAME)
        await worker.drain_once()
        receipt_id = await world.erasures.ask(NAME, "test", NOW)
        [pending] = await world.erasures.pending([partition_of(NAME)])
        assert worker.upkeep is not None
        unreadable = world.var / "unreadable.parquet"
        unreadable.write_bytes(b"PAR1 no more")
        with pytest.raises(pa.ArrowInvalid):
            await worker.upkeep.eraser.erase(pending)
        found = await world.erasures.find(receipt_id)
        assert found is not None
        assert found["status"] == "pending"
        unreadable.unlink()
        async with asyncio.timeout(20):
            while (await world.erasures.find(receipt_id) or {}).get("status") != "done":
                await worker.drain_once()
                await asyncio.sleep(0.02)
        assert NAME.encode() not in await world.everything()
        assert NAME.encode() not in world.text()

    run(clean_url, feast_world[1], tmp_path, scenario)


def test_a_poisoned_entry_of_a_customer_goes_too(
    clean_url: str, feast_world: tuple[Any, FactPlan], tmp_path: Path
) -> None:
    """What the worker set aside is searched for the customer as well, readable or not."""

    async def scenario(world: World) -> None:
        poison = keys.of_partition(partition_of(NAME), "poison")
        await world.ask(("XADD", poison, "*", "id", "1-1", "k", "event", "v", f"\xc1{NAME}", "error", "x"))
        await world.ask(("XADD", poison, "*", "id", "1-2", "k", "event", "v", "other", "error", "x"))
        await world.journal.append_events([Event("bad", NAME, "purchase", NOW, {"lines": [{"aisle": "nowhere"}]})], NOW)
        worker = world.worker()
        await worker.drain_once()
        receipt = await world.forget(worker, NAME)
        assert receipt["removed"]["poison"] == 2
        assert NAME.encode() not in await world.everything()
        assert await world.ask(("XLEN", poison)) == [1]

    run(clean_url, feast_world[1], tmp_path, scenario)


def test_the_seal_is_made_once(tmp_path: Path) -> None:
    """The secret is made on first use, readable by the owner only, and is the same for every process."""
    seal = open_seal(tmp_path / "var")
    assert open_seal(tmp_path / "var") == seal
    assert len(seal.key) == 32
    assert (tmp_path / "var" / "erasure.key").stat().st_mode & 0o077 == 0
    assert seal.digest("a") != SEAL.digest("a")
    assert json.dumps(seal.sign({"a": 1}))

"""The past told again through API, journal and worker gives the facts and stages of the backfill."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.contract import LAYOUT, STAGES
from features.layout import SECONDS_PER_DAY
from features.matrix import Columns
from service.adapters import redis_keys as keys
from service.adapters.bundle_dir import read_plan
from service.adapters.connection import Link
from service.adapters.embedded import EmbeddedServer
from service.adapters.feast_plan import resolve_plan
from service.adapters.redis_facts import RedisFacts
from service.adapters.redis_state import RedisState
from service.bootstrap import FEATURE_REPO
from service.decision.record import PARTITIONS
from service.ports import FactPlan
from tests.served import Served, free_port, plain_environment, process, wait_until
from tests.small_world import feast_environment
from training.feast_steps import apply, open_store
from training.past import Past
from training.sources import events, write_history

LIST = 100
FINAL = datetime(2018, 1, 1, 4, 1, 21, tzinfo=UTC).timestamp()
COLUMNS = Columns()
STAGE = COLUMNS.index["stage"]


@dataclass(frozen=True)
class Teller(Served):
    """A service with a worker and nothing online yet, to which the past is told."""

    url: str
    plan: FactPlan

    def tell(self, past: Iterator[dict[str, Any]]) -> int:
        """Post events in lists; every one must be accepted. Returns how many."""
        told = 0
        waiting = iter(past)
        while some := list(islice(waiting, LIST)):
            status, receipts = self.call("POST", "/v1/events", some)
            refused = [receipt for receipt in receipts if receipt["status"] != "accepted"]
            if status != 202 or refused:
                raise AssertionError(f"{status}: {refused[:3]}")
            told += len(some)
        return told

    def wait_for_worker(self) -> None:
        """Wait until the last event of every partition is applied."""
        end = time.monotonic() + 120
        while not asyncio.run(self._is_applied()):
            if time.monotonic() > end:
                raise AssertionError("the worker did not catch up")
            time.sleep(0.02)

    async def _is_applied(self) -> bool:
        link = Link(self.url)
        names = [keys.of_partition(p, "journal") for p in range(PARTITIONS)]
        asked = [("XINFO", "STREAM", name) for name in names]
        found = await link.exchange(asked, deadline_seconds=10, reason="")
        [applied] = await link.exchange(
            [("MGET", *(keys.of_partition(p, "applied") for p in range(PARTITIONS)))], deadline_seconds=10, reason=""
        )
        await link.close()
        last = [
            dict(zip(info[::2], info[1::2], strict=True))[b"last-generated-id"] if isinstance(info, list) else None
            for info in found
        ]
        return last == applied

    def facts(self, customers: list[str]) -> Any:
        """Return what is online of customers, (width, n)."""

        async def read() -> Any:
            link = Link(self.url)
            known = await RedisFacts(link, self.plan, LAYOUT).read(customers)
            await link.close()
            return np.stack([known[customer].facts for customer in customers], axis=1)

        return asyncio.run(read())


@contextmanager
def telling(tmp: Path) -> Iterator[Teller]:
    """Start a service, a worker and a server on a folder with Feast's registry and nothing else."""
    var, port = tmp / "var", free_port()
    var.mkdir()
    with feast_environment(var) as registry:
        apply(open_store(), facts_folder=var / "lake" / "facts")
        plan = read_plan(resolve_plan(FEATURE_REPO, registry))
    with EmbeddedServer(var) as url:
        env = {
            **plain_environment(),
            "NBA_VAR": str(var), "NBA_PORT": str(port), "NBA_REDIS_URL": url, "NBA_LOG_LEVEL": "WARNING",
            "NBA_INTAKE_DEADLINE_MS": "30000",
        }  # fmt: skip
        teller = Teller(f"http://127.0.0.1:{port}", var, env, url, plan)
        teller.set_clock(0.0)
        with process(env, tmp / "serve.log", "serve"), process(env, tmp / "worker.log", "worker"):
            wait_until(lambda: teller.call("GET", "/livez")[0] == 200, 60, tmp / "serve.log")
            yield teller


def stages(facts: Any, now: float) -> list[str | None]:
    """Return the journey stage of each customer as of a moment."""
    codes = COLUMNS.as_of(facts, now)[STAGE]
    return [None if np.isnan(code) else STAGES[int(code)] for code in codes]


def compare(teller: Teller, history: Path, moments: list[float]) -> dict[str, int]:
    """Tell the past from moment to moment; at each compare all households. Returns how often each stage was met."""
    met: dict[str, int] = {}
    before: datetime | None = None
    with Past(history, threads=1) as past:
        customers = list(past.customer_ids)
        for moment in moments:
            until = datetime.fromtimestamp(moment, UTC)
            teller.set_clock(moment)
            assert teller.tell(events(history, before, until)) > 0
            teller.wait_for_worker()
            expected, online = past.facts_at(moment), teller.facts(customers)
            np.testing.assert_allclose(online, expected, rtol=1e-9, atol=0, equal_nan=True)
            online_stages = stages(online, moment)
            assert online_stages == stages(expected, moment)
            for stage in online_stages:
                met[str(stage)] = met.get(str(stage), 0) + 1
            before = until
    return met


def test_the_past_told_again_gives_the_backfills_facts(tmp_path: Path) -> None:
    """Some households' year through API, journal and worker: facts within 1e-9 and the same stages at three moments.

    Then they fall silent: each lapses on the same day online, in batch and in the backfill.
    """
    history = tmp_path / "history"
    write_history(history, customers=15)
    with telling(tmp_path) as teller:
        met = compare(teller, history, list(np.linspace(FINAL - 250 * SECONDS_PER_DAY, FINAL, 3)))
        assert {"loyal", "active"} <= met.keys()
        with Past(history, threads=1) as past:
            customers = [customer for customer in past.customer_ids if not np.isnan(teller.facts([customer])).all()]
            lapsed_on: dict[str, dict[str, float]] = {"online": {}, "batch": {}, "backfill": {}}
            place = {customer: i for i, customer in enumerate(past.customer_ids)}
            for day in range(0, 190, 6):
                now = FINAL + day * SECONDS_PER_DAY
                many = asyncio.run(gathered(teller, customers, now))
                one = [asyncio.run(gathered(teller, [customer], now)) for customer in customers[:5]]
                backfill = stages(past.facts_at(now)[:, [place[c] for c in customers]], now)
                for way, found in (("online", [stages(facts, now)[0] for facts in one]),
                                   ("batch", stages(many, now)), ("backfill", backfill)):  # fmt: skip
                    for customer, stage in zip(customers, found, strict=False):
                        if stage == "lapsed":
                            lapsed_on[way].setdefault(customer, day)
    assert lapsed_on["batch"] == lapsed_on["backfill"]
    assert lapsed_on["online"] == {c: lapsed_on["batch"][c] for c in customers[:5] if c in lapsed_on["batch"]}
    assert len(set(lapsed_on["batch"].values())) > 3
    assert len(lapsed_on["online"]) >= 4


async def gathered(teller: Teller, customers: list[str], now: float) -> Any:
    """Return facts as a decision for these customers gets them."""
    link = Link(teller.url)
    found = await RedisState(link, link, LAYOUT).gather(teller.plan, customers, "app", now, 10.0)
    await link.close()
    return found.batch.facts


@pytest.mark.prove
def test_the_whole_year_told_again(tmp_path: Path) -> None:
    """All households' year through API, journal and worker: the backfill's facts and stages at twenty moments."""
    history = tmp_path / "history"
    write_history(history)
    with telling(tmp_path) as teller:
        met = compare(teller, history, list(np.linspace(FINAL - 345 * SECONDS_PER_DAY, FINAL, 20)))
    assert set(STAGES) <= met.keys()

"""A service of real processes that may be killed: Redis, the API and workers, under a load that is written down."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.contract import LAYOUT
from features.facts import Floats
from service.adapters import redis_keys as keys
from service.adapters.bundle_dir import read_plan
from service.adapters.connection import Link
from service.adapters.feast_plan import resolve_plan
from service.adapters.redis_facts import RedisFacts
from service.adapters.redis_state import RedisState
from service.ports import Caps, FactPlan
from tests.faults.history import History
from tests.fragile import OwnServer
from tests.served import free_port, plain_environment
from tests.service.rows import CHEESE, decision_row
from tests.small_world import feast_environment
from training.feast_steps import apply, open_store

REPO = Path(__file__).resolve().parents[2]
CUSTOMERS, DECISIONS, LIST = 40, 60, 5
PAUSE_SECONDS = 0.02
AISLES = ("cheese", "deli", "baby", "seafood")


@dataclass
class Rig:
    """The processes and where they keep things.

    Attributes:
        seed: Of the faults and of the load.
    """

    folder: Path
    seed: int
    workers: int = 2
    lake_seconds: float = 0.3
    server: OwnServer = field(init=False)
    history: History = field(init=False)
    plan: FactPlan = field(init=False)
    env: dict[str, str] = field(init=False)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    decisions: list[str] = field(default_factory=list)
    acknowledged: int = 0

    def __post_init__(self) -> None:
        self.var = self.folder / "var"
        self.var.mkdir(parents=True)
        self.server, self.history = OwnServer(self.folder / "redis"), History(self.folder / "history.jsonl")
        self.port, self.random = free_port(), random.Random(self.seed)
        self.env = {
            **plain_environment(),
            "NBA_VAR": str(self.var), "NBA_REDIS_URL": self.server.url, "NBA_PORT": str(self.port),
            "NBA_LAKE_SECONDS": str(self.lake_seconds), "NBA_CLOCK": "wall", "NBA_DRAIN_SECONDS": "0",
        }  # fmt: skip

    def start(self) -> None:
        """Start all; what is written down from now on must be kept."""
        self.server.start("--appendfsync", "always")
        with feast_environment(self.var) as registry:
            apply(open_store(), facts_folder=self.var / "lake" / "facts")
            self.plan = read_plan(resolve_plan(REPO / "features", registry))
        asyncio.run(self._decide())
        for name in ("serve", *(f"worker-{n}" for n in range(self.workers))):
            self.launch(name)
        self.wait_for_api()

    def launch(self, name: str) -> None:
        """Start a process by its name: `serve` or `worker-N`."""
        command = [sys.executable, "-m", "service.cli", name.partition("-")[0]]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, cwd=REPO)

    def kill(self, name: str) -> None:
        """Kill a process as nothing can prepare for, and start it again a little later."""
        if name == "redis":
            self.server.send(signal.SIGKILL)
            time.sleep(self.random.uniform(0.05, 0.5))
            self.server.start("--appendfsync", "always")
            return
        self.processes[name].kill()
        self.processes[name].wait(10)
        time.sleep(self.random.uniform(0, 0.5))
        self.launch(name)

    def wait_for_api(self) -> None:
        """Wait until the API answers."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/livez", timeout=2):
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / "serve.log").read_text()[-2000:])

    @contextmanager
    def load(self, threads: int = 2) -> Iterator[None]:
        """Send events and outcomes until the block ends; each is sent again until it is acknowledged."""
        stop = threading.Event()
        callers = [threading.Thread(target=self._call, args=(n, stop)) for n in range(threads)]
        for caller in callers:
            caller.start()
        try:
            yield
        finally:
            stop.set()
            for caller in callers:
                caller.join()

    def wait_for_load(self, items: int = 25, seconds: float = 60.0) -> None:
        """Wait until so many items more are acknowledged, so that the next fault meets a service at work."""
        wanted, end = self.acknowledged + items, time.monotonic() + seconds
        while self.acknowledged < wanted and time.monotonic() < end:
            time.sleep(0.02)

    def drain(self, seconds: float = 180.0) -> None:
        """Wait until all that was acknowledged has left the journal."""
        end = time.monotonic() + seconds
        left: dict[int, int] = {}
        while time.monotonic() < end:
            left = {p: n for p in range(64) if (n := self.server.command("XLEN", keys.of_partition(p, "journal")))}
            if not left:
                return
            time.sleep(0.1)
        logs = "".join((self.folder / f"worker-{n}.log").read_text()[-1500:] for n in range(self.workers))
        raise AssertionError(f"still in the journal after {seconds} s: {left}\n{logs}")

    def online(self) -> dict[str, Floats]:
        """Return the facts that decisions see, of all customers of the load."""

        async def read() -> dict[str, Floats]:
            link = Link(self.server.url)
            known = await RedisFacts(link, self.plan, LAYOUT).read(f"f{n}" for n in range(CUSTOMERS))
            await link.close()
            return {customer: found.facts for customer, found in known.items()}

        return asyncio.run(read())

    def stop(self) -> None:
        """End all by their ids."""
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        self.history.close()
        with suppress(AssertionError, ProcessLookupError):
            self.server.send(signal.SIGKILL)

    async def _decide(self) -> None:
        link = Link(self.server.url)
        state = RedisState(link, link, LAYOUT)
        for n in range(DECISIONS):
            row = decision_row(f"f{n % CUSTOMERS}", time.time())
            await state.record(row, (CHEESE,), Caps(), answer=None, request_digest="", deadline_seconds=5)
            self.decisions.append(row.decision_id)
        await state.close()

    def _call(self, caller: int, stop: threading.Event) -> None:
        chance, n = random.Random(self.seed * 100 + caller), 0
        while not stop.is_set():
            n += 1
            kind = "event" if n % 3 else "outcome"
            items = [self._item(kind, f"{caller}-{n}-{i}", chance) for i in range(LIST)]
            self.history.write(kind, items, "unknown")
            while True:
                answers = self._post(kind, items)
                if answers is not None and {a["status"] for a in answers} <= {"accepted", "duplicate", "orphan"}:
                    self.history.write(kind, items, "acked")
                    self.acknowledged += len(items)
                    break
                if stop.is_set():
                    break
                time.sleep(0.1)
            time.sleep(PAUSE_SECONDS)

    def _item(self, kind: str, name: str, chance: random.Random) -> dict[str, Any]:
        if kind == "outcome":
            decision = chance.choice(self.decisions)
            types = ("impression", "click", "accept")
            said = {"outcome_id": f"o{name}", "decision_id": decision, "action_id": "upsell_cheese"}
            return {**said, "type": chance.choice(types)}
        lines = [
            {"aisle": chance.choice(AISLES), "quantity": 1.0, "sales_value": chance.uniform(1, 9), "retail_disc": 0.0}
        ]
        customer = f"f{chance.randrange(CUSTOMERS)}"
        return {"event_id": f"e{name}", "customer_id": customer, "type": "purchase", "properties": {"lines": lines}}

    def _post(self, kind: str, items: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/{kind}s", json.dumps(items).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                answers: list[dict[str, Any]] = json.loads(response.read())
                return answers
        except (OSError, ValueError):
            return None

"""`python -m benchmarks.feedback`: the loop back: events taken in, applied, seen by decisions; replay; memory.

Real processes on a copy of what `make train` prepared, with a server of its own that syncs every write: API, worker,
Redis and this load share the machine's cores. Events are real baskets of the example's past under new ids. Prints each
figure beside its goal, and returns 1 where one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.figures import percentile
from benchmarks.processes import ProcessFailed, cpu_seconds, end, free_port, resident_mb
from benchmarks.world import NotReady, check_prepared, copy_var
from service.adapters import redis_keys as keys
from service.adapters.connection import Link
from service.adapters.embedded import EmbeddedServer
from service.adapters.redis_journal import RedisJournal
from service.bootstrap import feast_environment
from service.decision.record import PARTITIONS
from service.ports import Event
from service.settings import CHECKOUT, Settings
from training.sources import events

CUSTOMERS = 2_000
SAMPLE = 2_000
GOALS = {"seen_p99_ms": 250.0, "lists": 3_000.0, "singles": 1_000.0, "replay": 20_000.0, "growth": 0.05}
PATIENCE_SECONDS = 60.0


@dataclass
class Bench:
    """A running service and worker, and what was measured of them.

    Attributes:
        baskets: Properties of real purchases. missed: Figures that missed their goals.
    """

    port: int
    api: int
    worker: int
    redis_url: str
    baskets: list[dict[str, Any]]
    numbers: Iterator[int] = field(default_factory=count)
    missed: list[str] = field(default_factory=list)

    def event(self, customer: str | None = None, *, basket: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a purchase of a customer, by default of one of some thousands, that was never told before."""
        n = next(self.numbers)
        who = customer or f"bench-{(n * 7919) % CUSTOMERS}"
        return {
            "event_id": f"bench-{os.getpid()}-{n}",
            "customer_id": who,
            "type": "purchase",
            "properties": basket or self.baskets[n % len(self.baskets)],
        }

    def say(self, name: str, text: str, *, is_reached: bool) -> None:
        """Print a figure with its verdict."""
        print(f"{text}: {'reached' if is_reached else 'MISSED'}", flush=True)
        if not is_reached:
            self.missed.append(name)

    def backlog(self) -> int:
        """Return how many entries the worker has not applied: what is in the streams after its last one."""
        return asyncio.run(_backlog(self.redis_url))

    def drain(self) -> float:
        """Wait until the worker has applied all. Returns the seconds."""
        begun = time.perf_counter()
        while self.backlog():
            if time.perf_counter() - begun > PATIENCE_SECONDS:
                raise ProcessFailed(f"{self.backlog()} events are still not applied after {PATIENCE_SECONDS:.0f} s")
            time.sleep(0.02)
        return time.perf_counter() - begun


async def _backlog(url: str) -> int:
    link = Link(url, max_connections=1)
    try:
        names = [keys.of_partition(p, "journal") for p in range(PARTITIONS)]
        last = await link.exchange(
            [("XREVRANGE", name, "+", "-", "COUNT", 1) for name in names], deadline_seconds=5, reason=""
        )
        [applied] = await link.exchange(
            [("MGET", *(keys.of_partition(p, "applied") for p in range(PARTITIONS)))], deadline_seconds=5, reason=""
        )
    finally:
        await link.close()
    return sum(bool(entries) and entries[0][0] != done for entries, done in zip(last, applied, strict=True))


class Caller:
    """One connection to the service."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def post(self, path: str, body: bytes) -> Any:
        """Post JSON; anything but a 2xx ends the run."""
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        content = response.read()
        if response.status not in (200, 202):
            raise ProcessFailed(f"{path}: {response.status} {content[:300]!r}")
        return json.loads(content)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def load(bench: Bench, connections: int, seconds: float, size: int) -> tuple[float, float]:
    """Post events in lists of `size` (0: singles) over some connections. Returns (events a second, CPU ms an event)."""
    bodies = [[bench.event() for _ in range(max(size, 1))] for _ in range(round(seconds * (80 if size else 3_000)))]
    waiting = [json.dumps(body if size else body[0]).encode() for body in bodies]
    taken = [0] * connections
    until = time.perf_counter() + seconds
    failed: list[BaseException] = []

    def call(who: int) -> None:
        caller = Caller(bench.port)
        try:
            while time.perf_counter() < until and waiting:
                found = caller.post("/v1/events", waiting.pop())
                receipts = found if size else [found]
                if any(receipt["status"] != "accepted" for receipt in receipts):
                    raise ProcessFailed(f"not accepted: {receipts[:3]}")
                taken[who] += len(receipts)
        except BaseException as error:
            failed.append(error)
        finally:
            caller.close()

    begun, cpu = time.perf_counter(), cpu_seconds(bench.api)
    threads = [threading.Thread(target=call, args=(who,)) for who in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    if not waiting:
        raise ProcessFailed("the load was over before its time: prepare more")
    total = sum(taken)
    return total / (time.perf_counter() - begun), (cpu_seconds(bench.api) - cpu) / total * 1000


def measure_seen(bench: Bench, rate: float, seconds: float) -> None:
    """From the 202 of a newcomer's first event to the answer of a decision that knows them, under a steady load."""
    stop = threading.Event()

    def steady() -> None:
        caller, due = Caller(bench.port), time.perf_counter()
        while not stop.is_set():
            caller.post("/v1/events", json.dumps(bench.event()).encode())
            due += 1 / rate
            time.sleep(max(due - time.perf_counter(), 0))
        caller.close()

    background = threading.Thread(target=steady)
    background.start()
    waits: list[float] = []
    caller, until = Caller(bench.port), time.perf_counter() + seconds
    try:
        while time.perf_counter() < until:
            customer = f"new-{next(bench.numbers)}"
            caller.post("/v1/events", json.dumps(bench.event(customer)).encode())
            begun = time.perf_counter()
            question = json.dumps({"customer_id": customer, "channel": "app", "dry_run": True}).encode()
            while "cold_start" in caller.post("/v1/decisions", question)["degraded_reasons"]:
                if time.perf_counter() - begun > PATIENCE_SECONDS:
                    raise ProcessFailed("an event was never seen")
                time.sleep(0.001)
            waits.append((time.perf_counter() - begun) * 1000)
    finally:
        stop.set()
        background.join()
        caller.close()
    ordered = sorted(waits)
    p99 = percentile(ordered, 99)
    text = (
        f"at {rate:.0f} events/s, 202 to a decision that sees the event: p50 {percentile(ordered, 50):.0f} ms, "
        f"p99 {p99:.0f} ms, most {ordered[-1]:.0f} ms of {len(ordered)} (goal: p99 at most {GOALS['seen_p99_ms']:.0f})"
    )
    bench.say("seen", text, is_reached=p99 <= GOALS["seen_p99_ms"])


def measure_intake(bench: Bench, seconds: float) -> None:
    """Events in lists and one by one, while the worker applies them; then how long the worker has to catch up."""
    for name, title, connections, size in (
        ("lists", "events in lists of 100", 4, 100),
        ("singles", "single events", 16, 0),
    ):
        begun, cpu = time.perf_counter(), cpu_seconds(bench.worker)
        per_second, cpu_ms = load(bench, connections, seconds, size)
        loaded = time.perf_counter() - begun
        behind = bench.drain()
        total = per_second * loaded
        of_worker = (cpu_seconds(bench.worker) - cpu) / total * 1000
        text = (
            f"{title}, {connections} connections: {per_second:,.0f}/s acknowledged ({cpu_ms:.2f} ms of CPU each in the "
            f"API, {of_worker:.2f} ms in the worker); all applied {behind:.1f} s later, "
            f"{total / (loaded + behind):,.0f}/s to the facts (goal: {GOALS[name]:,.0f}/s)"
        )
        bench.say(name, text, is_reached=per_second >= GOALS[name])


def measure_memory(bench: Bench, total: int) -> None:
    """The worker's resident memory while it applies many events, of one line each."""
    small = {"lines": [{"aisle": "deli", "quantity": 1, "sales_value": 2.5}]}
    marks: list[float] = []
    told, step = 0, max(total // 10, 1_000)
    while told < total:
        tell(bench, [bench.event(basket=small) for _ in range(1_000)])
        told += 1_000
        if told % step == 0:
            bench.drain()
            marks.append(resident_mb(bench.worker))
    half = len(marks) // 2
    before, after = max(marks[:half] or marks), max(marks[half:])
    text = (
        f"worker memory over {told:,} events: {', '.join(f'{mark:.0f}' for mark in marks)} MB; the second half's most "
        f"{after / before - 1:+.1%} against the first's (goal: at most {GOALS['growth']:+.0%})"
    )
    bench.say("memory", text, is_reached=after <= before * (1 + GOALS["growth"]))


def measure_ids(url: str, total: int) -> None:
    """What remembering ids costs: memory of the server by a million ids, without the journal's entries."""
    print(f"idempotency: {asyncio.run(_memory_of_ids(url, total)):,.0f} MB for a million ids of events", flush=True)


async def _memory_of_ids(url: str, total: int) -> float:
    link, journal = Link(url), RedisJournal(url, deadline_seconds=30, idempotency_seconds=3_000_000)
    used = []
    for numbers in (range(0), range(total)):
        for start in range(0, len(numbers), 500):
            some = [Event(f"id-{n}", f"id-{n % 977}", "profile_changed", 0.0, {}) for n in numbers[start : start + 500]]
            await journal.append_events(some, 0.0)
        trims = [("XTRIM", keys.of_partition(p, "journal"), "MAXLEN", 0) for p in range(PARTITIONS)]
        await link.exchange(trims, deadline_seconds=30, reason="")
        [info] = await link.exchange([("INFO", "memory")], deadline_seconds=30, reason="")
        used.append(int(next(line for line in info.decode().splitlines() if line.startswith("used_memory:"))[12:]))
    await journal.close()
    await link.close()
    return (used[1] - used[0]) / total


def measure_replay(bench: Bench, history: Path, env: dict[str, str]) -> None:
    """`nba replay` of some months: read, fold, push through Feast."""
    os.environ.update(env)
    from training.feast_steps import open_store
    from training.replay import replay

    done = replay(history, datetime(2017, 1, 1, tzinfo=UTC), datetime(2017, 7, 1, tzinfo=UTC), open_store())
    text = f"bulk replay: {done} (goal: {GOALS['replay']:,.0f}/s)"
    bench.say("replay", text, is_reached=done.lines_per_second >= GOALS["replay"])


def await_ready(bench_port: int, process: Any, log: Path) -> None:
    """Wait until the service answers decisions."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            caller = Caller(bench_port)
            caller.post("/v1/decisions", json.dumps({"customer_id": "x", "channel": "app", "dry_run": True}).encode())
            caller.close()
            return
        except OSError:
            time.sleep(0.1)
    raise ProcessFailed(f"the service did not become ready: {log.read_text()[-500:]}")


def warm_up(bench: Bench) -> None:
    """Let the worker come up and take a first list."""
    tell(bench, [bench.event() for _ in range(100)])
    bench.drain()


def tell(bench: Bench, told: list[dict[str, Any]]) -> None:
    """Post one list."""
    caller = Caller(bench.port)
    caller.post("/v1/events", json.dumps(told).encode())
    caller.close()


def main() -> int:
    """Measure and print; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feedback", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="window of each load")
    parser.add_argument("--memory-events", type=int, default=100_000, help="1000000 for the full proof")
    parser.add_argument("--only", nargs="*", choices=("seen", "intake", "memory", "ids", "replay"))
    asked = parser.parse_args()
    wanted: Callable[[str], bool] = lambda part: not asked.only or part in asked.only  # noqa: E731
    settings = Settings()
    try:
        check_prepared(settings)
        with tempfile.TemporaryDirectory(prefix="nba-feedback-") as temporary, ExitStack() as stack:
            folder = Path(temporary)
            var = copy_var(settings.var, folder / "var")
            url = stack.enter_context(EmbeddedServer(var))
            port = free_port()
            env = {
                **{name: value for name, value in os.environ.items() if not name.startswith("NBA_")},
                **feast_environment(Settings(var=var, mlflow_uri=settings.mlflow_uri), url),
                "PYTHONPATH": str(CHECKOUT), "NBA_REDIS_URL": url, "NBA_PORT": str(port), "NBA_VAR": str(var),
                "NBA_GATHER_DEADLINE_MS": "1000", "NBA_INTAKE_DEADLINE_MS": "30000", "NBA_LOG_LEVEL": "WARNING",
                "NBA_LAKE_SECONDS": "5",
            }  # fmt: skip
            logs = [folder / "serve.log", folder / "worker.log"]
            started = [
                _start(stack, name, env, folder, log) for name, log in zip(("serve", "worker"), logs, strict=True)
            ]
            await_ready(port, started[0], logs[0])
            past = events(settings.var / "history", datetime(2017, 6, 1, tzinfo=UTC), datetime(2017, 6, 8, tzinfo=UTC))
            baskets = [e["properties"] for e in past if e["type"] == "purchase"][:SAMPLE]
            bench = Bench(port, started[0].pid, started[1].pid, url, baskets)
            lines = sum(len(basket["lines"]) for basket in baskets) / len(baskets)
            warm_up(bench)
            print(f"real baskets of {lines:.1f} lines; {os.cpu_count()} cores, fsync on every write", flush=True)
            if wanted("seen"):
                measure_seen(bench, 200.0, asked.seconds)
            if wanted("intake"):
                measure_intake(bench, asked.seconds)
            if wanted("memory"):
                measure_memory(bench, asked.memory_events)
            for process in started:
                end(process)
            if wanted("ids"):
                measure_ids(url, 50_000)
            if wanted("replay"):
                measure_replay(bench, settings.var / "history", env)
            print(f"load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
            return 1 if bench.missed else 0
    except (NotReady, ProcessFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _start(stack: ExitStack, name: str, env: dict[str, str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    out = stack.enter_context(log.open("ab"))
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", name], env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=out,
        stderr=out, start_new_session=True,
    )  # fmt: skip
    stack.callback(end, process)
    return process


if __name__ == "__main__":
    sys.exit(main())

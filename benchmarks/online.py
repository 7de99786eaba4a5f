"""Runs the contestants: the same questions, in interleaved rounds, one contestant at a time, on a core of its own.

Decides in which order and for how long, and what is taken down of each. Every contestant is started afresh in every
round, so that its start is measured as often as the rest.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.contestants import REDIS_TITLES, Contestant
from benchmarks.figures import Round, Window
from benchmarks.load import Load
from benchmarks.openloop import run_open
from benchmarks.processes import (
    Cores,
    ProcessFailed,
    await_first_answer,
    cpu_seconds,
    family,
    free_port,
    on_core,
    resident_mb,
    running,
    waited_seconds,
)
from benchmarks.state import clear_state, degraded_in, weigh
from benchmarks.world import World

START_SECONDS = 120.0
WARM_SECONDS = 1.0
SETTLE_SECONDS = 0.2


@dataclass(frozen=True)
class Plan:
    """How long and how often; seconds a window."""

    rounds: int
    one_seconds: float
    many_seconds: float
    half_seconds: float
    connections: int


@dataclass(frozen=True)
class Bench:
    """What a run needs: the world, the loads (with log, without), where, and how long."""

    world: World
    load: Load
    bare_load: Load
    folder: Path
    cores: Cores
    plan: Plan
    say: Callable[[str], None]

    def load_for(self, contestant: Contestant) -> Load:
        """Return the questions that a contestant is asked."""
        return self.bare_load if contestant.is_bare else self.load


@dataclass(frozen=True)
class Up:
    """A contestant that answers."""

    process: subprocess.Popen[bytes]
    port: int
    start_seconds: float

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes."""
        return sum(cpu_seconds(pid) for pid in family(self.process.pid))


@contextmanager
def up(contestant: Contestant, bench: Bench) -> Iterator[Up]:
    """Start a contestant on its core, wait for its first decision, and end it."""
    clear_state(bench.world.redis_url, contestant.fsync)
    port, log = free_port(), bench.folder / f"{contestant.name}.log"
    env = {**bench.world.env, **contestant.env}
    command = list(contestant.command)
    if contestant.is_ours:
        env["NBA_PORT"] = str(port)
    else:
        command.append(str(port))
    began = time.perf_counter()
    with running(command, env, bench.folder, bench.cores.service, log) as process:
        first = bench.load_for(contestant).bodies[0]
        await_first_answer(process, port, first, START_SECONDS, log)
        yield Up(process, port, time.perf_counter() - began)
        if process.poll() is not None:
            raise ProcessFailed(f"{contestant.name} ended under load")


def run_rounds(bench: Bench, entered: list[Contestant]) -> dict[str, list[Round]]:
    """Run all in turn, round by round; every other round backwards, so that no place is the better one.

    Returns:
        Name of a contestant -> its rounds.
    """
    results: dict[str, list[Round]] = {}
    for number in range(bench.plan.rounds):
        for contestant in entered if number % 2 == 0 else reversed(entered):
            if number >= contestant.rounds:
                continue
            done = run_contestant(contestant, bench)
            results.setdefault(contestant.name, []).append(done)
            bench.say(
                f"round {number + 1}, {contestant.title}{' (no log, no caps)' if contestant.is_bare else ''}: "
                f"p50 {done.one.p50_ms:.2f} ms, {done.many.per_second:.0f}/s, {done.cpu_ms:.3f} ms of CPU each"
            )
        if number == 0:
            for name, done in run_redis(bench).items():
                results[name] = [done]
                bench.say(f"{REDIS_TITLES[name]}: p50 {done.one.p50_ms:.3f} ms")
    return results


def run_contestant(contestant: Contestant, bench: Bench) -> Round:
    """Start a contestant, warm it, load it, take its figures down, end it."""
    world, plan, load = bench.world, bench.plan, bench.load_for(contestant)
    with up(contestant, bench) as it:
        with on_core(bench.cores.others):
            load.run(it.port, plan.connections, WARM_SECONDS)
            clear_state(world.redis_url, contestant.fsync)
            degraded = _degraded(it.port) if contestant.is_ours else None
            time.sleep(SETTLE_SECONDS)
            one = load.run(it.port, 1, plan.one_seconds)
            cpu, waited = it.cpu_seconds(), waited_seconds(it.process.pid)
            many = load.run(it.port, plan.connections, plan.many_seconds)
            cpu, waited = it.cpu_seconds() - cpu, waited_seconds(it.process.pid) - waited
            half = run_open(load, it.port, many.per_second / 2, plan.half_seconds)
        done = Round(
            one, many, cpu * 1000 / max(many.requests, 1), cpu / many.seconds, half, waited / many.seconds,
            sum(resident_mb(pid) for pid in family(it.process.pid)), it.start_seconds,
        )  # fmt: skip
        if degraded is None:
            return done
        now_degraded = _degraded(it.port)
    worst = max((n - degraded.get(reason, 0) for reason, n in now_degraded.items()), default=0)
    done = replace(done, degraded=worst)
    if contestant.is_bare:
        return done
    weighed = weigh(world.redis_url, world.catalogue)
    return replace(
        done,
        logged=weighed.decisions - one.requests - many.requests - half.requests,
        candidates=weighed.candidates,
        eligible=weighed.eligible,
        scored=weighed.scored,
    )


def run_redis(bench: Bench) -> dict[str, Round]:
    """Measure the bare round trips, from the contestants' core."""
    world, plan = bench.world, bench.plan
    env = {**world.env, "PEER_REDIS_URL": world.redis_url, "PEER_REDIS_KEY": world.facts_key.hex()}
    command = [sys.executable, "-m", "benchmarks.peers.redis_trip", "1.0", str(plan.connections)]
    with on_core(bench.cores.service):
        done = subprocess.run(
            command, env=env, cwd=bench.folder, capture_output=True, text=True, check=False, timeout=120
        )
    if done.returncode:
        raise ProcessFailed(f"the bare Redis round trip failed: {done.stderr.strip()[-300:]}")
    return {
        name: Round(Window(**found["one"]), Window(**found["many"]), found["cpu_ms"], found["cpu_share"])
        for name, found in json.loads(done.stdout).items()
    }


def _degraded(port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        return degraded_in(response.read().decode())

"""The yardstick: contestants answer the same questions, in interleaved rounds, one at a time, each on a core alone.

Decides who runs, in which order and for how long, and what is taken down of each. Every contestant is started afresh in
every round, so that its start is measured as often as the rest. A further contestant is one more entry of
`contestants`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figures import Round, Window
from benchmarks.introduction import PATIENT
from benchmarks.load import Load
from benchmarks.processes import (
    Cores,
    ProcessFailed,
    await_first_answer,
    cpu_seconds,
    free_port,
    on_core,
    resident_mb,
    running,
    waited_seconds,
)
from benchmarks.state import clear_state, degraded_in, weigh
from benchmarks.world import World

START_SECONDS = 90.0
WARM_SECONDS = 1.0
SETTLE_SECONDS = 0.3


@dataclass(frozen=True)
class Plan:
    """How long and how often; seconds a window."""

    rounds: int
    one_seconds: float
    many_seconds: float
    connections: int


@dataclass(frozen=True)
class Contestant:
    """One web process that answers `POST /v1/decisions`.

    Attributes:
        name: In the JSON. title: In the table. command: Without the port. env: Beside the world's.
        fsync: How the state store writes its log meanwhile. is_ours: Whether it logs and counts what it decides.
    """

    name: str
    title: str
    command: Sequence[str]
    env: Mapping[str, str]
    fsync: str = "always"
    is_ours: bool = False


def contestants(world: World) -> list[Contestant]:
    """Return the web contestants, in the order of a round."""

    def peer(module: str) -> list[str]:
        served = ["--factory", f"benchmarks.peers.{module}:create_app", "--no-access-log", "--log-level", "warning"]
        return [sys.executable, "-m", "uvicorn", *served, "--port"]

    ours = [sys.executable, "-m", "service.cli", "serve"]
    stock = {
        "PEER_MLFLOW_URI": world.mlflow_uri, "PEER_MODEL_URI": world.model_uri, "PEER_ELIGIBLE": str(world.eligible),
        "PEER_CLOCK": str(world.var / "clock.json"), "PEER_CATALOGUE": str(world.catalogue),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return [
        Contestant("noop", "no-op: FastAPI route, body of the same size", peer("noop"),
                   {"PEER_ANSWER_BYTES": str(world.answer_bytes)}),
        Contestant("stock", "A: FastAPI + Feast SDK + mlflow.pyfunc + pandas", peer("stock"), stock),
        Contestant("ours", "nba serve, fsync always", ours, PATIENT, "always", is_ours=True),
        Contestant("ours_everysec", "nba serve, fsync everysec", ours, PATIENT, "everysec", is_ours=True),
        Contestant("ours_shipped", "nba serve, fsync always, deadlines as shipped", ours, {}, "always", is_ours=True),
    ]  # fmt: skip


REDIS_TITLES = {"redis_ping": "bare Redis: PING", "redis_hgetall": "bare Redis: HGETALL of a customer's facts"}


def run_rounds(
    world: World, load: Load, folder: Path, cores: Cores, plan: Plan, say: Callable[[str], None]
) -> dict[str, list[Round]]:
    """Run all contestants in turn, round by round; every other round backwards, so that no place is the better one.

    Returns:
        Name of a contestant -> its rounds.
    """
    entered = contestants(world)
    results: dict[str, list[Round]] = {}
    for number in range(plan.rounds):
        for contestant in entered if number % 2 == 0 else reversed(entered):
            done = run_contestant(contestant, world, load, folder, cores, plan)
            results.setdefault(contestant.name, []).append(done)
            say(f"round {number + 1}, {contestant.title}: p50 {done.one.p50_ms:.2f} ms, {done.many.per_second:.0f}/s")
        for name, done in run_redis(world, folder, cores, plan).items():
            results.setdefault(name, []).append(done)
            say(f"round {number + 1}, {REDIS_TITLES[name]}: p50 {done.one.p50_ms:.3f} ms")
    return results


def run_contestant(contestant: Contestant, world: World, load: Load, folder: Path, cores: Cores, plan: Plan) -> Round:
    """Start a contestant, warm it, load it, take its figures down, end it."""
    clear_state(world.redis_url, contestant.fsync)
    port, log = free_port(), folder / f"{contestant.name}.log"
    env = {**world.env, **contestant.env}
    command = list(contestant.command)
    if contestant.is_ours:
        env["NBA_PORT"] = str(port)
    else:
        command.append(str(port))
    began = time.perf_counter()
    with running(command, env, folder, cores.service, log) as process:
        await_first_answer(process, port, world.bodies[0], START_SECONDS, log)
        start_seconds = time.perf_counter() - began
        with on_core(cores.others):
            warm = load.run(port, plan.connections, WARM_SECONDS)
            clear_state(world.redis_url, contestant.fsync)
            degraded = _degraded(port) if contestant.is_ours else None
            time.sleep(SETTLE_SECONDS)
            one = load.run(port, 1, plan.one_seconds)
            cpu, waited = cpu_seconds(process.pid), waited_seconds(process.pid)
            many = load.run(port, plan.connections, plan.many_seconds)
            cpu, waited = cpu_seconds(process.pid) - cpu, waited_seconds(process.pid) - waited
        if process.poll() is not None:
            raise ProcessFailed(f"{contestant.name} ended under load (warmed up by {warm.requests} requests)")
        done = Round(
            one, many, cpu * 1000 / max(many.requests, 1), cpu / many.seconds,
            waited / many.seconds, resident_mb(process.pid), start_seconds,
        )  # fmt: skip
        if degraded is None:
            return done
        weighed = weigh(world.redis_url, world.catalogue)
        return replace(
            done,
            degraded=max((n - degraded.get(reason, 0) for reason, n in _degraded(port).items()), default=0),
            logged=weighed.decisions - one.requests - many.requests,
            candidates=weighed.candidates,
            eligible=weighed.eligible,
            scored=weighed.scored,
        )


def run_redis(world: World, folder: Path, cores: Cores, plan: Plan) -> dict[str, Round]:
    """Measure the bare round trips, from the contestants' core."""
    env = {**world.env, "PEER_REDIS_URL": world.redis_url, "PEER_REDIS_KEY": world.facts_key.hex()}
    command = [sys.executable, "-m", "benchmarks.peers.redis_trip", f"{plan.one_seconds / 2}", str(plan.connections)]
    with on_core(cores.service):
        done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise ProcessFailed(f"the bare Redis round trip failed: {done.stderr.strip()[-300:]}")
    return {
        name: Round(Window(**found["one"]), Window(**found["many"]), found["cpu_ms"], found["cpu_share"])
        for name, found in json.loads(done.stdout).items()
    }


def _degraded(port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        return degraded_in(response.read().decode())

"""Beyond the table of rounds: swaps under load, the generator's limit, latency over load, feature reads."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from typing import Any

import redis

from benchmarks import footprint
from benchmarks.contestants import Contestant
from benchmarks.figures import Window
from benchmarks.online import Bench, up
from benchmarks.openloop import run_open
from benchmarks.processes import ProcessFailed, cpu_seconds, family, on_core, pin
from benchmarks.profile import picture
from benchmarks.world import reader_of
from service.adapters import redis_keys
from service.adapters.bundle_dir import set_current

SWAP_SECONDS, SWAP_EVERY_SECONDS = 5.0, 1.0
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of a contestant's own rate at saturation: where latency over load is looked at."""
LOAD_SECONDS = 1.5
SURPLUS = 3.0
"""So many times the greatest open-loop rate the generator must keep up with the no-op."""


def swaps(bench: Bench, ours: Contestant, rate: float) -> dict[str, Any]:
    """Ask at a rate, first undisturbed and then while the model changes every second."""
    load, models = bench.load_for(ours), bench.world.var / "models"
    stop = threading.Event()

    def change() -> None:
        turn = 0
        while not stop.wait(SWAP_EVERY_SECONDS):
            turn += 1
            set_current(models, bench.world.bundles[turn % 2])

    with up(ours, bench) as it, on_core(bench.cores.others):
        load.run(it.port, bench.plan.connections, 1.0)
        steady = run_open(load, it.port, rate, SWAP_SECONDS)
        changing = threading.Thread(target=change)
        changing.start()
        swapped = run_open(load, it.port, rate, SWAP_SECONDS)
        stop.set()
        changing.join()
    set_current(models, bench.world.bundles[0])
    return {"rate": rate, "steady": asdict(steady), "swapped": asdict(swapped)}


def generator(bench: Bench, noop: Contestant, greatest_rate: float) -> dict[str, Any]:
    """Ask the no-op at three times the greatest rate that any contestant is asked at, open loop."""
    rate = SURPLUS * greatest_rate
    with up(noop, bench) as it, on_core(bench.cores.others):
        window = run_open(bench.load_for(noop), it.port, rate, LOAD_SECONDS)
    return {"rate": rate, "reached": window.per_second, **asdict(window)}


def latency_over_load(bench: Bench, contestant: Contestant, saturation: float) -> list[tuple[float, Window]]:
    """Ask at shares of the rate at saturation, open loop; return (rate asked, what came back)."""
    load, found = bench.load_for(contestant), []
    with up(contestant, bench) as it, on_core(bench.cores.others):
        load.run(it.port, bench.plan.connections, 1.0)
        for share in SHARES:
            time.sleep(0.1)
            found.append((share * saturation, run_open(load, it.port, share * saturation, LOAD_SECONDS)))
    return found


def weights(bench: Bench, ours: Contestant) -> dict[str, float]:
    """Load ours once more and weigh what a customer and a decision cost the store and the log."""
    world, load = bench.world, bench.load_for(ours)
    with up(ours, bench) as it, on_core(bench.cores.others):
        load.run(it.port, bench.plan.connections, 1.0)
        cpu, size = footprint.server_cpu_seconds(world.redis_url), footprint.written_bytes(world.var)
        window = load.run(it.port, bench.plan.connections, LOAD_SECONDS)
        cpu, size = footprint.server_cpu_seconds(world.redis_url) - cpu, footprint.written_bytes(world.var) - size
        with redis.Redis.from_url(world.redis_url) as server:
            reader = reader_of(world.var)
            facts = footprint.customer_bytes(server, [reader.key(customer) for customer in world.customers[:200]])
            consents = footprint.customer_bytes(server, [redis_keys.consent(c) for c in world.customers[:200]])
            found = footprint.decision_bytes(server)
    return {
        **found,
        "customer_bytes": facts + consents,
        "redis_cpu_ms": cpu * 1000 / max(window.requests, 1),
        "aof_bytes": size / max(window.requests, 1),
    }


def workers(bench: Bench, ours: Contestant) -> dict[str, float]:
    """Serve with one process and with two, each on a core of its own, and return the CPU of a decision, ms.

    `cpu_ms_2`: two at as many connections each as the one had; `cpu_ms_2_shared`: at as many in all, so that each finds
    fewer requests to share a pass.
    """
    found = {}
    for name, count, share in (("cpu_ms_1", 1, 1), ("cpu_ms_2", 2, 1), ("cpu_ms_2_shared", 2, 2)):
        connections = bench.plan.connections * count // share
        many = replace(ours, name=f"ours_{count}_workers", command=[*ours.command, "--workers", str(count)])
        with up(many, bench) as it:
            serving = family(it.process.pid)[-count:]
            pin(serving[-1], bench.cores.service)
            pin(serving[0], bench.cores.others if count == 2 else bench.cores.service)
            with on_core(bench.cores.others):
                bench.load.run(it.port, connections, 1.0)
                before = sum(cpu_seconds(pid) for pid in serving)
                window = bench.load.run(it.port, connections, LOAD_SECONDS)
                spent = sum(cpu_seconds(pid) for pid in serving) - before
        found[name] = spent * 1000 / max(window.requests, 1)
    return found


def profile(bench: Bench, ours: Contestant) -> str:
    """Sample where ours spends its time, busy with many connections and with one, and draw it."""
    parts = []
    for words, connections in (
        ("one connection", 1),
        (f"{bench.plan.connections} connections", bench.plan.connections),
    ):
        target = bench.folder / f"profile-{connections}.json"
        command = [sys.executable, "-m", "benchmarks.peers.profiled", str(target)]
        with up(replace(ours, name="profiled", command=command), bench) as it, on_core(bench.cores.others):
            bench.load.run(it.port, connections, 1.0)
            cpu = it.cpu_seconds()
            window = bench.load.run(it.port, connections, LOAD_SECONDS)
            each = (it.cpu_seconds() - cpu) * 1000 / max(window.requests, 1)
        drawn = picture(json.loads(target.read_text())["stacks"], each)
        parts.append(f"{words}, {each:.3f} ms of CPU a decision while looked at\n{drawn}")
    return "\n\n".join(parts)


def reads(bench: Bench) -> dict[str, float]:
    """Time the read of one customer's features, ours and the SDK's, in one process on the contestants' core."""
    world = bench.world
    env = {**world.env, "PEER_REDIS_URL": world.redis_url, "PEER_VAR": str(world.var)}
    command = [sys.executable, "-m", "benchmarks.peers.reading", *world.customers[:200]]
    with on_core(bench.cores.service):
        done = subprocess.run(
            command, env=env, cwd=bench.folder, capture_output=True, text=True, check=False, timeout=120
        )
    if done.returncode:
        raise ProcessFailed(f"benchmarks.peers.reading failed: {done.stderr.strip()[-300:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found

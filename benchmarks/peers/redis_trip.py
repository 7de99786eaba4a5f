"""The other ceiling: a bare round trip to Redis by the engine's own client, PING and the facts of one customer.

Run as a process, so that it can have the contestants' core: `python -m benchmarks.peers.redis_trip SECONDS CONNECTIONS`
with PEER_REDIS_URL and PEER_REDIS_KEY (hex); prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.figures import Window
from service.adapters.connection import Command, Link

DEADLINE_SECONDS = 5.0
WARM_EXCHANGES = 200


async def load(link: Link, command: Command, connections: int, seconds: float) -> Window:
    """Let so many callers exchange one command again and again."""
    latencies: list[float] = []
    began = time.perf_counter()
    until = began + seconds

    async def caller() -> None:
        while (asked := time.perf_counter()) < until:
            await link.exchange([command], deadline_seconds=DEADLINE_SECONDS, reason="benchmark")
            latencies.append(time.perf_counter() - asked)

    await asyncio.gather(*(caller() for _ in range(connections)))
    return Window.of_latencies(latencies, time.perf_counter() - began)


async def measure(commands: Sequence[tuple[str, Command]], connections: int, seconds: float) -> dict[str, Any]:
    """Measure each command at one connection and at many, with the CPU time of this process."""
    link = Link(os.environ["PEER_REDIS_URL"])
    result: dict[str, Any] = {}
    try:
        for name, command in commands:
            for _ in range(WARM_EXCHANGES):
                await link.exchange([command], deadline_seconds=DEADLINE_SECONDS, reason="benchmark")
            one = await load(link, command, 1, seconds)
            cpu, wall = time.process_time(), time.perf_counter()
            many = await load(link, command, connections, seconds)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            result[name] = {
                "one": asdict(one),
                "many": asdict(many),
                "cpu_ms": cpu * 1000 / max(many.requests, 1),
                "cpu_share": cpu / wall,
            }
    finally:
        await link.close()
    return result


def main() -> None:
    """Measure and print, on the event loop that uvicorn takes too."""
    key = bytes.fromhex(os.environ["PEER_REDIS_KEY"])
    seconds, connections = float(sys.argv[1]), int(sys.argv[2])
    work = measure([("redis_ping", ("PING",)), ("redis_hgetall", ("HGETALL", key))], connections, seconds)
    try:
        import uvloop
    except ImportError:
        print(json.dumps(asyncio.run(work)))
    else:
        print(json.dumps(uvloop.run(work)))


if __name__ == "__main__":
    main()

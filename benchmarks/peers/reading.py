"""One customer's features, read by the engine's reader and by Feast's SDK: `python -m benchmarks.peers.reading IDS...`.

Reads PEER_REDIS_URL and PEER_VAR; prints one line of JSON with the medians in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path

from feast import FeatureStore

from benchmarks.peers.engine import FEATURE_REPO
from benchmarks.world import reader_of
from features.contract import FEATURE_SERVICE, JOIN_KEY
from service.adapters.connection import Link

PATIENCE_SECONDS = 5.0


async def ours(customers: list[str]) -> list[float]:
    """Read each customer's hash and decode it into a row."""
    link, reader = Link(os.environ["PEER_REDIS_URL"]), reader_of(Path(os.environ["PEER_VAR"]))
    times = []
    for customer in customers:
        began = time.perf_counter()
        commands = [("HGETALL", reader.key(customer))]
        reader.rows(await link.exchange(commands, deadline_seconds=PATIENCE_SECONDS, reason="benchmark"))
        times.append(time.perf_counter() - began)
    await link.close()
    return times


def sdk(customers: list[str]) -> list[float]:
    """Read each customer through the SDK into a dict."""
    store = FeatureStore(repo_path=str(FEATURE_REPO))
    service = store.get_feature_service(FEATURE_SERVICE)
    times = []
    for customer in customers:
        began = time.perf_counter()
        store.get_online_features(service, [{JOIN_KEY: customer}]).to_dict()
        times.append(time.perf_counter() - began)
    return times


def main() -> None:
    """Read all twice each way and print the medians of the second time."""
    customers = sys.argv[1:]
    asyncio.run(ours(customers))
    direct = asyncio.run(ours(customers))
    sdk(customers[:20])
    through = sdk(customers)
    print(json.dumps({"ours_ms": statistics.median(direct) * 1000, "sdk_ms": statistics.median(through) * 1000}))


if __name__ == "__main__":
    main()

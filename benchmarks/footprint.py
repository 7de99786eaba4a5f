"""What a customer and a decision weigh: bytes in Redis, in the journal and in the lake."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from service.adapters.lake_tables import SCHEMAS, row_of

SAMPLE = 400


def customer_bytes(server: redis.Redis, keys: list[bytes | str]) -> float:
    """Return the mean memory of keys, by the server's own account."""
    found = [int(server.memory_usage(key, samples=0) or 0) for key in keys]
    return float(np.mean(found)) if found else float("nan")


def decision_bytes(server: redis.Redis) -> dict[str, float]:
    """Return the mean size of a logged decision in the journal and as Parquet, of the newest of every partition."""
    payloads = [
        entry[b"v"]
        for key in sorted(server.scan_iter("nba:*:journal", count=5000))
        for _, entry in server.xrevrange(key, count=SAMPLE // 64 + 1)
        if entry[b"k"] == b"decision"
    ]
    if not payloads:
        return {}
    rows = [row_of("0-1", "decision", payload)[1] for payload in payloads]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMAS["decisions"]), file, compression="zstd")
    return {
        "journal_bytes": float(np.mean([len(payload) for payload in payloads])),
        "lake_bytes": file.tell() / len(rows),
    }


def server_cpu_seconds(url: str) -> float:
    """Return the CPU time of the server process, by its own account."""
    with redis.Redis.from_url(url) as server:
        about = server.info("cpu")
    return float(about["used_cpu_user"]) + float(about["used_cpu_sys"])


def written_bytes(var: Path) -> int:
    """Return the size of the server's append-only log."""
    return sum(file.stat().st_size for file in (var / "redis").rglob("*.aof"))

"""What every contestant is asked, and how households agree to be asked about.

Speaks to `nba serve` over HTTP as any channel would.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import Cores, ProcessFailed, await_first_answer, free_port, post, running

CHANNEL, PLACEMENT, SLOTS = "app", "app_home", 3
ANSWERS = 200
PATIENT = {"NBA_GATHER_DEADLINE_MS": "1000", "NBA_RECORD_DEADLINE_MS": "1000"}
"""Deadlines that no decision of a closed loop misses: a degraded answer is cheaper, and would flatter a figure."""


def question(customer: str, **more: Any) -> bytes:
    """Return what every contestant is asked about a customer."""
    placements = [{"name": PLACEMENT, "count": SLOTS}]
    return json.dumps({"customer_id": customer, "channel": CHANNEL, "placements": placements, **more}).encode()


def introduce(env: dict[str, str], folder: Path, cores: Cores, customers: list[str]) -> int:
    """Give all customers' consent over HTTP; return the mean size of an answer, learnt by dry runs."""
    port, log = free_port(), folder / "introduce.log"
    command = [sys.executable, "-m", "service.cli", "serve"]
    with running(command, {**env, **PATIENT, "NBA_PORT": str(port)}, folder, cores.service, log) as process:
        await_first_answer(process, port, question(customers[0], dry_run=True), 60, log)
        for start in range(0, len(customers), 1000):
            post_or_fail(port, "/v1/events", [consent(customer) for customer in customers[start : start + 1000]])
        asked = [json.loads(question(customer, dry_run=True)) for customer in customers[:ANSWERS]]
        return round(float(np.mean([len(post_or_fail(port, "/v1/decisions", body)) for body in asked])))


def consent(customer: str) -> dict[str, Any]:
    """Return the event by which a customer agrees to marketing."""
    properties = {"channel": CHANNEL, "purpose": "marketing", "granted": True, "source": "benchmark"}
    event_id = f"bench-{customer}"
    return {"event_id": event_id, "customer_id": customer, "type": "consent_changed", "properties": properties}


def post_or_fail(port: int, path: str, body: Any) -> bytes:
    """Post and return the answer, which must be a success."""
    status, answer = post(port, path, json.dumps(body).encode())
    if status not in (200, 202):
        raise ProcessFailed(f"POST {path} was answered with {status}: {answer.decode()[:300]}")
    return answer

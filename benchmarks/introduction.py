"""Customers and questions: what every contestant is asked, that all customers may be contacted, and what each may get.

Speaks to `nba serve` over HTTP as any channel would. Knows which actions the model has to score, so that the stock
stack can be spared the rules and still scores the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import Cores, ProcessFailed, await_first_answer, free_port, post, running
from service.catalogue.loader import load_catalogue
from service.decision.model import Scoring

CHANNEL, PLACEMENT, SLOTS = "app", "app_home", 3
ARBITRATED = ("ranked", "not_selected", "held_out", "below_threshold")
PATIENT = {"NBA_GATHER_DEADLINE_MS": "1000", "NBA_RECORD_DEADLINE_MS": "1000"}
"""Deadlines that no decision of a closed loop misses: a degraded answer is cheaper, and would flatter a figure."""


def question(customer: str, **more: Any) -> bytes:
    """Return what every contestant is asked about a customer."""
    placements = [{"name": PLACEMENT, "count": SLOTS}]
    return json.dumps({"customer_id": customer, "channel": CHANNEL, "placements": placements, **more}).encode()


def introduce(
    env: dict[str, str], folder: Path, cores: Cores, customers: list[str], catalogue: Path
) -> tuple[Path, int]:
    """Give all customers' consent over HTTP and learn, by dry runs, which actions of each the model has to score.

    Returns:
        The file of these, and the mean size of an answer.
    """
    scored = {a.id for a in load_catalogue(catalogue).actions if a.scoring is not Scoring.PRIOR}
    port, log = free_port(), folder / "introduce.log"
    command = [sys.executable, "-m", "service.cli", "serve"]
    eligible: dict[str, list[str]] = {}
    sizes = []
    with running(command, {**env, **PATIENT, "NBA_PORT": str(port)}, folder, cores.service, log) as process:
        await_first_answer(process, port, question(customers[0], dry_run=True), 60, log)
        for start in range(0, len(customers), 1000):
            post_or_fail(port, "/v1/events", [consent(customer) for customer in customers[start : start + 1000]])
        for customer in customers:
            answer = post_or_fail(port, "/v1/decisions", json.loads(question(customer, dry_run=True, explain="full")))
            arbitrated = [row["action_id"] for row in answer["trace"] if row["stage"] in ARBITRATED]
            eligible[customer] = sorted({action for action in arbitrated if action in scored})
            del answer["trace"]
            sizes.append(len(json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()))
    path = folder / "eligible.json"
    path.write_text(json.dumps(eligible))
    return path, round(float(np.mean(sizes)))


def consent(customer: str) -> dict[str, Any]:
    """Return the event by which a customer agrees to marketing."""
    properties = {"channel": CHANNEL, "purpose": "marketing", "granted": True, "source": "benchmark"}
    event_id = f"bench-{customer}"
    return {"event_id": event_id, "customer_id": customer, "type": "consent_changed", "properties": properties}


def post_or_fail(port: int, path: str, body: Any) -> Any:
    """Post and return the answer, which must be a success."""
    status, answer = post(port, path, json.dumps(body).encode())
    if status not in (200, 202):
        raise ProcessFailed(f"POST {path} was answered with {status}: {answer.decode()[:300]}")
    return json.loads(answer)

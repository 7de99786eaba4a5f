"""The state that a load leaves: cleared before; after, whether every decision is in the log and what each one weighed.

The figures of the yardstick would be flattered by customers to whom little may be proposed: this counts, from the very
rows that were logged while measuring.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import redis

from service.adapters.journal_entries import decode_decision
from service.catalogue.loader import load_catalogue
from service.decision.model import Scoring, Stage

ARBITRATED = (Stage.RANKED, Stage.NOT_SELECTED, Stage.HELD_OUT, Stage.BELOW_THRESHOLD)
ROWS_A_STREAM = 40
SCAN = 5000
_DEGRADED = re.compile(r'^nba_degraded_total\{reason="([a-z_]+)"\} ([0-9.e+]+)$', re.MULTILINE)


class Weighed(NamedTuple):
    """Means over the sampled rows; `decisions` is exact."""

    decisions: int
    candidates: float
    eligible: float
    scored: float


def weigh(url: str, catalogue: Path) -> Weighed:
    """Count all logged decisions and look into the newest of every partition."""
    loaded = load_catalogue(catalogue)
    needs_model = {a.id for a in loaded.actions if a.scoring is not Scoring.PRIOR}
    action_of = {t.id: t.action_id for t in loaded.treatments}
    counts: list[tuple[int, int, int]] = []
    decisions = 0
    with redis.Redis.from_url(url) as server:
        for key in sorted(server.scan_iter("nba:*:journal", count=SCAN)):
            decisions += int(server.xlen(key))
            for _, entry in server.xrevrange(key, count=ROWS_A_STREAM):
                if entry[b"k"] != b"decision":
                    continue
                row = decode_decision(entry[b"v"])
                is_open = np.isin(np.frombuffer(row.stages, np.int8), ARBITRATED)
                open_actions = {action_of[row.treatment_ids[i]] for i in np.flatnonzero(is_open)}
                counts.append((len(is_open), int(is_open.sum()), len(open_actions & needs_model)))
    means = np.mean(counts, axis=0) if counts else np.full(3, np.nan)
    return Weighed(decisions, *(float(mean) for mean in means))


def clear_state(url: str, fsync: str) -> None:
    """Forget all decisions and contacts, keep facts and consents; compact the log of the server; set its fsync mode."""
    with redis.Redis.from_url(url) as server:
        for kind in ("contacts:*", "decision:*", "answer:*", "journal"):
            keys = list(server.scan_iter(f"nba:*:{kind}", count=SCAN))
            for start in range(0, len(keys), SCAN):
                server.unlink(*keys[start : start + SCAN])
        server.config_set("appendfsync", fsync)
        server.bgrewriteaof()
        while server.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.05)


def degraded_in(metrics: str) -> dict[str, int]:
    """Read the number of degraded decisions by reason from the service's own metrics."""
    return {reason: int(float(count)) for reason, count in _DEGRADED.findall(metrics)}

"""Lets the challenger score decisions that others made, after their answers went out. Changes no answer.

Decides which decisions (by a hash of their id, so that nobody can choose) and what is given up where there is no time:
what waits is bounded, and beyond that a decision is dropped and counted. Scores one decision a turn of the event loop,
so that no request waits for more than one; a thread would fight for the interpreter with the requests themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from hashlib import blake2b

import numpy as np

from service.decision.engine import decide
from service.decision.experiment import CHALLENGER
from service.decision.record import random_key
from service.online import Decided
from service.ports import Shadow, ShadowLog, StoreUnavailable

log = logging.getLogger("nba")
MOST_WAITING = 256
"""Decisions that wait to be scored; each holds what was gathered for it."""
PAUSE_SECONDS = 0.1
"""Between two rounds; what came meanwhile is scored in one round and appended in one pipeline."""
Told = Callable[[str, int], None]
"""Takes what became of shadows (scored, dropped, failed) and how many."""


class Shadowing:
    """Shadow scoring of one process.

    Args:
        share: Of the decisions, 0 to 1.
    """

    def __init__(self, shadows: ShadowLog, share: float, tell: Told = lambda result, count: None) -> None:
        self._shadows, self._share, self.tell = shadows, share, tell
        self._waiting: deque[Decided] = deque()

    def watch(self, decided: Decided) -> None:
        """Keep a decision that was logged for scoring, if it is one of the share; called before its answer goes out."""
        if not is_shadowed(decided, self._share):
            return
        if len(self._waiting) >= MOST_WAITING:
            self.tell("dropped", 1)
        else:
            self._waiting.append(decided)

    async def follow(self) -> None:
        """Score what waits, again and again; what fails is counted and given up."""
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                await self.score_waiting()
            except Exception:  # shadows are about a model that serves nobody: a defect must not end them for good
                log.exception("shadows could not be scored")

    async def score_waiting(self) -> None:
        """Score and append what waits now."""
        found = []
        for _ in range(len(self._waiting)):
            found.append(shadow_of(self._waiting.popleft()))
            await asyncio.sleep(0)
        if not found:
            return
        try:
            self.tell("scored", await self._shadows.append(found))
        except StoreUnavailable as error:
            self.tell("failed", len(found))
            log.warning("%d shadows are lost: %s", len(found), error)


def is_shadowed(decided: Decided, share: float) -> bool:
    """Say whether the challenger is to score a decision: one that was logged, as it was first selected, by another."""
    arm = decided.decisions.arms[decided.customer]
    if decided.serving.challenger is None or arm == CHALLENGER or decided.reselected or not decided.batch.is_loggable:
        return False
    drawn = int.from_bytes(blake2b(decided.decision_id.encode(), digest_size=8, person=b"nba-shadow").digest(), "big")
    return drawn < share * 2**64


def shadow_of(decided: Decided) -> Shadow:
    """Make a decision anew with the challenger in the place of the model that made it, by the same draw.

    Raises:
        ValueError: Nothing challenges the model that serves.
    """
    serving, before, i = decided.serving, decided.decisions, decided.customer
    model = serving.challenger
    if model is None:
        raise ValueError("there is no challenger to score with")
    found = decide(
        decided.batch.only(i),
        before.request,
        serving.catalogue,
        model.scorer,
        before.now,
        np.array([random_key(decided.decision_id, decided.customer_id)], dtype=np.uint64),
        room=before.room[i : i + 1],
        evidence=before.evidence,
        challenger=model.scorer,
    )
    is_open = ~np.isnan(found.propensities[0])
    placed = found.chosen[0] or found.withheld[0]
    return Shadow(
        decided.decision_id,
        decided.customer_id,
        before.now,
        model.scorer.version,
        model.bundle.digest,
        tuple(is_open.nonzero()[0].tolist()),
        tuple(found.propensities[0, is_open].tolist()),
        placed[0].candidate if placed else -1,
    )

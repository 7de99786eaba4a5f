"""Decides when a store that does not answer is no longer asked, so that a dead one costs microseconds, not deadlines.

Opens after 5 failures in a row, or when more than half of the last 20 calls failed and not all of them at one or two
moments; then lets one call through every 0.25 to 1 s, at random so that many processes do not ask at once, and closes
when that one succeeds. Knows nothing of what is asked. For one event loop: nothing here is safe between threads.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "probing", "open"]
_SUCCESS, _FAILURE, _SAME_FAILURE = range(3)

FAILURES_IN_A_ROW = 5
WINDOW = 20
WINDOW_FAILURES = WINDOW // 2
"""More failures than this among the last WINDOW calls open it, if they met trouble at WINDOW_MOMENTS or more."""
WINDOW_MOMENTS = 3
PROBE_SECONDS = (0.25, 1.0)
FIRST_PROBE_SECONDS = (0.25, 0.5)
"""The first one comes early: most outages are hiccups."""
UNDECIDED_SECONDS = (0.025, 0.05)
"""A probe that taught nothing is soon made again."""
LATE_SECONDS = 0.002
"""A deadline noticed later than this says that this process was busy, not that the store is slow."""


class Breaker:
    """Counts what became of the calls to one store.

    Every admitted call ends in exactly one of `succeeded`, `failed` or `gave_up`, with the moment that `admit` gave.

    Args:
        now: Monotonic seconds. between: Draws the wait before the next probe from a range of seconds.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        between: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._now, self._between = now, between
        self._recent: deque[int] = deque(maxlen=WINDOW)
        self._in_a_row = 0
        self._last_failure_at = float("-inf")
        self._opened_at: float | None = None
        self._probe_at = 0.0
        self._is_probing = False

    @property
    def state(self) -> State:
        """Return closed (all calls go through), open (none does) or probing (one is on its way)."""
        if self._opened_at is None:
            return "closed"
        return "probing" if self._is_probing else "open"

    def admit(self) -> float | None:
        """Return the moment at which the call begins, or None where the store is not to be asked."""
        now = self._now()
        if self._opened_at is not None:
            if self._is_probing or now < self._probe_at:
                return None
            self._is_probing = True
        return now

    def succeeded(self, began: float) -> None:
        """Note an answer in time."""
        if self._opened_at is None:
            self._recent.append(_SUCCESS)
            self._in_a_row = 0
        elif self._is_probe(began):
            self._opened_at, self._is_probing = None, False
            self._recent.clear()
            self._in_a_row = 0

    def failed(self, began: float) -> None:
        """Note that no answer came in time, or none at all."""
        now = self._now()
        if self._opened_at is not None:
            if self._is_probe(began):
                self._wait(now, PROBE_SECONDS)
            return
        # Calls that were under way together met one and the same hiccup: that is one failure in a row, and one moment.
        is_new = began >= self._last_failure_at
        self._recent.append(_FAILURE if is_new else _SAME_FAILURE)
        if is_new:
            self._in_a_row += 1
            self._last_failure_at = now
        if self._in_a_row >= FAILURES_IN_A_ROW or self._is_mostly_failing():
            self._opened_at = now
            self._wait(now, FIRST_PROBE_SECONDS)

    def gave_up(self, began: float) -> None:
        """Note that the caller went away, or that this process itself was late: nothing is learnt of the store."""
        if self._opened_at is not None and self._is_probe(began):
            self._wait(self._now(), UNDECIDED_SECONDS)

    def _is_mostly_failing(self) -> bool:
        moments = self._recent.count(_FAILURE)
        failures = moments + self._recent.count(_SAME_FAILURE)
        return len(self._recent) == WINDOW and failures > WINDOW_FAILURES and moments >= WINDOW_MOMENTS

    def _is_probe(self, began: float) -> bool:
        return self._opened_at is not None and began >= self._opened_at and self._is_probing

    def _wait(self, now: float, seconds: tuple[float, float]) -> None:
        self._is_probing = False
        self._probe_at = now + self._between(*seconds)

"""The end of a serving process in two steps: first it says that it is not ready, then it stops listening.

Between the two it still takes every request, so that a balancer has time to look elsewhere, and asks each caller to let
go of the connection. Decides when to stop; knows no route.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from types import FrameType

import uvicorn


@dataclass
class Draining:
    """Whether the process is on its way out; the application reads it, the server sets it."""

    is_on: bool = False


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which on SIGTERM goes on for `drain_seconds` as not ready before it stops listening.

    Ctrl-C does not wait, nor does a second signal.
    """

    drain_seconds = 0.0
    _stop_at: float | None = None

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.draining = Draining()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or to stop."""
        if sig == signal.SIGTERM and self._stop_at is None and self.drain_seconds > 0:
            self.draining.is_on = True
            self._stop_at = time.monotonic() + self.drain_seconds
            self._captured_signals.append(sig)
        else:
            self.draining.is_on = True
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Stop once the time is over."""
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

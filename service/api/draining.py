"""The end of a serving process in two steps, so that nobody is turned away. Decides when to stop; knows no route.

On SIGTERM it says that it is not ready, then it stops listening: between the two it still takes every request, so that
a balancer has time to look elsewhere. On SIGHUP another process has taken its seat on the same socket: it takes no new
connection from then on and stays ready for those it has. Either way each caller is asked to let go of the connection.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from types import FrameType

import uvicorn

LET_GO_SECONDS = 1.0
"""How long callers of a replaced process have to hear, with an answer, that they should let go of the connection."""


@dataclass
class Draining:
    """Whether the process is on its way out; the application reads it, the server sets it.

    Attributes:
        is_on: Callers are asked to let go of their connections. is_replaced: By a process that is ready.
    """

    is_on: bool = False
    is_replaced: bool = False


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

    def make_room(self) -> None:
        """Leave new connections to the process that has taken over, and end when those that are open were let go."""
        if self._stop_at is None:
            self.draining.is_on = self.draining.is_replaced = True
            for server in self.servers:
                server.close()
            self._stop_at = time.monotonic() + max(self.drain_seconds, LET_GO_SECONDS)

    async def on_tick(self, counter: int) -> bool:
        """Stop once the time is over."""
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

"""A deadline for replies that is about the server, not about this process. Knows the event loop; no protocol.

`asyncio.timeout` gives up as soon as its timer runs. On a busy loop that is often before a reply that arrived long ago
was read: at 16 connections on one core most answers would be degraded for want of a turn. Here, when time is up, the
loop first gets to read what lies in its sockets and to wake who waited for it; only who still waits then is told that
time is up.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

TURNS = 3
"""Turns of the loop between time's end and giving up: one polls the sockets, one reads, one wakes the waiting task."""


class Deadline:
    """Async context that raises TimeoutError in its task when `seconds` are over and nothing that arrived helps."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + seconds
        self._handle: asyncio.Handle | None = None
        self._task: asyncio.Task[object] | None = None
        self._is_expired = False
        self._cancelling = 0

    async def __aenter__(self) -> Deadline:
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a deadline needs a task")
        self._cancelling = self._task.cancelling()
        self._handle = self._loop.call_at(self._ends_at, self._look_again, TURNS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        # Cancelled by us and by nobody else: the cancellation becomes a TimeoutError, as with asyncio.timeout.
        is_ours = self._is_expired and self._task is not None and self._task.uncancel() <= self._cancelling
        if is_ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error

    @property
    def late_seconds(self) -> float:
        """How long after its end the deadline is looked at: what the loop, not the server, was late by."""
        return self._loop.time() - self._ends_at

    @property
    def is_expired(self) -> bool:
        """Whether time was up while waiting."""
        return self._is_expired

    def _look_again(self, turns: int) -> None:
        if turns:
            self._handle = self._loop.call_soon(self._look_again, turns - 1)
            return
        self._is_expired = True
        if self._task is not None:
            self._task.cancel()

"""Keeps N serving processes on one listening socket: starts them, replaces what died or hangs, ends them together.

Decides when a process is started, given up or ended. Knows nothing of what they serve; it forks nothing, so no client,
thread or event loop is ever shared. The first process has the machine to itself until it is ready, so that the first
answer does not wait for the others, which then find its rules parsed. The socket is one for all, not one each: what
waits in it when a process dies is accepted by another. On SIGHUP every process is replaced by a new one, one after the
other: the new one is warm before the old one is asked to make room, and where it does not get warm the old ones stay.
"""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.seat import BEAT_SECONDS, Seat, Start, drained

log = logging.getLogger("nba")

DRAIN_SECONDS = 10.0
"""From the signal to the end of all: more than a server's own time for requests in flight."""
ALONE_SECONDS = 3.0
"""So long at most the first process starts alone."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, SOUND_SECONDS = 0.1, 10.0, 30.0
"""Before a replacement; doubled each time a process lived for less than `SOUND_SECONDS`."""


@dataclass
class Supervisor:
    """Runs until a signal, or until it is clear that no process can start.

    Attributes:
        start: Starts a process. on_end: Told the process id of each that ended.
        on_ready: Called once, when the first process is ready.
    """

    count: int
    start: Start
    on_end: Callable[[int], None] = lambda pid: None
    on_ready: Callable[[], None] = lambda: None
    drain_seconds: float = DRAIN_SECONDS
    seats: list[Seat] = field(default_factory=list)
    _was_ready: bool = False
    _signals: list[int] = field(default_factory=list)
    _hung_up: bool = False
    _to_replace: list[Seat] = field(default_factory=list)
    _newcomer: Seat | None = None
    _leaving: tuple[Seat, float] | None = None

    def run(self, listening: socket.socket) -> int:
        """Keep the processes running; return the exit code.

        Args:
            listening: The shared socket; closed here when all shall end, so that callers are refused and not kept.
        """
        later = time.monotonic() + ALONE_SECONDS
        self.seats = [Seat(), *(Seat(due=later) for _ in range(self.count - 1))]
        with self._woken() as woken, selectors.DefaultSelector() as selector:
            selector.register(woken, selectors.EVENT_READ)
            try:
                while not self._signals:
                    code = self._look(selector)
                    if code is not None:
                        return code
                    self._renew(selector)
                    selector.select(self._pause())
                    drained(woken)
                return 128 + self._signals[0]
            finally:
                listening.close()
                self._end_all(selector)

    def _look(self, selector: selectors.BaseSelector) -> int | None:
        """Hear, bury, replace. Return an exit code where no process could ever start."""
        for seat in self.seats:
            self._hear(seat)
            code = seat.ended()
            if code is not None:
                if not self._was_ready:
                    return code if code > 0 else 1
                self._bury(seat, selector, code)
            if seat.process is None and time.monotonic() >= seat.due:
                seat.occupy(self.start, selector)
        return None

    def _hear(self, seat: Seat) -> None:
        seat.hear()
        if seat.is_ready and not self._was_ready:
            self._was_ready = True
            for other in self.seats:
                other.due = min(other.due, time.monotonic())
            self.on_ready()
        if seat.hangs() and seat.process is not None:
            log.error("serving process %d hangs and is killed", seat.process.pid)
            seat.process.kill()
            seat.process.wait()

    def _bury(self, seat: Seat, selector: selectors.BaseSelector, code: int) -> None:
        now = time.monotonic()
        seat.failures = 0 if now - seat.started > SOUND_SECONDS else seat.failures + 1
        wait = min(FIRST_WAIT_SECONDS * 2 ** max(seat.failures - 1, 0), LONGEST_WAIT_SECONDS)
        seat.due = now + wait
        if seat.process is not None:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            log.error("serving process %d ended (%s); another in %.1f s", seat.process.pid, how, wait)
        self._vacate(seat, selector)

    def _vacate(self, seat: Seat, selector: selectors.BaseSelector) -> None:
        pid = seat.vacate(selector)
        if pid is not None:
            self.on_end(pid)

    def _renew(self, selector: selectors.BaseSelector) -> None:
        """Go on with replacing every process, where that was asked for: a new one warm, an old one gone, the next."""
        if self._hung_up and not self._to_replace:
            log.info("replacing %d serving processes, one after the other", len(self.seats))
            self._hung_up, self._to_replace = False, list(self.seats)
        if self._leaving is not None and not self._has_left(*self._leaving, selector):
            return
        if self._newcomer is None and self._to_replace:
            self._newcomer = Seat()
            self._newcomer.occupy(self.start, selector)
        elif self._newcomer is not None:
            self._admit(self._newcomer, selector)

    def _admit(self, newcomer: Seat, selector: selectors.BaseSelector) -> None:
        """Give a warm newcomer the seat of the next old one; keep the old ones where it does not get warm."""
        self._hear(newcomer)
        if newcomer.ended() is not None:
            log.error("a new serving process does not start; those that serve stay")
            self._vacate(newcomer, selector)
            self._newcomer, self._to_replace = None, []
        elif newcomer.is_ready:
            old = self._to_replace.pop(0)
            self.seats[self.seats.index(old)] = newcomer
            self._newcomer = None
            old.signal(signal.SIGHUP)
            self._leaving = (old, time.monotonic() + self.drain_seconds)

    def _has_left(self, old: Seat, deadline: float, selector: selectors.BaseSelector) -> bool:
        old.hear()
        if old.process is not None and old.ended() is None:
            if time.monotonic() > deadline:
                log.error("serving process %d does not end and is killed", old.process.pid)
                old.process.kill()
            return False
        self._vacate(old, selector)
        self._leaving = None
        return True

    def _pause(self) -> float:
        now = time.monotonic()
        is_renewing = self._hung_up or self._to_replace or self._newcomer or self._leaving
        soon = [0.05] if is_renewing else []
        return max(0.0, min([BEAT_SECONDS, *soon, *(seat.due - now for seat in self.seats if seat.process is None)]))

    def _end_all(self, selector: selectors.BaseSelector) -> None:
        """Let requests in flight end within the deadline; a second signal does not wait for them."""
        leaving = (self._leaving[0],) if self._leaving is not None else ()
        newcomer = (self._newcomer,) if self._newcomer is not None else ()
        everybody = [*self.seats, *newcomer, *leaving]
        for seat in everybody:
            seat.signal(signal.SIGTERM)
        running = [seat.process for seat in everybody if seat.process is not None]
        end = time.monotonic() + self.drain_seconds
        while any(process.poll() is None for process in running):
            if time.monotonic() > end or len(self._signals) > 1:
                for process in running:
                    process.kill()
            time.sleep(0.02)
        for seat in everybody:
            self._vacate(seat, selector)

    def _on_hangup(self) -> None:
        self._hung_up = True

    @contextmanager
    def _woken(self) -> Iterator[socket.socket]:
        """Note signals; yield a socket that any signal, also of a child's end, makes readable."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        handlers = {
            signal.SIGTERM: lambda number, _: self._signals.append(number),
            signal.SIGINT: lambda number, _: self._signals.append(number),
            signal.SIGHUP: lambda number, _: self._on_hangup(),
            signal.SIGCHLD: lambda number, _: None,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            ours.close()
            theirs.close()

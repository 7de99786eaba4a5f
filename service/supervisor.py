"""Keeps N serving processes on one listening socket: starts them, replaces what died or hangs, ends them together.

Decides when a process is started, given up or ended. Knows nothing of what they serve; it forks nothing, so no client,
thread or event loop is ever shared. The socket is one for all, not one each: what waits in it when a process dies is
accepted by another.
"""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

log = logging.getLogger("nba")

BEAT_SECONDS = 1.0
"""How often a serving process sends a byte: the first one says that it is warm and listens."""
SILENT_SECONDS = 10.0
"""A process that was ready and then sends nothing for so long hangs."""
START_SECONDS = 60.0
DRAIN_SECONDS = 10.0
"""From the signal to the end of all: more than a server's own time for requests in flight."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, SOUND_SECONDS = 0.1, 10.0, 30.0
"""Before a replacement; doubled each time a process lived for less than `SOUND_SECONDS`."""

Start = Callable[[socket.socket], subprocess.Popen[bytes]]
"""Given its end of a link, starts a serving process that inherits it."""


@dataclass
class Seat:
    """The place of one serving process, whoever sits there now.

    Attributes:
        due: When to start one, monotonic. heard: When it was last heard of, or started.
        failures: Short lives in a row.
    """

    due: float = 0.0
    process: subprocess.Popen[bytes] | None = None
    link: socket.socket | None = None
    is_ready: bool = False
    started: float = 0.0
    heard: float = 0.0
    failures: int = 0


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

    def run(self, listening: socket.socket) -> int:
        """Keep the processes running; return the exit code.

        Args:
            listening: The shared socket; closed here when all shall end, so that callers are refused and not kept.
        """
        self.seats = [Seat() for _ in range(self.count)]
        with self._woken() as woken, selectors.DefaultSelector() as selector:
            selector.register(woken, selectors.EVENT_READ)
            try:
                while not self._signals:
                    code = self._look(selector)
                    if code is not None:
                        return code
                    selector.select(self._pause())
                    _drain(woken)
                return 128 + self._signals[0]
            finally:
                listening.close()
                self._end_all(selector)

    def _look(self, selector: selectors.BaseSelector) -> int | None:
        """Hear, bury, replace. Return an exit code where no process could ever start."""
        for seat in self.seats:
            self._hear(seat)
            if seat.process is not None and (code := seat.process.poll()) is not None:
                if not self._was_ready:
                    return code if code > 0 else 1
                self._bury(seat, selector, code)
            if seat.process is None and time.monotonic() >= seat.due:
                self._seat(seat, selector)
        return None

    def _seat(self, seat: Seat, selector: selectors.BaseSelector) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            seat.process = self.start(theirs)
        seat.link, seat.is_ready = ours, False
        seat.started = seat.heard = time.monotonic()
        selector.register(ours, selectors.EVENT_READ)

    def _hear(self, seat: Seat) -> None:
        if seat.process is None or seat.link is None:
            return
        now = time.monotonic()
        if _drain(seat.link):
            seat.heard = now
            if not seat.is_ready:
                seat.is_ready = True
                if not self._was_ready:
                    self._was_ready = True
                    self.on_ready()
        elif now - seat.heard > (SILENT_SECONDS if seat.is_ready else START_SECONDS):
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
        if seat.link is not None:
            selector.unregister(seat.link)
            seat.link.close()
        if seat.process is not None:
            self.on_end(seat.process.pid)
        seat.process = seat.link = None

    def _pause(self) -> float:
        now = time.monotonic()
        return max(0.0, min([BEAT_SECONDS, *(seat.due - now for seat in self.seats if seat.process is None)]))

    def _end_all(self, selector: selectors.BaseSelector) -> None:
        """Let requests in flight end within the deadline; a second signal does not wait for them."""
        running = [seat.process for seat in self.seats if seat.process is not None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        end = time.monotonic() + self.drain_seconds
        while any(process.poll() is None for process in running):
            if time.monotonic() > end or len(self._signals) > 1:
                for process in running:
                    process.kill()
            time.sleep(0.02)
        for seat in self.seats:
            self._vacate(seat, selector)

    @contextmanager
    def _woken(self) -> Iterator[socket.socket]:
        """Note signals to end; yield a socket that any signal, also of a child's end, makes readable."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        handlers = {
            signal.SIGTERM: lambda number, _: self._signals.append(number),
            signal.SIGINT: lambda number, _: self._signals.append(number),
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


def _drain(link: socket.socket) -> bytes:
    """Read what is there; nothing where nothing is, or where the other end is gone."""
    try:
        return link.recv(4096)
    except OSError:
        return b""

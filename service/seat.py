"""The place of one serving process, whoever sits there now: started, heard of, ended. Decides nothing of when.

A process and its supervisor are linked by a pair of sockets: the process sends a byte when it is warm and then every
second, and ends when the link is gone.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

BEAT_SECONDS = 1.0
"""How often a serving process sends a byte: the first one says that it is warm and listens."""
SILENT_SECONDS = 10.0
"""A process that was ready and then sends nothing for so long hangs."""
START_SECONDS = 60.0

Start = Callable[[socket.socket], subprocess.Popen[bytes]]
"""Given its end of a link, starts a serving process that inherits it."""


@dataclass(eq=False)
class Seat:
    """The place of one serving process.

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

    def occupy(self, start: Start, selector: selectors.BaseSelector) -> None:
        """Start a process here."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            self.process = start(theirs)
        self.link, self.is_ready = ours, False
        self.started = self.heard = time.monotonic()
        selector.register(ours, selectors.EVENT_READ)

    def hear(self) -> None:
        """Take note of what the process sent."""
        if self.link is not None and drained(self.link):
            self.heard = time.monotonic()
            self.is_ready = True

    def hangs(self) -> bool:
        """Say whether the process should have been heard of."""
        silence = time.monotonic() - self.heard
        return self.process is not None and silence > (SILENT_SECONDS if self.is_ready else START_SECONDS)

    def signal(self, number: int) -> None:
        """Send the process a signal; nothing where it has ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def ended(self) -> int | None:
        """Return the exit code of a process that has ended, else None."""
        return self.process.poll() if self.process is not None else None

    def vacate(self, selector: selectors.BaseSelector) -> int | None:
        """Let go of a process that has ended; return its id."""
        pid = self.process.pid if self.process is not None else None
        if self.link is not None:
            selector.unregister(self.link)
            self.link.close()
        self.process = self.link = None
        self.is_ready = False
        return pid


def drained(link: socket.socket) -> bytes:
    """Read what is there; nothing where nothing is, or where the other end is gone."""
    try:
        return link.recv(4096)
    except OSError:
        return b""

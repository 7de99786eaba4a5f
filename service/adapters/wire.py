"""One connection to a Redis server: a request goes out whole, and exactly its replies come in. Knows RESP (through
hiredis) and no command. A connection whose stream is out of step is closed and never used again.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import hiredis

Reply = Any
"""bytes, int, None, list of these, or a `hiredis.ReplyError` where the server refused that one command."""

_INCOMPLETE = object()
_KEEPALIVE_SECONDS = 30
_USER_TIMEOUT_MS = 5_000


class Wire(asyncio.Protocol):
    """One connection: a request of n commands, then a future of exactly n replies."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._replies: list[Reply] = []
        self._wanted = 0
        self._future: asyncio.Future[list[Reply]] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Say whether it can be used."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the kernel to notice a peer that is gone."""
        self._transport = transport  # type: ignore[assignment]
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (("TCP_KEEPIDLE", _KEEPALIVE_SECONDS), ("TCP_USER_TIMEOUT", _USER_TIMEOUT_MS)):
                if hasattr(socket, option):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def data_received(self, data: bytes) -> None:
        """Collect replies; the last one wanted ends the exchange."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                self._replies.append(reply)
        except hiredis.ProtocolError as error:
            self._fail(ConnectionError(f"not a Redis reply: {error}"))
            return
        if len(self._replies) >= self._wanted:
            future, self._future = self._future, None
            if future is None or len(self._replies) > self._wanted:  # nobody asked for this: the stream is out of step
                self._fail(ConnectionError("a reply that nobody asked for"))
            elif not future.done():
                future.set_result(self._replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange under way with an error."""
        self._fail(exc or ConnectionError("the server closed the connection"))

    def exchange(self, request: bytes, wanted: int) -> asyncio.Future[list[Reply]]:
        """Send packed commands and return the future of their replies. Raises ConnectionError where it is closed."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the connection is closed")
        self._replies, self._wanted = [], wanted
        self._future = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._future

    def drop(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_exception(error)
        self.drop()

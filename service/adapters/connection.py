"""One Redis server as adapters see it: commands out, replies in, under one deadline. Knows RESP (through hiredis) and
no key, no script's meaning.

A connection carries one exchange at a time. One whose replies were not read to the end (deadline, cancellation, broken
reply) is closed and never used again, so no caller can ever read another's reply. There are no retries with delays: a
connection that turns out to have died while idle is replaced by a fresh one, once, within the same deadline. Every
failure leaves here as `StoreUnavailable`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis

from service.ports import StoreUnavailable

Command = Sequence[str | bytes | int | float]
Reply = Any
"""bytes, int, None, list of these, or a `hiredis.ReplyError` where the server refused that one command."""

_INCOMPLETE = object()
_KEEPALIVE_SECONDS = 30
_USER_TIMEOUT_MS = 5_000


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script that runs atomically in the server, known there by its SHA-1."""

    name: str
    text: bytes
    sha: str

    @classmethod
    def read(cls, name: str) -> Script:
        """Read a script of this package by its name."""
        text = (Path(__file__).parent / "scripts" / f"{name}.lua").read_bytes()
        return cls(name, text, sha1(text, usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a script."""

    script: Script
    keys: Sequence[str | bytes]
    arguments: Sequence[str | bytes | int | float]


class _Wire(asyncio.Protocol):
    """One connection: a request of n commands, then a future of exactly n replies."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._replies: list[Reply] = []
        self._wanted = 0
        self._future: asyncio.Future[list[Reply]] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (("TCP_KEEPIDLE", _KEEPALIVE_SECONDS), ("TCP_USER_TIMEOUT", _USER_TIMEOUT_MS)):
                if hasattr(socket, option):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def data_received(self, data: bytes) -> None:
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
        self._fail(exc or ConnectionError("the server closed the connection"))

    def exchange(self, request: bytes, wanted: int) -> asyncio.Future[list[Reply]]:
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the connection is closed")
        self._replies, self._wanted = [], wanted
        self._future = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._future

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_exception(error)
        self.drop()


class Link:
    """A bounded pool of connections to one server.

    Args:
        url: `redis://[user][:password]@host[:port][/db]`, `rediss://...` for TLS, or `unix:///path`.
        max_connections: Callers beyond it wait, within their deadline.
    """

    def __init__(self, url: str, *, max_connections: int = 64) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError(f"a Redis URL starts with redis://, rediss:// or unix://, not {parts.scheme!r}")
        self._parts = parts
        self._hello: list[Command] = []
        if parts.password:
            user = (unquote(parts.username),) if parts.username else ()
            self._hello.append(("AUTH", *user, unquote(parts.password)))
        if parts.scheme != "unix" and parts.path.strip("/") not in ("", "0"):
            self._hello.append(("SELECT", parts.path.strip("/")))
        self._free = asyncio.Semaphore(max_connections)
        self._idle: list[_Wire] = []

    def __repr__(self) -> str:
        return f"Link({self._parts.scheme}://{self._parts.hostname or self._parts.path}:{self._parts.port or ''})"

    async def exchange(self, commands: Sequence[Command], *, deadline_seconds: float, reason: str) -> list[Reply]:
        """Send commands in one write and return their replies in order; a refused command's reply is a ReplyError.

        Raises:
            StoreUnavailable: with `reason`, where not all replies came in time.
        """
        try:
            async with asyncio.timeout(deadline_seconds):
                return await self._exchange(commands)
        except TimeoutError as error:
            raise StoreUnavailable(reason, f"no answer within {deadline_seconds * 1000:.0f} ms") from error
        except OSError as error:
            raise StoreUnavailable(reason, str(error)) from error

    async def run(self, calls: Sequence[Call], *, deadline_seconds: float, reason: str) -> list[Reply]:
        """Run scripts in order in one pipeline; one that the server does not know yet is sent whole, once.

        Raises:
            StoreUnavailable: with `reason`; which of the calls took effect is then unknown.
        """
        try:
            async with asyncio.timeout(deadline_seconds):
                replies = await self._exchange([_command("EVALSHA", c, c.script.sha) for c in calls])
                unknown = [i for i, reply in enumerate(replies) if _is_unknown_script(reply)]
                if unknown:
                    again = await self._exchange([_command("EVAL", calls[i], calls[i].script.text) for i in unknown])
                    for i, reply in zip(unknown, again, strict=True):
                        replies[i] = reply
        except TimeoutError as error:
            raise StoreUnavailable(reason, f"no answer within {deadline_seconds * 1000:.0f} ms") from error
        except OSError as error:
            raise StoreUnavailable(reason, str(error)) from error
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, hiredis.ReplyError):
                raise StoreUnavailable(reason, f"script {call.script.name}: {reply}")
        return replies

    async def close(self) -> None:
        """Close all idle connections; those in use are closed by their users' ends."""
        while self._idle:
            self._idle.pop().drop()
        await asyncio.sleep(0)  # lets the loop finish closing them, should it stop right after this

    async def _exchange(self, commands: Sequence[Command]) -> list[Reply]:
        if not commands:
            return []
        request = b"".join([hiredis.pack_command(tuple(command)) for command in commands])
        async with self._free:
            while self._idle:
                wire = self._idle.pop()
                try:
                    return await self._use(wire, request, len(commands))
                except OSError:  # died while idle: drop what else is idle, the loop ends with a fresh connection
                    while self._idle:
                        self._idle.pop().drop()
            return await self._use(await self._open(), request, len(commands))

    async def _use(self, wire: _Wire, request: bytes, wanted: int) -> list[Reply]:
        is_complete = False
        try:
            replies = await wire.exchange(request, wanted)
            is_complete = True
            return replies
        finally:
            if is_complete and wire.is_open:
                self._idle.append(wire)
            else:
                wire.drop()

    async def _open(self) -> _Wire:
        loop, parts = asyncio.get_running_loop(), self._parts
        if parts.scheme == "unix":
            _, wire = await loop.create_unix_connection(_Wire, unquote(parts.path))
        else:
            tls = ssl.create_default_context() if parts.scheme == "rediss" else None
            _, wire = await loop.create_connection(_Wire, parts.hostname or "127.0.0.1", parts.port or 6379, ssl=tls)
        if self._hello:
            is_ready = False
            try:
                greeting = b"".join([hiredis.pack_command(tuple(command)) for command in self._hello])
                for reply in await wire.exchange(greeting, len(self._hello)):
                    if isinstance(reply, hiredis.ReplyError):
                        raise ConnectionError(f"the server refused the connection: {reply}")
                is_ready = True
            finally:
                if not is_ready:
                    wire.drop()
        return wire


def _command(verb: str, call: Call, script: str | bytes) -> Command:
    return (verb, script, len(call.keys), *call.keys, *call.arguments)


def _is_unknown_script(reply: Reply) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")

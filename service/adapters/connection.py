"""One Redis server as adapters see it: commands out, replies in, under one deadline. Knows no key, no script's meaning.

A connection carries one exchange at a time. One whose replies were not read to the end (deadline, cancellation, broken
reply) is closed and never used again, so no caller can ever read another's reply. There are no retries with delays: a
connection that turns out to have died while idle is replaced by a fresh one, once, within the same deadline. Every
failure leaves here as `StoreUnavailable`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis

from service.adapters.breaker import LATE_SECONDS, Breaker
from service.adapters.deadline import Deadline
from service.adapters.wire import Reply, Wire
from service.ports import StoreUnavailable

__all__ = ["Call", "Command", "Link", "Reply", "Script"]

Command = Sequence[str | bytes | int | float]


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


class Link:
    """A bounded pool of connections to one server.

    Args:
        url: `redis://[user][:password]@host[:port][/db]`, `rediss://...` for TLS, or `unix:///path`.
        max_connections: Callers beyond it wait, within their deadline.
        breaker: Says when the server is not to be asked; None: it is always asked.
    """

    def __init__(self, url: str, *, max_connections: int = 64, breaker: Breaker | None = None) -> None:
        self.breaker = breaker
        self._free = asyncio.Semaphore(max_connections)
        self._idle: list[Wire] = []
        self.move(url)

    def move(self, url: str) -> None:
        """Open connections to another address from now on; those in use end their exchange where they are."""
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError(f"a Redis URL starts with redis://, rediss:// or unix://, not {parts.scheme!r}")
        self._parts = parts
        self._hello: list[Command] = []
        while self._idle:
            self._idle.pop().drop()
        if parts.password:
            user = (unquote(parts.username),) if parts.username else ()
            self._hello.append(("AUTH", *user, unquote(parts.password)))
        if parts.scheme != "unix" and parts.path.strip("/") not in ("", "0"):
            self._hello.append(("SELECT", parts.path.strip("/")))

    def __repr__(self) -> str:
        return f"Link({self._parts.scheme}://{self._parts.hostname or self._parts.path}:{self._parts.port or ''})"

    async def exchange(
        self, commands: Sequence[Command], *, deadline_seconds: float, reason: str, is_guarded: bool = True
    ) -> list[Reply]:
        """Send commands in one write and return their replies in order; a refused command's reply is a ReplyError.

        Args:
            is_guarded: Obey the breaker and tell it; False for callers with patience, whose deadlines say nothing of
                whether decisions would have waited.

        Raises:
            StoreUnavailable: with `reason`, where not all replies came in time.
        """
        return await self._within(self._exchange(commands), deadline_seconds, reason, is_guarded=is_guarded)

    async def run(
        self, calls: Sequence[Call], *, deadline_seconds: float, reason: str, is_guarded: bool = True
    ) -> list[Reply]:
        """Run scripts in order in one pipeline; one that the server does not know yet is sent whole, once.

        Args:
            is_guarded: As of `exchange`.

        Raises:
            StoreUnavailable: with `reason`; which of the calls took effect is then unknown.
        """
        replies = await self.try_each(calls, deadline_seconds=deadline_seconds, reason=reason, is_guarded=is_guarded)
        for reply in replies:
            if isinstance(reply, StoreUnavailable):
                raise reply
        return replies

    async def try_each(
        self, calls: Sequence[Call], *, deadline_seconds: float, reason: str, is_guarded: bool = True
    ) -> list[Reply]:
        """Do as `run`, but give each call that the server refused a StoreUnavailable for a reply."""
        replies = await self._within(self._run(calls), deadline_seconds, reason, is_guarded=is_guarded)
        for i, reply in enumerate(replies):
            if isinstance(reply, hiredis.ReplyError):
                replies[i] = StoreUnavailable(reason, f"script {calls[i].script.name}: {reply}")
        return replies

    async def close(self) -> None:
        """Close all idle connections; those in use are closed by their users' ends."""
        while self._idle:
            self._idle.pop().drop()
        await asyncio.sleep(0)  # lets the loop finish closing them, should it stop right after this

    async def _within(
        self, work: Coroutine[Any, Any, list[Reply]], deadline_seconds: float, reason: str, *, is_guarded: bool
    ) -> list[Reply]:
        breaker = self.breaker if is_guarded else None
        began = breaker.admit() if breaker else 0.0
        if began is None:
            work.close()
            raise StoreUnavailable(reason, "not asked, since it did not answer before")
        limit = Deadline(deadline_seconds)
        try:
            async with limit:
                replies = await work
        except OSError as error:  # a TimeoutError is one
            is_timeout = limit.is_expired
            if breaker and is_timeout and limit.late_seconds > LATE_SECONDS:
                breaker.gave_up(began)
            elif breaker:
                breaker.failed(began)
            detail = f"no answer within {deadline_seconds * 1000:.0f} ms" if is_timeout else str(error)
            raise StoreUnavailable(reason, detail) from error
        except BaseException:
            if breaker:
                breaker.gave_up(began)
            raise
        if breaker:
            breaker.succeeded(began)
        return replies

    async def _run(self, calls: Sequence[Call]) -> list[Reply]:
        replies = await self._exchange([_command("EVALSHA", c, c.script.sha) for c in calls])
        unknown = [i for i, reply in enumerate(replies) if _is_unknown_script(reply)]
        if unknown:
            again = await self._exchange([_command("EVAL", calls[i], calls[i].script.text) for i in unknown])
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return replies

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

    async def _use(self, wire: Wire, request: bytes, wanted: int) -> list[Reply]:
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

    async def _open(self) -> Wire:
        loop, parts = asyncio.get_running_loop(), self._parts
        if parts.scheme == "unix":
            _, wire = await loop.create_unix_connection(Wire, unquote(parts.path))
        else:
            tls = ssl.create_default_context() if parts.scheme == "rediss" else None
            _, wire = await loop.create_connection(Wire, parts.hostname or "127.0.0.1", parts.port or 6379, ssl=tls)
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

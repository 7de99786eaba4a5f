"""A store that tests may kill, freeze, fill and slow down, and a caller that measures what the service makes of it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.adapters.server_program import find_binary
from tests.served import free_port


class OwnServer:
    """A real server as a child of the test, on one port for good, with an append-only file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is or will be."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str, until_loaded: bool = True) -> None:
        """Start it with what it had."""
        self.folder.mkdir(exist_ok=True)
        arguments = [
            "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
            "--appendonly", "yes", "--appendfsync", "no",  # survives a killed process, and no disk is measured
            "--enable-debug-command", "yes", *options,
        ]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([find_binary(), *arguments], stdout=log, stderr=log)
        end = time.monotonic() + 20
        while until_loaded and time.monotonic() < end:
            with suppress(redis.RedisError):
                if self.command("PING"):
                    return
            time.sleep(0.01)
        if until_loaded:
            raise AssertionError((self.folder / "server.log").read_text()[-2000:])

    def command(self, *words: str | bytes | int) -> Any:
        """Send one command on a connection of its own."""
        with redis.Redis(port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
            return client.execute_command(*words)

    def copy_hashes(self, url: str) -> int:
        """Take over what Feast wrote to another server; return of how many customers."""
        with redis.Redis.from_url(url) as source, redis.Redis(port=self.port) as mine:
            keys = [key for key in source.scan_iter(count=1000) if not key.startswith(b"nba:")]
            for key in keys:
                mine.restore(key, 0, source.dump(key), replace=True)
            return len(keys)

    def forget(self, pattern: str) -> None:
        """Delete the keys of a pattern."""
        with redis.Redis(port=self.port) as mine:
            for key in mine.scan_iter(pattern, count=1000):
                mine.delete(key)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is None:
            raise AssertionError("it was not started")
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without a word to anyone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@dataclass
class Proxy:
    """A road to a server on which replies are late, cut or in slices, as set.

    Attributes:
        delay_seconds: Wait before each piece of a reply. slice_bytes: Send replies in pieces of so many bytes.
        cut_after_bytes: Reset the connection after so many bytes of replies.
    """

    target: int
    port: int = 0
    delay_seconds: float = 0.0
    slice_bytes: int = 0
    cut_after_bytes: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _servers: list[asyncio.Server] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Let it run in a thread of its own."""
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._servers.append(server.result(5))
        self.port = self._servers[0].sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._end)
            thread.join(5)
            self._loop.close()

    def _end(self) -> None:
        for server in self._servers:
            server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.call_later(0.05, self._loop.stop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(self._requests(reader, back), self._replies(there, writer))
        writer.close()
        back.close()

    async def _requests(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            back.write(data)
        back.close()

    async def _replies(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await there.read(65_536):
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            passed += len(data)
            if self.cut_after_bytes and passed > self.cut_after_bytes:
                writer.write(data[: len(data) // 2])
                await writer.drain()
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                writer.transport.abort()
                return
            size = self.slice_bytes or len(data)
            for start in range(0, len(data), size):
                writer.write(data[start : start + size])
                if self.slice_bytes:
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()


@dataclass(frozen=True)
class Answer:
    """What one call brought."""

    seconds: float
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def reasons(self) -> set[str]:
        """Why a decision is less than it could be."""
        return set(self.body["degraded_reasons"])

    @property
    def actions(self) -> set[str]:
        """What a decision shows."""
        return {action["action_id"] for action in self.body["actions"]}


class Caller:
    """Calls a service over one kept connection, and takes the time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = HTTPConnection("127.0.0.1", port, timeout=20)

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """Call it, whatever it answers."""
        started = time.perf_counter()
        try:
            self._connection.request(
                method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"}
            )
            with self._connection.getresponse() as response:
                data = response.read()
                seconds = time.perf_counter() - started
                return Answer(
                    seconds,
                    response.status,
                    {name.lower(): value for name, value in response.headers.items()},
                    json.loads(data),
                )
        except BaseException:
            self._connection.close()
            raise

    def decide(self, customer: str, channel: str = "app", **more: Any) -> Answer:
        """Ask for a decision."""
        return self.call("POST", "/v1/decisions", {"customer_id": customer, "channel": channel, **more})

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

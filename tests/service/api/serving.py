"""The API over a real server, real stores and a hand-made bundle: no model is trained for these tests."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from features.contract import LAYOUT
from features.matrix import Columns
from service.adapters.bundle_dir import BundleDir
from service.adapters.clock import WallClock
from service.adapters.connection import Link
from service.adapters.erasures import Erasures
from service.adapters.redis_journal import RedisJournal
from service.adapters.redis_state import RedisState
from service.adapters.seal import UNKEYED
from service.api.app import create_app
from service.api.keys import SCOPES, new_key
from service.bootstrap import Runtime
from service.catalogue.loader import load_catalogue
from service.decision.engine import compile_catalogue
from service.feedback import Feedback
from service.online import Online, Serving
from service.ports import Bundle
from service.reloader import Reloader
from service.settings import Settings
from tests.service.decision.worlds import CATALOGUE, TableScorer
from tests.service.rows import plan_by_hand

PATIENT_SECONDS = 5.0
"""Deadlines of the stores in these tests: what is measured here is the API."""
ATTEMPTS = 5
"""A reset that overtakes the answer to a body cut off leaves nothing to read: then the same is asked again."""


def opener(redis_url: str) -> Callable[[Settings], AbstractAsyncContextManager[Runtime]]:
    """Return an opener of a runtime on a real server that serves the example's catalogue with a fixed scorer."""

    @asynccontextmanager
    async def open_it(settings: Settings) -> AsyncIterator[Runtime]:
        catalogue = compile_catalogue(load_catalogue(CATALOGUE), Columns())
        scorer = TableScorer(len(catalogue.catalogue.actions))
        serving = Serving(catalogue, Bundle("table/1", "d" * 64, "f1", plan_by_hand(), lambda _: scorer), scorer)
        reloader = Reloader(CATALOGUE, BundleDir(settings.var / "models"), serving=serving)
        link = Link(redis_url)
        state = RedisState(link, link, LAYOUT)
        journal = RedisJournal(redis_url, deadline_seconds=PATIENT_SECONDS, idempotency_seconds=3600)
        clock = WallClock()
        online = Online(state, clock, lambda: reloader.serving, PATIENT_SECONDS, PATIENT_SECONDS)
        erasures = Erasures(link, settings.lake, UNKEYED)
        yield Runtime(settings, clock, state, journal, online, Feedback(journal, clock), reloader, erasures=erasures)
        await state.close()
        await journal.close()

    return open_it


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Running:
    """A running API.

    Attributes:
        keys: scope -> a key that has this scope only; "all" has all. Empty where no key is set.
    """

    app: FastAPI
    server: uvicorn.Server
    port: int
    keys: dict[str, str] = field(default_factory=dict)
    _connection: HTTPConnection | None = None

    def call(self, method: str, path: str, body: object = None, headers: Any = (), key: str | None = "all") -> Answer:
        """Call it over one connection that is kept; `headers` may repeat names."""
        said = list(headers.items() if isinstance(headers, dict) else headers)
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        if data is not None:
            if not any(name.lower() == "content-type" for name, _ in said):
                said.append(("Content-Type", "application/json"))
            said.append(("Content-Length", str(len(data))))
        if key is not None and self.keys:
            said.append(("Authorization", f"Bearer {self.keys.get(key, key)}"))
        for attempt in range(ATTEMPTS):
            if self._connection is None:
                self._connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
            try:
                self._connection.putrequest(method, path, skip_accept_encoding=True)
                for name, value in said:
                    self._connection.putheader(name, value)
                # A body that is refused before it was all sent is cut off: the answer is there before the error is.
                with suppress(BrokenPipeError, ConnectionResetError):
                    self._connection.endheaders(data)
                response = self._connection.getresponse()
                return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
            except (ConnectionError, OSError):
                self.close()
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError

    def close(self) -> None:
        """Close the connection that is kept."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def socket(self, timeout: float = 20.0) -> socket.socket:
        """Open a connection of one's own."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def raw(self, sent: bytes, timeout: float = 20.0) -> bytes:
        """Send bytes as they are, and return all that comes back until the service closes or falls silent."""
        with self.socket(timeout) as mine:
            mine.sendall(sent)
            return received(mine)


def received(mine: socket.socket) -> bytes:
    """Return what comes back until the service closes or the timeout."""
    got = b""
    try:
        while chunk := mine.recv(65_536):
            got += chunk
    except (TimeoutError, ConnectionResetError):
        pass
    return got


@contextmanager
def running(redis_url: str, var: Path, *, with_keys: bool = False) -> Iterator[Running]:
    """Run the API in a thread, on a free port, until the block ends."""
    keys, entries = {}, []
    if with_keys:
        for name, scopes in (*((s, [s]) for s in SCOPES), ("all", None)):
            keys[name], entry = new_key(name, scopes or list(SCOPES))
            entries.append(json.loads(entry))
    settings = Settings(var=var, api_keys=json.dumps(entries) if entries else None, api_key=None, docs=None)
    app = create_app(settings, opener(redis_url))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", **app.state.server_options))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        up = Running(app, server, listening.getsockname()[1], keys)
        end = time.monotonic() + 20
        while not server.started and time.monotonic() < end:
            time.sleep(0.01)
        try:
            yield up
        finally:
            up.close()
            server.should_exit = True
            thread.join(10)

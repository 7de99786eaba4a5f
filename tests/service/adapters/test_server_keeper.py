"""The embedded server is brought back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis

from service.adapters.embedded import EmbeddedServer
from service.adapters.server_keeper import keep_running


def kept(var: Path, harm: Callable[[EmbeddedServer], None]) -> list[str]:
    """Keep a server while it is harmed, until it runs again; return the URLs that it moved to."""
    server = EmbeddedServer(var)
    url = server.acquire()
    with redis.Redis.from_url(url) as client:
        client.set("acknowledged", "1")

    async def scenario() -> list[str]:
        moved: list[str] = []
        stop = asyncio.Event()
        keeping = asyncio.create_task(keep_running(server, url, stop, moved.append))
        harm(server)
        assert not server.is_running()
        async with asyncio.timeout(20):
            while not server.is_running():
                await asyncio.sleep(0.01)
        stop.set()
        await keeping
        return moved

    moved = asyncio.run(scenario())
    with redis.Redis.from_url(moved[-1] if moved else url) as client:
        assert client.get("acknowledged") == b"1"
    server.release()
    assert not server.is_running()
    return moved


def kill(server: EmbeddedServer) -> None:
    """Kill it and wait until it is dead."""
    os.kill(json.loads((server.folder / "server.json").read_text())["pid"], signal.SIGKILL)
    while server.is_running():
        pass


def test_a_killed_server_is_back_at_its_address_with_its_data(tmp_path: Path) -> None:
    """It is noticed without any traffic, started once, and stopped by its last user as ever."""
    assert kept(tmp_path, kill) == []


def test_where_its_port_was_taken_the_new_address_is_told(tmp_path: Path) -> None:
    """A server whose port another program took meanwhile comes back elsewhere, and says where."""
    with socket.socket() as thief:

        def harm(server: EmbeddedServer) -> None:
            port = json.loads((server.folder / "server.json").read_text())["port"]
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for _ in range(20):
                with suppress(OSError):  # the keeper was faster, or is about to start it again
                    kill(server)
                    thief.bind(("127.0.0.1", port))
                    break
            thief.listen()

        moved = kept(tmp_path, harm)
    assert len(moved) == 1

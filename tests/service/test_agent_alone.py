"""The agent while MLflow is down, silent, slow or not MLflow: bounded time, and the bundle in use stays."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import service.model_agent as model_agent
from service.adapters.bundle_dir import MANIFEST, bundles_by_age, current_digest, prune_bundles, set_current
from service.model_agent import KEPT_REFUSALS, sync_once
from tests.served import free_port, plain_environment, process, wait_until
from tests.small_world import SmallWorld

PAGE = b"<html><body>Sign in</body></html>"


def _http(status: bytes, kind: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % (status, kind, len(body)) + body


ANSWERS = {
    "an error": _http(b"500 Internal Server Error", b"application/json", b'{"error_code": "INTERNAL_ERROR"}'),
    "a page instead of JSON": _http(b"200 OK", b"text/html", PAGE),
    "a page as an error": _http(b"503 Service Unavailable", b"text/html", PAGE),
    "JSON of something else": _http(b"200 OK", b"application/json", b'{"hello": ["world"]}'),
    "half an answer": _http(b"200 OK", b"application/json", b'{"model_version": {}}')[:-9],
    "nothing": b"",
}


@contextmanager
def answering(answer: bytes | None, every_seconds: float = 0.0) -> Iterator[int]:
    """Listen and say the same to everyone; None: never a byte; with seconds: one byte after the other, for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def talk(one: socket.socket) -> None:
            with suppress(OSError):
                one.recv(65_536)
                if answer is None:
                    return
                if not every_seconds:
                    one.sendall(answer)
                    one.close()
                    return
                one.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
                while True:
                    one.sendall(b" ")
                    time.sleep(every_seconds)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    one, _ = server.accept()
                    kept.append(one)
                    threading.Thread(target=talk, args=(one,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for one in kept:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()


@pytest.fixture
def models(small_world: SmallWorld, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_world.models, tmp_path / "models"))


def look(models: Path, port: int, world: SmallWorld) -> BaseException | None:
    """Let the agent look once; it must come back."""
    failed: list[BaseException | None] = []

    def run() -> None:
        try:
            sync_once(models, f"http://127.0.0.1:{port}", world.feast_registry)
            failed.append(None)
        except Exception as error:
            failed.append(error)

    looking = threading.Thread(target=run, daemon=True)
    looking.start()
    looking.join(60)
    assert not looking.is_alive(), "it never came back"
    return failed[0]


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_what_is_not_an_answer_changes_nothing(small_world: SmallWorld, models: Path, answer: bytes) -> None:
    """An error, a page, other JSON, half an answer or none: the agent fails in words and the bundle in use stays."""
    with answering(answer) as port:
        assert look(models, port, small_world) is not None
    assert current_digest(models) == small_world.digest
    assert (models / small_world.digest / MANIFEST).exists()


def test_a_closed_port_changes_nothing(small_world: SmallWorld, models: Path) -> None:
    """MLflow is not there: an error at once."""
    assert look(models, free_port(), small_world) is not None
    assert current_digest(models) == small_world.digest


@pytest.mark.parametrize("every_seconds", [None, 0.05], ids=["black hole", "a byte at a time"])
def test_the_agent_does_not_wait_for_ever(
    small_world: SmallWorld, models: Path, monkeypatch: pytest.MonkeyPatch, every_seconds: float | None
) -> None:
    """Neither silence nor an answer without end holds the agent, and no second question is asked beside the first."""
    monkeypatch.setattr(model_agent, "ASK_SECONDS", 1.0)
    with answering(None if every_seconds is None else b"", every_seconds or 0.0) as port:
        assert isinstance(look(models, port, small_world), TimeoutError)
        assert "question before" in str(look(models, port, small_world))
        assert current_digest(models) == small_world.digest
    assert model_agent._asking.acquire(timeout=30), "the question that was given up has ended with its connection"
    model_agent._asking.release()


def test_a_running_agent_ends_on_a_signal_while_mlflow_is_silent(small_world: SmallWorld, tmp_path: Path) -> None:
    """`nba agent` before a black hole says so in its log, keeps the bundle, and ends when it is told to."""
    var, log = tmp_path / "var", tmp_path / "agent.log"
    var.mkdir()
    shutil.copytree(small_world.models, var / "models")
    kept = plain_environment()
    with answering(ANSWERS["an error"]) as port:
        env = {**kept, "NBA_VAR": str(var), "NBA_MLFLOW_URI": f"http://127.0.0.1:{port}"}
        env |= {"NBA_REDIS_URL": "redis://127.0.0.1:1/0"}
        with process(env, log, "agent") as started:
            wait_until(lambda: "cannot follow the champion" in log.read_text(), 40, log)
            started.send_signal(signal.SIGTERM)
            assert started.wait(10) == 143
    assert current_digest(var / "models") == small_world.digest


def test_old_bundles_are_pruned(tmp_path: Path) -> None:
    """The current one, the youngest two beside it and all younger than a day stay; the rest and old remains go."""
    now, day = 1_000_000_000.0, 86_400.0
    ages = {0: 9.0, 1: 0.1, 2: 0.5, 3: 0.9, 4: 2.0, 5: 3.0, 6: 8.0}
    names = {n: f"{n:032x}" for n in ages}
    for n, age in ages.items():
        (tmp_path / names[n]).mkdir()
        (tmp_path / names[n] / MANIFEST).write_text("{}")
        os.utime(tmp_path / names[n] / MANIFEST, (now - age * day, now - age * day))
    set_current(tmp_path, names[0])
    for name, age in ((".new-old", 2.0), (".new-now", 0.0), (".damaged-old", 2.0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (now - age * day, now - age * day))
    assert prune_bundles(tmp_path, keep=2, younger_seconds=day, now=now) == (names[4], names[5], names[6])
    assert set(bundles_by_age(tmp_path)) == {names[n] for n in (0, 1, 2, 3)}
    assert {path.name for path in tmp_path.glob(".[dn]*")} == {".new-now"}
    assert prune_bundles(tmp_path, keep=0, younger_seconds=0, now=now) == (names[1], names[2], names[3])
    assert current_digest(tmp_path) == names[0]
    assert bundles_by_age(tmp_path) == (names[0],)


def test_reasons_do_not_pile_up(tmp_path: Path) -> None:
    """refused.json keeps the newest reasons only."""
    refused = {f"nba-propensity/{n} source features": "why" for n in range(KEPT_REFUSALS + 30)}
    model_agent._write_refused(tmp_path, refused)
    assert list(model_agent.read_refused(tmp_path)) == list(refused)[30:]

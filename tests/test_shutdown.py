"""A serving process that is told to end: it says so first, finishes what was asked, and is gone within its deadline."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.served import free_port, plain_environment, process, wait_until
from tests.small_world import SmallWorld
from tests.test_degraded import answers, copy_of_models

BODY = json.dumps({"customer_id": "7", "channel": "app"}).encode()
CALLERS = 4
DRAIN_SECONDS = 1.0
END_SECONDS = DRAIN_SECONDS + 5.0 + 2.0
"""Draining, uvicorn's time for requests in flight, and a busy machine."""


class Asking(threading.Thread):
    """Asks again and again on a connection that is kept, until the service asks to let go of it."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.statuses = port, list[int]()
        self.failure: BaseException | None = None
        self.was_asked_to_go = False

    def run(self) -> None:
        """Ask."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            while not self.was_asked_to_go:
                connection.request("POST", "/v1/decisions", BODY, {"Content-Type": "application/json"})
                response = connection.getresponse()
                response.read()
                self.statuses.append(response.status)
                self.was_asked_to_go = response.headers.get("Connection") == "close"
        except (OSError, ValueError) as error:
            self.failure = error
        finally:
            connection.close()


def readiness(port: int) -> int:
    """Return the status of /readyz, as a balancer asks for it; 0 where nobody listens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_that_was_asked_fails(small_world: SmallWorld, tmp_path: Path, workers: int) -> None:
    """After SIGTERM /readyz is 503 while requests, one half sent among them, are still answered; then it ends."""
    var, port = copy_of_models(small_world, tmp_path / "var"), free_port()
    env = {
        **plain_environment(),
        "NBA_VAR": str(var), "NBA_PORT": str(port), "NBA_MLFLOW_URI": "http://127.0.0.1:1",
        "NBA_DRAIN_SECONDS": str(DRAIN_SECONDS),
    }  # fmt: skip
    log = var / "serve.log"
    with process(env, log, "serve", "--workers", str(workers)) as started:
        wait_until(lambda: log.read_text().count("startup complete") == workers, 30, log)
        wait_until(lambda: answers(port, "/readyz"), 10, log)
        callers = [Asking(port) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        wait_until(lambda: all(caller.statuses for caller in callers), 10, log)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as half:
            head = f"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
            half.sendall(head.encode() + BODY[:10])
            time.sleep(0.1)
            told = time.monotonic()
            started.send_signal(signal.SIGTERM)
            ready = 200
            while ready == 200:
                ready = readiness(port)
            half.sendall(BODY[10:])
            answer = half.recv(65_536)
        code = started.wait(END_SECONDS)
        took = time.monotonic() - told
        for caller in callers:
            caller.join(5)
    assert ready == 503
    assert answer.startswith(b"HTTP/1.1 200")
    assert [caller.failure for caller in callers] == [None] * CALLERS
    assert all(caller.was_asked_to_go for caller in callers)
    assert {status for caller in callers for status in caller.statuses} == {200}
    assert code == 128 + signal.SIGTERM
    assert took >= DRAIN_SECONDS


def test_ctrl_c_ends_it_without_a_word(small_world: SmallWorld, tmp_path: Path) -> None:
    """SIGINT is a plain end: exit code 130 and no traceback."""
    var, port = copy_of_models(small_world, tmp_path / "var"), free_port()
    env = {**plain_environment(), "NBA_VAR": str(var), "NBA_PORT": str(port), "NBA_MLFLOW_URI": "http://127.0.0.1:1"}
    log = var / "serve.log"
    with process(env, log, "serve") as started:
        wait_until(lambda: answers(port, "/readyz"), 60, log)
        started.send_signal(signal.SIGINT)
        assert started.wait(END_SECONDS) == 130
    said = log.read_text()
    assert "Traceback" not in said
    assert "leaked" not in said, "the model's library has something to say"


@pytest.mark.parametrize("workers", [1, 2])
def test_what_keeps_it_from_starting_is_one_sentence(workers: int, tmp_path: Path) -> None:
    """A clock that cannot be understood ends it with exit code 1 and the reason; no stack, no path of the library."""
    var = tmp_path / "var"
    var.mkdir()
    (var / "clock.json").write_text('{"mode": "sideways"}')
    port, log = free_port(), tmp_path / "log"
    environment = {**plain_environment(), "NBA_VAR": str(var), "NBA_PORT": str(port)}
    with process(environment, log, "serve", "--workers", str(workers)) as serving:
        assert serving.wait(timeout=30) == 1
    said = log.read_text()
    assert 'mode is \'sideways\'; write "offset" or "simulated", or remove the file' in said
    assert "Traceback" not in said
    assert "site-packages" not in said

"""SIGHUP to the supervisor replaces every serving process, and no caller notices."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from service.api.keys import new_key
from tests.served import free_port, process, wait_until
from tests.small_world import SmallWorld
from tests.test_degraded import answers, copy_of_models
from tests.test_workers import PROCESSES, Several, environment, is_alive

BODY = json.dumps({"customer_id": "7", "channel": "app", "dry_run": True}).encode()


class Client(threading.Thread):
    """Asks again and again, letting go of a connection when it is asked to, or after every answer.

    Attributes:
        answered: Statuses of all answers. failures: What was no answer.
    """

    def __init__(self, port: int, *, keeps: bool) -> None:
        super().__init__(daemon=True)
        self.port, self.keeps = port, keeps
        self.answered, self.failures = list[int](), list[BaseException]()
        self.enough = threading.Event()

    def run(self) -> None:
        """Ask until told to stop."""
        connection = None
        while not self.enough.is_set():
            connection = connection or HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request("POST", "/v1/decisions", BODY, {"Content-Type": "application/json"})
                response = connection.getresponse()
                response.read()
                self.answered.append(response.status)
                lets_go = not self.keeps or response.headers.get("Connection") == "close"
            except (OSError, ValueError) as error:
                self.failures.append(error)
                lets_go = True
            if lets_go:
                connection.close()
                connection = None
            time.sleep(0.002)
        if connection is not None:
            connection.close()


@contextmanager
def asked(port: int) -> Iterator[list[Client]]:
    """Ask from several sides while the block runs."""
    clients = [Client(port, keeps=keeps) for keeps in (True, True, False, False)]
    with ExitStack() as stack:
        for client in clients:
            client.start()
            stack.callback(client.join)
            stack.callback(client.enough.set)
        yield clients


def restart(several: Several) -> None:
    """Send SIGHUP and wait until all processes are others and the old ones are gone."""
    before = several.serving()
    os.kill(several.started.pid, signal.SIGHUP)

    def is_done() -> bool:
        now = several.serving()
        return len(now) == PROCESSES and not set(now) & set(before) and not any(is_alive(pid) for pid in before)

    wait_until(is_done, 60, several.log)


@contextmanager
def several_processes(small_world: SmallWorld, tmp_path: Path, **more: str) -> Iterator[Several]:
    """Serve a small world by several processes; `more` is environment."""
    var, port = copy_of_models(small_world, tmp_path / "var"), free_port()
    env = {**environment(var, port), "NBA_GATHER_DEADLINE_MS": "1000", **more}
    with process(env, var / "serve.log", "serve", "--workers", str(PROCESSES)) as started:
        found = Several(var, started, port)
        wait_until(lambda: found.log.read_text().count("startup complete") == PROCESSES, 40, found.log)
        wait_until(lambda: answers(port, "/readyz"), 5, found.log)
        yield found


@pytest.fixture
def rolling(small_world: SmallWorld, tmp_path: Path) -> Iterator[Several]:
    with several_processes(small_world, tmp_path) as found:
        yield found


def check(several: Several, times: int) -> int:
    """Restart so many times under load; return how many requests were answered."""
    with asked(several.port) as clients:
        for _ in range(times):
            restart(several)
        statuses = [status for client in clients for status in client.answered]
        ready = [answers(several.port, "/readyz") for _ in range(4)]
    failures = [repr(failure) for client in clients for failure in client.failures]
    assert failures == []
    assert set(statuses) == {200}
    assert all(ready)
    return len(statuses)


@pytest.mark.prove
def test_two_restarts_under_load_fail_no_request(rolling: Several) -> None:
    """While all processes are replaced twice, every request has its answer and the service stays ready."""
    assert check(rolling, 2) > 50


@pytest.mark.prove
def test_a_newcomer_that_cannot_start_changes_nothing(small_world: SmallWorld, tmp_path: Path) -> None:
    """Where the new process ends before it is warm, those that serve stay, and a later restart succeeds."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps([json.loads(new_key("test", ["decide"])[1])]))
    with several_processes(small_world, tmp_path, NBA_API_KEYS=str(keys)) as found:
        before, good = found.serving(), keys.read_text()
        keys.write_text("not a list of keys")
        os.kill(found.started.pid, signal.SIGHUP)
        wait_until(lambda: "a new serving process does not start" in found.log.read_text(), 30, found.log)
        assert found.serving() == before
        assert found.decide() == 401
        keys.write_text(good)
        restart(found)
        assert found.decide() == 401


@pytest.mark.prove
def test_twenty_restarts_under_load_fail_no_request(rolling: Several, capsys: pytest.CaptureFixture[str]) -> None:
    """20 rolling restarts of all processes under load: 0 failed requests."""
    n = check(rolling, 20)
    with capsys.disabled():
        print(f"\n20 rolling restarts of {PROCESSES} processes, {n} requests answered, 0 failed")

"""The load generators, against a real server that keeps account."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.load import Load, LoadFailed
from benchmarks.openloop import arrivals, run_open
from benchmarks.processes import free_port

BODIES = [b'{"n": 0}', b'{"n": 1}', b'{"n": 2}']


class Account(ThreadingHTTPServer):
    """Answers 200, or 503 for every body that it was told to refuse, and keeps what it was asked in order."""

    daemon_threads = True

    def __init__(self, refused: tuple[bytes, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refused, self.asked = refused, []
        self.pause_seconds, self.opens_at = 0.0, 0.0

    def handle_error(self, *_: object) -> None:
        """A load that ends breaks its connections: nothing to say."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Account

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.opens_at = self.server.opens_at or time.monotonic() + self.server.pause_seconds
        time.sleep(max(0.0, self.server.opens_at - time.monotonic()))
        self.server.asked.append((self.path, self.headers["Content-Type"], body))
        self.send_response(503 if body in self.server.refused else 200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(params=[False, True], ids=["python", "wrk"])
def use_wrk(request: pytest.FixtureRequest) -> bool:
    if request.param and shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    return bool(request.param)


@pytest.fixture
def account(request: pytest.FixtureRequest) -> Iterator[Account]:
    server = Account(getattr(request, "param", ()))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_answer_is_counted_and_bodies_go_round(account: Account, use_wrk: bool, tmp_path: Path):
    """One connection asks the bodies in turn as JSON; all that was answered is counted, but for the one in flight."""
    found = Load(tmp_path, "bodies", BODIES, use_wrk=use_wrk).run(account.server_port, 1, 1.0)
    asked = account.asked
    assert found.failures == 0
    assert 0 <= len(asked) - found.requests <= 1
    assert set(asked) == {("/v1/decisions", "application/json", body) for body in BODIES}
    first = BODIES.index(asked[0][2])  # wrk calls its script once before it asks
    assert [body for _, _, body in asked] == [BODIES[(first + i) % 3] for i in range(len(asked))]
    assert 0 < found.p50_ms <= found.p99_ms


def test_many_connections_ask_side_by_side(account: Account, use_wrk: bool, tmp_path: Path):
    """With four connections at most four answers are missing in the count."""
    found = Load(tmp_path, "bodies", BODIES, use_wrk=use_wrk).run(account.server_port, 4, 1.0)
    assert 0 <= len(account.asked) - found.requests <= 4


@pytest.mark.parametrize("account", [(BODIES[1],)], indirect=True)
def test_refusals_are_failures(account: Account, use_wrk: bool, tmp_path: Path):
    """An answer other than 200 is a failure and not a request."""
    found = Load(tmp_path, "bodies", BODIES, use_wrk=use_wrk).run(account.server_port, 1, 1.0)
    refused = sum(body == BODIES[1] for _, _, body in account.asked)
    assert 0 <= refused - found.failures <= 1
    assert 0 <= len(account.asked) - refused - found.requests <= 1


def test_a_load_is_bounded(tmp_path: Path):
    """More than 64 connections or 30 seconds are refused before anything is sent."""
    load = Load(tmp_path, "bodies", BODIES)
    for connections, seconds in ((65, 1.0), (0, 1.0), (1, 31.0), (1, 0.0)):
        with pytest.raises(ValueError, match="at most"):
            load.run(9, connections, seconds)


def test_nobody_there_is_no_figure(tmp_path: Path):
    """Where nobody listens the generator says so, instead of giving a rate of nothing."""
    with pytest.raises((LoadFailed, OSError)):
        Load(tmp_path, "bodies", BODIES, use_wrk=False).run(free_port(), 1, 0.2)


@pytest.mark.prove
def test_an_open_loop_asks_when_it_is_due_and_counts_who_waited(account: Account, tmp_path: Path):
    """All questions of the stream are asked once; a contestant that stands still is charged from when each was due."""
    account.pause_seconds = 0.3
    load = Load(tmp_path, "bodies", BODIES)
    found = run_open(load, account.server_port, 200, 1.0)
    assert found.requests == len(account.asked) == len(arrivals(200, 1.0, 0))
    assert found.failures == 0
    assert load.at == found.requests % len(BODIES)
    assert found.p99_ms > 250  # a closed loop would have one slow answer a connection and report the others


def test_arrivals_keep_their_rate():
    """A Poisson stream of a seed: as many as its rate asks, ascending, within the window, the same each time."""
    due = arrivals(1000, 20.0, 7)
    assert len(due) == pytest.approx(20_000, rel=0.03)
    assert due == sorted(due) == arrivals(1000, 20.0, 7)
    assert 0 < due[0] < due[-1] < 20

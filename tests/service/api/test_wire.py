"""Slow, endless and broken connections are ended, while others are served."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.api import wire
from service.api.body import LIST_LIMIT, SINGLE_LIMIT
from tests.service.api.serving import Running, received

BODY_ROUTES = ["POST /v1/decisions", "POST /v1/outcomes", "POST /v1/events", "PUT /v1/switches/all/all"]
ALL_ROUTES = [*BODY_ROUTES, "GET /livez", "GET /readyz", "GET /metrics", "GET /v1/catalogue", "GET /v1/customers/1"]
MIB = 1024 * 1024
GIVE_UP_SECONDS = 15.0
"""When a test stops waiting for the service to end a connection: then it has failed."""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of tenths of a second in place of seconds."""
    for name, seconds in (("HEAD", 0.3), ("REQUEST", 0.6), ("LINGER", 0.2), ("WRITE", 0.3)):
        monkeypatch.setattr(wire, f"{name}_SECONDS", seconds)


def head(route: str, *headers: str) -> bytes:
    return "\r\n".join([f"{route} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def trickle(mine: socket.socket, drop: bytes, each_seconds: float = 0.05) -> bool:
    """Send drop by drop until the service ends the connection; say whether it did."""
    mine.settimeout(each_seconds)
    end = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < end:
        try:
            mine.sendall(drop)
            if not mine.recv(65_536):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def pour(mine: socket.socket, chunk: bytes, n_bytes: int) -> int:
    """Send until the service ends the connection; return how many bytes it let pass."""
    sent = 0
    try:
        while sent < n_bytes:
            mine.sendall(chunk)
            sent += len(chunk)
    except OSError:
        pass
    return sent


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("route", BODY_ROUTES)
def test_trickled_bodies(api: Running, route: str) -> None:
    """A body that comes byte by byte is cut off after an absolute time, with a 408 to those who listen."""
    with api.socket() as mine:
        mine.sendall(head(route, "Content-Type: application/json", "Content-Length: 60000"))
        assert trickle(mine, b" ")
    with api.socket(GIVE_UP_SECONDS) as mine:
        mine.sendall(head(route, "Content-Type: application/json", "Content-Length: 60000") + b"{")
        answer = received(mine)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("route", BODY_ROUTES)
def test_trickled_chunks(api: Running, route: str) -> None:
    """The same holds for chunks without end."""
    with api.socket() as mine:
        mine.sendall(head(route, "Content-Type: application/json", "Transfer-Encoding: chunked"))
        assert trickle(mine, b"1\r\n \r\n")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("route", ALL_ROUTES)
def test_trickled_heads(api: Running, route: str) -> None:
    """Headers that come byte by byte are cut off too."""
    with api.socket() as mine:
        mine.sendall(f"{route} HTTP/1.1\r\n".encode())
        assert trickle(mine, b"x")


@pytest.mark.usefixtures("hasty")
def test_trickled_trailers_and_bodies_that_nobody_reads(api: Running) -> None:
    """Neither trailers, nor the body of a request that was answered at once, nor blank lines hold a connection."""
    starts = {
        head("POST /v1/events", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n": b"a: b\r\n",
        head("GET /livez", "Content-Length: 60000"): b" ",
        head("GET /livez", "Transfer-Encoding: chunked"): b"1\r\n \r\n",
        head("POST /v1/events", "Content-Type: text/plain", "Content-Length: 60000"): b" ",
        head("GET /livez"): b"\r\n",
        b"": b"\r\n",
    }
    for start, drop in starts.items():
        with api.socket() as mine:
            mine.sendall(start)
            assert trickle(mine, drop), start


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("sent", [b"", b"\r\n", b"G", head("GET /livez")[:-2]])
def test_silent_connections(api: Running, sent: bytes) -> None:
    """A connection that falls silent before its first request is whole is closed."""
    with api.socket(GIVE_UP_SECONDS) as mine:
        mine.sendall(sent)
        answer = received(mine)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
        assert mine.recv(1) == b""


@pytest.mark.usefixtures("hasty")
def test_others_are_served_meanwhile(api: Running) -> None:
    """Hundreds of slow connections keep nobody from an answer, and all of them end."""
    start = head("POST /v1/events", "Content-Type: application/json", "Content-Length: 9999") + b"["
    slow: list[socket.socket] = []
    try:
        for i in range(300):
            slow.append(api.socket(GIVE_UP_SECONDS))
            slow[-1].sendall(start if i % 2 else start[:20])
            if i % 10 == 0:
                assert api.call("POST", "/v1/decisions", {"customer_id": "1", "channel": "app"}).status == 200
        assert all(received(mine).startswith(b"HTTP/1.1 408 ") for mine in slow)
    finally:
        for mine in slow:
            mine.close()
    assert len(wire_connections(api)) <= 2


def wire_connections(api: Running) -> set[object]:
    """Return the connections that are open; the test's own is one."""
    end = time.monotonic() + GIVE_UP_SECONDS
    while len(found := api.server.server_state.connections) > 2 and time.monotonic() < end:
        time.sleep(0.02)
    return set(found)


@pytest.mark.usefixtures("hasty")
def test_callers_who_do_not_read(api: Running) -> None:
    """Who asks on and on and reads nothing is cut off, in place of filling memory with answers."""
    with api.socket(GIVE_UP_SECONDS) as mine:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = head("GET /v1/catalogue") * 100
        assert pour(mine, asked, 64 * MIB) < 64 * MIB


def test_pieces_are_put_together(api: Running) -> None:
    """A request in small pieces, several in one piece, and one after an early answer are all answered."""
    body = b'{"customer_id":"1","channel":"app","dry_run":true}'
    whole = head("POST /v1/decisions", "Content-Type: application/json", f"Content-Length: {len(body)}") + body
    last = head("GET /livez", "Connection: close")
    with api.socket(GIVE_UP_SECONDS) as mine:
        for i in range(0, len(whole), 7):
            mine.sendall(whole[i : i + 7])
            time.sleep(0.001)
        mine.sendall(whole * 5 + last)
        assert received(mine).count(b"HTTP/1.1 200 ") == 7
    early = head("POST /v1/decisions", "Content-Type: text/plain", "Content-Length: 3000")
    with api.socket(GIVE_UP_SECONDS) as mine:
        mine.sendall(early + b" " * 1000)
        answer = mine.recv(65_536)
        mine.sendall(b" " * 2000 + last)
        answer += received(mine)
    assert [answer.count(b"HTTP/1.1 415 "), answer.count(b"HTTP/1.1 200 ")] == [1, 1]


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /v1/events HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /v1/events HTTP/1.1\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /v1/events HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
        b"POST /v1/events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    ],
)
def test_broken_http(api: Running, sent: bytes) -> None:
    """What is no HTTP, or says two things about its length, is a 400 as a problem, and the connection ends."""
    answer = api.raw(sent, GIVE_UP_SECONDS)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    assert b"connection: close" in answer


def test_endless_headers(api: Running) -> None:
    """Headers larger than the limit are refused before they end."""
    for piece in (b"x" * 1024, b"a: b\r\n" * 200):
        with api.socket(GIVE_UP_SECONDS) as mine:
            mine.sendall(b"GET /livez HTTP/1.1\r\nA: ")
            assert pour(mine, piece, 64 * MIB) < 64 * MIB
            assert received(mine).startswith(b"HTTP/1.1 431 ")


def peak_memory_of(work: Callable[[], None]) -> int:
    """Return by how many bytes the process's peak memory lies above what it had before."""
    status = Path("/proc/self/status")

    def read(name: str) -> int:
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(name))

    Path("/proc/self/clear_refs").write_text("5")
    before = read("VmRSS")
    work()
    return read("VmHWM") - before


@pytest.mark.parametrize("route", BODY_ROUTES)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_of_64_mib(api: Running, route: str, is_chunked: bool) -> None:
    """A body of 64 MiB is a 413 long before it ends, declared or not, and the process does not grow."""
    chunk = b" " * 16_384
    piece, length = (
        (b"4000\r\n" + chunk + b"\r\n", "Transfer-Encoding: chunked")
        if is_chunked
        else (chunk, f"Content-Length: {64 * MIB}")
    )
    answers = []

    def send() -> None:
        with api.socket(GIVE_UP_SECONDS) as mine:
            mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            mine.sendall(head(route, "Content-Type: application/json", length))
            assert pour(mine, piece, 64 * MIB) < 64 * MIB
            answers.append(received(mine))

    assert peak_memory_of(lambda: [send() for _ in range(3)] and None) < 24 * MIB
    assert all(answer.startswith(b"HTTP/1.1 413 ") for answer in answers)


@pytest.mark.parametrize("route", ["GET /livez", "GET /metrics", "GET /v1/customers/1", "GET /nowhere"])
def test_large_bodies_where_none_belongs(api: Running, route: str) -> None:
    """A route that reads no body is not made to: the connection ends soon after the answer."""
    with api.socket(GIVE_UP_SECONDS) as mine:
        mine.sendall(head(route, f"Content-Length: {64 * MIB}"))
        assert pour(mine, b" " * 16_384, 64 * MIB) < 64 * MIB
        assert received(mine).startswith(b"HTTP/1.1 ")


def test_limits_are_exact(api: Running) -> None:
    """A single body may have 64 KiB and a list 2 MiB, and not a byte more."""
    ask = b'{"customer_id":"1","channel":"app","dry_run":true}'
    for size, status in ((SINGLE_LIMIT, 200), (SINGLE_LIMIT + 1, 413)):
        assert api.call("POST", "/v1/decisions", ask.ljust(size)).status == status
    event = b'{"event_id":"x","customer_id":"1","type":"profile_changed"}'
    for body, size, status in (
        (event, SINGLE_LIMIT, 202),
        (event, SINGLE_LIMIT + 1, 413),
        (b"[" + event + b"]", LIST_LIMIT, 202),
        (b"[" + event + b"]", LIST_LIMIT + 1, 413),
    ):
        assert api.call("POST", "/v1/events", body.ljust(size)).status == status


def test_callers_who_hang_up(api: Running) -> None:
    """Connections that end in the middle of a request leave nothing behind and are no error of the service."""
    start = head("POST /v1/decisions", "Content-Type: application/json", "Content-Length: 60") + b'{"customer_id":'
    before = broken(api)

    def hang_up() -> None:
        for at in range(1, len(start), 9):
            with api.socket() as mine:
                mine.sendall(start[:at])

    threads = [threading.Thread(target=hang_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert api.call("GET", "/livez").status == 200
    assert len(wire_connections(api)) <= 2
    assert broken(api) == before


def broken(api: Running) -> list[bytes]:
    """How often the service said 500, as a line of its metrics; nothing where it never did."""
    return [
        line for line in api.call("GET", "/metrics").body.splitlines() if b'nba_problems_total{status="500"}' in line
    ]

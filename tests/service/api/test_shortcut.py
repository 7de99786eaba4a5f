"""A request that comes whole takes the shortcut, and its answer is that of the framework's way."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.api.observed import Observed
from service.api.problems import ProblemError
from service.api.shedding import Shedding
from service.api.shortcut import PATHS
from tests.service.api.serving import Running, received

JSON = "Content-Type: application/json"
ASK = {"customer_id": "s-1", "channel": "app"}
GOOD = {
    "/v1/decisions": ASK,
    "/v1/events": {"event_id": "s-e", "customer_id": "s-1", "type": "profile_changed"},
    "/v1/outcomes": {"outcome_id": "s-o", "decision_id": "d", "action_id": "a", "type": "click"},
}
CHANGING = re.compile(rb"\r\n(date|x-request-id): [^\r]*|Retry-After: \d|retry-after: \d")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that took the shortcut."""
    paths: list[str] = []
    whole = Observed.whole

    async def counted(self: Observed, scope: Any, *more: Any) -> Any:
        paths.append(scope["path"])
        return await whole(self, scope, *more)

    monkeypatch.setattr(Observed, "whole", counted)
    return paths


def request(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    length = f"Content-Length: {len(body)}"
    return "\r\n".join([f"POST {path} HTTP/{version}", "Host: x", length, *headers, "", ""]).encode("latin-1") + body


def answer(mine: socket.socket) -> bytes:
    """Return one answer with a declared length."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += mine.recv(65_536) or pytest.fail("the connection ended")
    head, _, body = got.partition(b"\r\n\r\n")
    [length] = re.findall(rb"content-length: (\d+)", head)
    while len(body) < int(length):
        body += mine.recv(65_536) or pytest.fail("the connection ended")
    return CHANGING.sub(b"", head) + b"\r\n\r\n" + body


@contextmanager
def both(api: Running) -> Iterator[tuple[socket.socket, socket.socket]]:
    with api.socket() as one, api.socket() as two:
        for mine in (one, two):
            mine.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield one, two


def in_pieces(mine: socket.socket, sent: bytes) -> None:
    """Send all but the last byte, and that when the rest was taken."""
    mine.sendall(sent[:-1])
    time.sleep(0.02)
    mine.sendall(sent[-1:])


def cases() -> dict[str, bytes]:
    """Return requests that are answered alike however often they are sent."""
    found = {}
    for path, good in GOOD.items():
        body = json.dumps(good).encode()
        name = next(iter(good))
        for what, sent, headers in (
            ("bad JSON", body[:-1] + b",", [JSON]),
            ("bad field", json.dumps({**good, name: ""}).encode(), [JSON]),
            ("unknown field", json.dumps({**good, "x": 1}).encode(), [JSON]),
            ("text", body, ["Content-Type: text/plain"]),
            ("two types", body, [JSON, JSON]),
            ("encoded", body, [JSON, "Content-Encoding: gzip"]),
            ("too large", body.ljust(64 * 1024 + 1), [JSON]),
            ("close", body[:-1], [JSON, "Connection: close"]),
            ("bad key", body[:-1], [JSON, "Idempotency-Key: a b"]),
            ("two keys", body[:-1], [JSON, "Idempotency-Key: a", "Idempotency-Key: b"]),
            ("bad bearer", body[:-1], [JSON, "Authorization: Bearer x"]),
            ("two bearers", body[:-1], [JSON, "Authorization: Bearer x", "Authorization: Bearer y"]),
        ):
            found[f"{path} {what}"] = request(path, sent, *headers)
    found["repeat"] = request("/v1/decisions", json.dumps(ASK).encode(), JSON, "Idempotency-Key: shortcut-1")
    found["conflict"] = request(
        "/v1/decisions", json.dumps({**ASK, "channel": "email"}).encode(), JSON, "Idempotency-Key: shortcut-1"
    )
    found["unknown"] = request("/v1/decisions", json.dumps({**ASK, "require_known": True}).encode(), JSON)
    found["event"] = request("/v1/events", json.dumps(GOOD["/v1/events"]).encode(), JSON)
    found["list"] = request("/v1/events", json.dumps([GOOD["/v1/events"], {"event_id": "y"}]).encode(), JSON)
    return found


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_both_ways_answer_alike(api: Running, taken: list[str], name: str) -> None:
    """Status, headers in their order and body are the same to the byte, but for the request's id and the date."""
    sent = CASES[name]
    if name in ("repeat", "conflict", "event", "list"):  # what comes first is answered otherwise than what is repeated
        for first in (CASES["repeat"], CASES["event"]):
            api.raw(first.replace(b"Host: x", b"Connection: close", 1))
        taken.clear()
    with both(api) as (whole, cut):
        whole.sendall(sent)
        found = answer(whole)
        assert len(taken) == 1
        in_pieces(cut, sent)
        assert found == answer(cut)
        assert len(taken) == 1


def test_keys_both_ways(guarded: Running, taken: list[str]) -> None:
    """A missing key, one that lacks the scope, and the right one have the same answers both ways."""
    for path, good in GOOD.items():
        for key, status in ((None, 401), ("read", 403), ("all", 422)):
            sent = request(path, json.dumps({**good, "x": 1}).encode(), JSON,
                           *([f"Authorization: bearer {guarded.keys[key]}"] if key else []))  # fmt: skip
            with both(guarded) as (whole, cut):
                whole.sendall(sent)
                in_pieces(cut, sent)
                found = answer(whole)
                assert found == answer(cut)
                assert found.startswith(b"HTTP/1.1 %d " % status)
    assert len(taken) == 9


def test_what_is_not_exactly_the_route_goes_the_other_way(api: Running, taken: list[str]) -> None:
    """Another method, a query, an escape in the path, or a caller who waits for 100 is the framework's to answer."""
    body = json.dumps({**ASK, "dry_run": True}).encode()
    sent = request("/v1/decisions", body, JSON, "Connection: close")
    for other, status in (
        (sent.replace(b"/v1/decisions", b"/v1/decisions?a=b"), b"200"),
        (sent.replace(b"/v1/decisions", b"/v1/%64ecisions"), b"200"),
        (sent.replace(b"Host: x", b"Expect: 100-continue"), b"100"),
        (sent.replace(b"POST", b"PUT"), b"405"),
        (sent.replace(b"/v1/decisions", b"/v1/decisions/"), b"404"),
    ):
        assert api.raw(other).startswith(b"HTTP/1.1 " + status)
    assert taken == []
    chunks = request("/v1/decisions", b"", JSON, "Connection: close").replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    ) + b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
    assert api.raw(chunks).startswith(b"HTTP/1.1 200 ")
    assert taken == ["/v1/decisions"]


def test_ends_of_connections(api: Running, taken: list[str]) -> None:
    """A connection stays as long as its caller wants it, and is ended with the answer where they do not."""
    body = json.dumps({**ASK, "dry_run": True}).encode()
    for version, headers, says_close in (("1.1", ["Connection: close"], True), ("1.0", [], True)):
        got = api.raw(request("/v1/decisions", body, JSON, *headers, version=version))
        assert got.count(b"HTTP/1.1 200 ") == 1
        assert (b"connection: close" in got) == says_close
    with api.socket() as mine:
        for _ in range(3):
            mine.sendall(request("/v1/decisions", body, JSON))
            assert b"connection" not in answer(mine)
    assert len(taken) == 5


def test_order_of_a_pipeline(api: Running, taken: list[str]) -> None:
    """Requests sent at once over one connection are answered in their order, whichever way each goes."""
    sent, statuses = b"", []
    for i in range(12):
        if i % 3 == 2:
            sent, status = sent + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"200"
        else:
            bad = {"x": 1} if i % 2 else {}
            sent += request("/v1/decisions", json.dumps({**ASK, "dry_run": True, **bad}).encode(), JSON)
            status = b"422" if i % 2 else b"200"
        statuses.append(status)
    with api.socket(1.0) as mine:
        mine.sendall(sent + b"NONSENSE\r\n\r\n")
        got = received(mine)
    found = re.findall(rb"HTTP/1.1 (\d+) ", got)
    assert [status for status in found if status != b"400"] == statuses[: len(found) - found.count(b"400")]
    with api.socket(1.0) as mine:
        mine.sendall(sent)
        assert re.findall(rb"HTTP/1.1 (\d+) ", received(mine)) == statuses
    assert set(taken) == {"/v1/decisions"}


def test_nonsense_after_an_answer(api: Running) -> None:
    """A later request of a connection that breaks off in the middle of its body is a 400, as a first one is."""
    good = request("/v1/decisions", json.dumps({**ASK, "dry_run": True}).encode(), JSON)
    broken = b"POST /v1/decisions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n"
    with api.socket(2.0) as mine:
        mine.sendall(good)
        assert answer(mine).startswith(b"HTTP/1.1 200 ")
        mine.sendall(broken)
        assert received(mine).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("path", PATHS)
def test_turned_away_and_asked_to_leave(
    api: Running, taken: list[str], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """One request too many, and one in a process that is on its way out, are told so in the same words both ways."""
    sent = request(path, json.dumps({**GOOD[path], "x": 1}).encode(), JSON)
    monkeypatch.setattr(api.app.state.draining, "is_on", True)
    for is_shed, status in ((False, b"422"), (True, b"503")):
        if is_shed:
            monkeypatch.setattr(
                Shedding, "refusal", lambda *_: ProblemError(503, "overloaded", "Too many.", retry_after=1)
            )
        with both(api) as (whole, cut):
            whole.sendall(sent)
            in_pieces(cut, sent)
            found = received(whole)
            assert CHANGING.sub(b"", found) == CHANGING.sub(b"", received(cut))
            assert found.startswith(b"HTTP/1.1 " + status)
            assert b"\r\nconnection: close\r\n" in found
    assert taken == [path, path]


def test_a_defect_is_a_500(api: Running, taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in the route is a problem both ways; what goes wrong around it ends the connection."""

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError

    def torn(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(api.app.state.runtime.online, "decide", broken)
    sent = request("/v1/decisions", json.dumps(ASK).encode(), JSON)
    with both(api) as (whole, cut):
        whole.sendall(sent)
        in_pieces(cut, sent)
        found = answer(whole)
        assert found == answer(cut)
        assert found.startswith(b"HTTP/1.1 500 ")
    monkeypatch.setattr(Shedding, "refusal", torn)
    with both(api) as (whole, cut):
        whole.sendall(sent)
        in_pieces(cut, sent)
        found = received(whole)
        assert CHANGING.sub(b"", found) == CHANGING.sub(b"", received(cut))
        assert found.startswith(b"HTTP/1.1 500 ")
    assert len(taken) == 2

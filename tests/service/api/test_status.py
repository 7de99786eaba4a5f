"""What people and machines see of a process: its state, its backlog, what it turned away."""

from __future__ import annotations

import re
import time

import pytest

from service.api import vitals
from tests.service.api.serving import Running, received

BODY = {"customer_id": "7", "channel": "app", "dry_run": True}


def counted(api: Running, name: str) -> float:
    """Return the sum of a metric over its labels."""
    text = api.call("GET", "/metrics").body.decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.MULTILINE))


def test_the_page_of_states_names_every_part(api: Running) -> None:
    """One page says whether the stores answer, what serves, how far the lake is behind, and how much is paused."""
    page = api.call("GET", "/statusz").json
    assert page["status"] == "serving"
    assert page["dependencies"]["store"]["is_up"] is True
    assert page["model"]["version"] == "table"
    assert page["catalogue"]["file_changed_seconds_ago"] > 0
    assert page["paused"] == 0


def test_the_backlog_of_the_journal_is_measured(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that no worker has taken yet count, with the bytes that the store holds for them."""
    monkeypatch.setattr(vitals, "JOURNAL_EVERY", 1)
    for n in range(3):
        event = {"event_id": f"backlog-{n}", "customer_id": "7", "type": "visit", "properties": {}}
        assert api.call("POST", "/v1/events", event).status in (202, 422)
    assert api.call("POST", "/v1/decisions", {"customer_id": "7", "channel": "app"}).status == 200
    end = time.monotonic() + 15
    while counted(api, "nba_journal_lag_records") < 1 and time.monotonic() < end:
        time.sleep(0.2)
    assert counted(api, "nba_journal_lag_records") >= 1
    assert counted(api, "nba_journal_bytes") > 100
    assert counted(api, "nba_journal_bytes_free") > 0
    page = api.call("GET", "/statusz").json
    assert page["journal"]["not_in_lake"] >= 1


def test_what_ends_before_any_route_is_counted(api: Running) -> None:
    """Requests that are no HTTP, or whose headers are endless, are counted by their status."""
    before = counted(api, "nba_refused_total")
    with api.socket(10) as mine:
        mine.sendall(b"this is no request\r\n\r\n")
        assert b" 400 " in received(mine)
    with api.socket(10) as mine:
        mine.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"x" * 40_000)
        assert b" 431 " in received(mine)
    assert counted(api, "nba_refused_total") == before + 2


def test_one_request_too_many_is_turned_away(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the limit decisions, outcomes and events get a 503 with Retry-After at once; health and metrics go on."""
    shedding = api.app.middleware_stack._shedding
    before = counted(api, "nba_shed_total")
    monkeypatch.setattr(shedding, "most", 0)
    for path in ("/v1/decisions", "/v1/outcomes", "/v1/events"):
        answer = api.call("POST", path, BODY)
        assert answer.status == 503
        assert answer.json["type"] == "urn:nba:problem:overloaded"
        assert 1 <= int(answer.headers["retry-after"]) <= 3
    assert api.call("GET", "/livez").status == 200
    assert counted(api, "nba_shed_total") == before + 3
    monkeypatch.undo()
    assert api.call("POST", "/v1/decisions", BODY).status == 200


def test_the_place_of_a_request_is_free_again(api: Running) -> None:
    """However requests end, the process counts none as being worked on when all have ended."""
    shedding = api.app.middleware_stack._shedding
    assert api.call("GET", "/livez").status == 200
    assert api.call("POST", "/v1/decisions", b"{broken").status == 400
    assert api.call("POST", "/v1/decisions", {"customer_id": "7", "channel": "none"}).status == 422
    with api.socket(5) as mine:
        mine.sendall(
            b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
    end = time.monotonic() + 12
    while shedding.now and time.monotonic() < end:
        time.sleep(0.05)
    assert shedding.now == 0


def test_a_full_explanation_that_cannot_be_is_said(api: Running) -> None:
    """Where what scored cannot show what it reads, `explain: full` still answers, and says that there is none."""
    answer = api.call("POST", "/v1/decisions", {**BODY, "explain": "full"})
    assert answer.status == 200
    assert answer.json["explanation"]["status"] == "unavailable"
    assert answer.json["explanation"]["why"]

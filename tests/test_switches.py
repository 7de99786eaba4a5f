"""A pause acts on the next decision of every process, and is known with who and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from service.lake_files import files
from tests.served import Served, free_port, process, wait_until

HOUSEHOLD = "31"


@pytest.fixture(scope="module")
def two(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Served]]:
    """The session's service, and another process beside it on the same store."""
    tmp, port = tmp_path_factory.mktemp("second"), free_port()
    env = {**served.env, "NBA_PORT": str(port)}
    second = Served(f"http://127.0.0.1:{port}", served.var, env)
    with process(env, tmp / "serve.log", "serve"):
        wait_until(lambda: second.call("GET", "/readyz")[0] == 200, 30, tmp / "serve.log")
        yield served, second


def switch(served: Served, scope: str, scope_id: str, *, paused: bool) -> None:
    body = {"paused": paused, "who": "ana@shop.example", "why": "the price is wrong"}
    status, answer = served.call("PUT", f"/v1/switches/{scope}/{scope_id}", body)
    assert status == 200, answer


def stages(served: Served) -> dict[str, Any]:
    answer = served.decide(HOUSEHOLD, dry_run=True, explain="full")
    return {entry["treatment_id"]: entry for entry in answer["trace"]}


def test_the_next_decision_of_every_process_obeys(two: tuple[Served, Served]) -> None:
    """What one process pauses no process shows in its next decision; after resuming all is as before."""
    first, second = two
    before = stages(second)
    shown = next(entry for entry in before.values() if entry["stage"] == "ranked")
    others = {"action": shown["action_id"], "issue": shown["issue"], "treatment": shown["treatment_id"]}
    for scope, scope_id in {**others, "placement": shown["placement"], "channel": "app", "all": "all"}.items():
        switch(first, scope, scope_id, paused=True)
        for served in two:
            found = stages(served)
            if scope == "placement":
                assert not [e for e in found.values() if e["stage"] == "ranked" and e["placement"] == scope_id]
                continue
            assert found[shown["treatment_id"]]["stage"] == "switched_off", (scope, found[shown["treatment_id"]])
            n_off = sum(entry["stage"] == "switched_off" for entry in found.values())
            assert n_off == len(found) if scope in ("channel", "all") else n_off < len(found)
        switch(second, scope, scope_id, paused=False)
    assert "switched_off" not in {entry["stage"] for entry in stages(first).values()}


def test_who_and_why_are_listed_and_journalled(two: tuple[Served, Served]) -> None:
    """The list names scope, id, who, why and since when; the log keeps pause and resume."""
    first, second = two
    switch(first, "group", _some_group(first), paused=True)
    status, listed = second.call("GET", "/v1/switches")
    assert status == 200
    [one] = listed
    assert (one["scope"], one["who"], one["why"]) == ("group", "ana@shop.example", "the price is wrong")
    assert one["at"].startswith("2018-01-01T06:00:00")
    switch(first, "group", one["id"], paused=False)
    assert second.call("GET", "/v1/switches") == (200, [])
    end, rows = time.monotonic() + 15, []
    while time.monotonic() < end and len(rows) < 2:
        time.sleep(0.3)
        found = files(first.var / "lake", "switches")
        if found:
            query = "SELECT paused, who, why FROM read_parquet(?) WHERE scope = 'group' ORDER BY journal_id"
            rows = duckdb.execute(query, [found]).fetchall()
    assert rows == [(True, "ana@shop.example", "the price is wrong"), (False, "ana@shop.example", "the price is wrong")]


def _some_group(served: Served) -> str:
    return str(served.decide(HOUSEHOLD, dry_run=True)["actions"][0]["group"])


def test_the_command_pauses_lists_and_resumes(two: tuple[Served, Served]) -> None:
    """`nba switch` does what the route does; what the catalogue does not have cannot be paused, but resumed."""
    first, _ = two
    why = ("--who", "ben", "--why", "incident")
    done = first.run("switch", "pause", "issue", "upsell", *why)
    assert done.returncode == 0, done.stderr
    assert {e["stage"] for e in stages(first).values() if e["issue"] == "upsell"} == {"switched_off"}
    listed = first.run("switch", "list")
    assert "upsell" in listed.stdout
    assert "incident" in listed.stdout
    assert first.run("switch", "resume", "issue", "upsell", *why).returncode == 0
    assert first.call("GET", "/v1/switches") == (200, [])
    wrong = first.run("switch", "pause", "issue", "upsel", *why)
    assert wrong.returncode == 2
    assert "it has cross_sell" in " ".join(wrong.stderr.split()).replace("│ ", "")
    assert first.run("switch", "resume", "action", "gone_for_good", *why).returncode == 0
    assert first.call("PUT", "/v1/switches/issue/upsel", {"paused": True, "who": "a", "why": "b"})[0] == 422


def test_switching_needs_its_words(two: tuple[Served, Served]) -> None:
    """Nobody pauses anything without saying who and why."""
    first, _ = two
    assert first.call("PUT", "/v1/switches/all/all", {"paused": True, "who": "", "why": "b"})[0] == 422
    assert first.call("PUT", "/v1/switches/all/all", {"paused": True, "who": "ana"})[0] == 422
    assert first.call("PUT", "/v1/switches/rule/all", {"paused": True, "who": "ana", "why": "b"})[0] == 422
    assert first.call("GET", "/v1/switches") == (200, [])

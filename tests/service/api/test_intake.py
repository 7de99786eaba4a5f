"""Every documented answer to an event or outcome has its counter, one by one and in lists."""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import Any

import pytest

from service.adapters import redis_keys as keys
from service.adapters.connection import Link
from service.adapters.seal import UNKEYED
from service.decision.record import partition_of
from tests.service.api.serving import Running

numbers = itertools.count()
ERASED = "forgotten"


def event(**more: Any) -> dict[str, Any]:
    n = next(numbers)
    return {"event_id": f"i-{n}", "customer_id": f"i-{n}", "type": "profile_changed", "properties": {}, **more}


def outcome(**more: Any) -> dict[str, Any]:
    ids = {"outcome_id": f"i-{next(numbers)}", "decision_id": "07-" + "2" * 32, "action_id": "upsell_cheese"}
    return {**ids, "type": "click", **more}


def counts(api: Running) -> dict[str, float]:
    """Return the counters of intake by name and labels."""
    text = api.call("GET", "/metrics").body.decode()
    found = re.findall(r"^(nba_(?:events|outcomes|intake_flagged)_total\{.*\}) (\S+)$", text, re.M)
    return {name: float(value) for name, value in found}


def grown(api: Running, before: dict[str, float]) -> dict[str, float]:
    return {name: n - before.get(name, 0.0) for name, n in counts(api).items() if n != before.get(name, 0.0)}


@pytest.fixture
def forgotten(redis_url: str) -> str:
    """A customer who has a tombstone."""

    async def bury() -> None:
        link = Link(redis_url)
        name = keys.erased(partition_of(ERASED), UNKEYED.digest(ERASED))
        await link.exchange([("SET", name, "1")], deadline_seconds=5, reason="")
        await link.close()

    asyncio.run(bury())
    return ERASED


BASKET = {"lines": [{"aisle": "deli", "quantity": 1, "sales_value": 2.5}]}
ANSWERS: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "accepted": ("event", {}, 202, "accepted"),
    "said before": ("event", {}, 202, "duplicate"),
    "other content before": ("event", {"type": "purchase", "properties": BASKET}, 409, "conflict"),
    "unknown field": ("event", {"other": 1}, 422, "invalid"),
    "unknown type": ("event", {"type": "none_such"}, 422, "invalid"),
    "unknown property": ("event", {"properties": {"x": 1}}, 422, "invalid"),
    "forgotten": ("event", {"customer_id": ERASED}, 202, "erased"),
    "orphan": ("outcome", {}, 202, "orphan"),
    "no such type": ("outcome", {"type": "bought"}, 422, "invalid"),
}
"""What differs from a good one, the status of a single one, and what became of it."""


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("is_list", [False, True], ids=["single", "list"])
def test_every_answer_is_counted_once(api: Running, forgotten: str, name: str, is_list: bool) -> None:
    """Single or in a list, an item is counted once, by what became of it."""
    kind, changes, status, result = ANSWERS[name]
    good = event() if kind == "event" else outcome()
    if name.endswith("before"):
        assert api.call("POST", f"/v1/{kind}s", good).status == 202
    item, before = {**good, **changes}, counts(api)
    answer = api.call("POST", f"/v1/{kind}s", [item] if is_list else item)
    assert answer.status == (202 if is_list else status)
    if is_list:
        assert answer.json[0]["status"] == result
    assert grown(api, before) == {f'nba_{kind}s_total{{result="{result}"}}': 1.0}


@pytest.mark.parametrize(("said", "flag"), [("2020-01-01T00:00:00Z", "late"), ("2400-01-01T00:00:00Z", "clock_skew")])
def test_late_and_early_are_flagged_and_counted(api: Running, said: str, flag: str) -> None:
    """A moment far back is kept and said; one ahead becomes now and is said."""
    before = counts(api)
    answer = api.call("POST", "/v1/events", event(occurred_at=said))
    assert (answer.status, answer.json["flags"]) == (202, [flag])
    assert grown(api, before) == {
        'nba_events_total{result="accepted"}': 1.0,
        f'nba_intake_flagged_total{{flag="{flag}",kind="event"}}': 1.0,
    }

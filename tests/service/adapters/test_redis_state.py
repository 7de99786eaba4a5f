"""Gather and record on a real server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from features.contract import LAYOUT
from service.adapters import redis_keys as keys
from service.adapters.connection import Link
from service.adapters.embedded import EmbeddedServer
from service.adapters.feast_reader import FactReader
from service.adapters.journal_entries import decode_decision
from service.adapters.redis_journal import RedisJournal
from service.adapters.redis_state import RedisState
from service.decision.record import CONTACTS_DAYS, RESERVATION_SECONDS, partition_of
from service.ports import CapCheck, Caps, CapTerms, Event, FactPlan, Offer, Recorded, StoreUnavailable
from tests.service.adapters.test_feast_reader import a_row, write_all
from tests.service.rows import CHEESE, COFFEE, DELI, HOURS, decision_row, plan_by_hand

NOW = 1_770_000_000.0
DAY = 86_400.0
PLAN = plan_by_hand()
Result = TypeVar("Result")
Limit = tuple[CapCheck, float]


@asynccontextmanager
async def opened(url: str, features_url: str | None = None) -> AsyncIterator[RedisState]:
    """Open the state as bootstrap does."""
    link = Link(url)
    state = RedisState(Link(features_url) if features_url else link, link, LAYOUT)
    yield state
    await state.close()


def on(url: str, scenario: Callable[[RedisState], Awaitable[Result]]) -> Result:
    """Run a scenario on the state behind a URL."""

    async def run() -> Result:
        async with opened(url) as state:
            return await scenario(state)

    return asyncio.run(run())


async def record(
    state: RedisState, row: Any, offers: tuple[Offer, ...] = (CHEESE,), caps: tuple[Limit, ...] = (), **more: Any
) -> Recorded:
    """Record with defaults."""
    options = {"answer": None, "request_digest": "d", "deadline_seconds": 5.0, **more}
    checks, since = tuple(check for check, _ in caps), [moment for _, moment in caps]
    return await state.record(row, offers, Caps(CapTerms(checks), since), **options)


def cap(scope: str, scope_id: str, counted: str, limit: int, days: float = 7, channels: tuple[str, ...] = ()) -> Limit:
    """Return a cap as `online` makes it for a decision at NOW, and since when it counts."""
    return CapCheck("cap", scope, scope_id, counted, limit, channels), NOW - days * DAY


async def journal_of(state: RedisState, customer: str) -> list[tuple[str, bytes]]:
    """Return kinds and payloads of the customer's partition."""
    key = keys.of_partition(partition_of(customer), "journal")
    [entries] = await state._state.exchange([("XRANGE", key, "-", "+")], deadline_seconds=5, reason="")
    return [(pairs[1].decode(), pairs[3]) for _, pairs in entries]


def test_nothing_known_is_unknown_and_not_degraded(clean_url: str) -> None:
    """A store that answers and has nothing gives unknown customers, unknown consent and no degraded reason."""

    async def scenario(state: RedisState) -> None:
        gathered = await state.gather(PLAN, ["a", "b"], "app", NOW, 1.0)
        assert gathered.degraded_reasons == ()
        batch = gathered.batch
        assert batch.facts.shape == (LAYOUT.width, 2)
        assert np.isnan(batch.facts).all()
        assert not batch.is_known.any()
        assert batch.consents == ({}, {})
        assert batch.is_loggable
        assert batch.paused == frozenset()
        assert len(batch.contacts.times) == 0

    on(clean_url, scenario)


def test_facts_written_by_feast_are_gathered_for_each_customer(
    feast_world: tuple[Any, FactPlan], clean_url: str
) -> None:
    """A batch has each customer's own facts, in the order asked, and the unknown ones between them."""
    store, plan = feast_world
    write_all(store, "a", a_row(1))
    write_all(store, "b", a_row(2))

    async def scenario(state: RedisState) -> None:
        now = time.time()
        batch = (await state.gather(plan, ["b", "nobody", "a"], "app", now, 1.0)).batch
        np.testing.assert_array_equal(batch.facts[:, 0], a_row(2))
        np.testing.assert_array_equal(batch.facts[:, 2], a_row(1))
        assert batch.is_known.tolist() == [True, False, True]
        alone = (await state.gather(plan, ["a"], "app", now, 1.0)).batch
        np.testing.assert_array_equal(alone.facts[:, 0], batch.facts[:, 2])

    on(clean_url, scenario)


def test_stale_views_are_missing_and_said_to_be(feast_world: tuple[Any, FactPlan], clean_url: str) -> None:
    """A view older than its maximum age is NaN and `features_stale` is said; of a lost field, `features_partial`."""
    store, plan = feast_world
    write_all(store, "a", np.ones(LAYOUT.width))

    async def scenario(state: RedisState) -> None:
        oldest = max(view.max_age_days for view in LAYOUT.views)
        late = time.time() + (oldest + 1) * DAY
        gathered = await state.gather(plan, ["a"], "app", late, 1.0)
        assert gathered.degraded_reasons == ("features_stale",)
        assert np.isnan(gathered.batch.facts).all()
        assert gathered.batch.is_known.all()
        field = next(field for field, name in plan.fields.items() if name == "spend_total")
        key = FactReader(plan, LAYOUT).key("a")
        await state._features.exchange([("HDEL", key, field)], deadline_seconds=5, reason="")
        assert (await state.gather(plan, ["a"], "app", time.time(), 1.0)).degraded_reasons == ("features_partial",)

    on(clean_url, scenario)


def test_a_recorded_decision_is_logged_reserved_and_found(clean_url: str) -> None:
    """Recording appends the row to the journal, keeps the decision for its outcomes and counts the contact."""

    async def scenario(state: RedisState) -> None:
        row = decision_row("a", NOW)
        assert await record(state, row, (CHEESE, HOURS)) == Recorded()
        [(kind, payload)] = await journal_of(state, "a")
        assert kind == "decision"
        assert decode_decision(payload) == row
        found = await state.find_decision(row.decision_id)
        assert found is not None
        assert found[1].offers == (
            ("upsell_cheese", "upsell", "dairy", "cheese_app", True, ""),
            ("store_hours", "service", "service", "hours_app", False, ""),
        )
        assert found[2] == row
        seen = await state.contacts_of("a", NOW)
        assert [(c["kind"], c["action_id"], c["channel"], c["time"]) for c in seen["contacts"]] == [
            ("decision", "store_hours", "app", NOW),
            ("decision", "upsell_cheese", "app", NOW),
        ]

    on(clean_url, scenario)


def test_the_same_decision_again_is_a_repeat_and_another_request_a_conflict(clean_url: str) -> None:
    """Under one id the first answer is given again to the byte; another request conflicts; nothing is logged twice."""

    async def scenario(state: RedisState) -> None:
        row = decision_row("a", NOW)
        first = await record(state, row, answer=b'{"n":\n1}', request_digest="r1")
        again = await record(state, row, answer=b"other", request_digest="r1")
        other = await record(state, row, answer=b"other", request_digest="r2")
        assert (first, again, other) == (Recorded(), Recorded(repeat=b'{"n":\n1}'), Recorded(conflict=True))
        assert await state.find_answer(row.decision_id) == ("r1", b'{"n":\n1}')
        assert len(await journal_of(state, "a")) == 1

    on(clean_url, scenario)


def test_recording_again_after_a_lost_reply_changes_nothing(clean_url: str) -> None:
    """Without an Idempotency-Key a second record of one id succeeds, takes no second contact and logs nothing."""

    async def scenario(state: RedisState) -> None:
        row = decision_row("a", NOW)
        limit_one = cap("all", "", "decision", 1)
        assert await record(state, row, caps=(limit_one,)) == Recorded()
        assert await record(state, row, caps=(limit_one,)) == Recorded()
        assert len(await journal_of(state, "a")) == 1
        assert len((await state.contacts_of("a", NOW))["contacts"]) == 1

    on(clean_url, scenario)


def test_a_refused_offer_refuses_the_whole_record(clean_url: str) -> None:
    """Where one offer's cap is used up, that action is named, and nothing is reserved or logged for the others."""

    async def scenario(state: RedisState) -> None:
        limit = cap("action", "upsell_cheese", "decision", 1)
        await record(state, decision_row("a", NOW - 60), (CHEESE,), (limit,))
        refused = await record(state, decision_row("a", NOW), (CHEESE, DELI), (limit,), answer=b"x")
        assert refused == Recorded(refused=("upsell_cheese",), denied_by=("cap",))
        assert len(await journal_of(state, "a")) == 1
        assert len((await state.contacts_of("a", NOW))["contacts"]) == 1
        assert await record(state, decision_row("a", NOW), (DELI,), (limit,)) == Recorded()

    on(clean_url, scenario)


CAPS = {
    "all counts and binds everything": (cap("all", "", "decision", 2), ("upsell_deli", "store_hours")),
    "marketing neither counts nor binds service": (cap("marketing", "", "decision", 2), ("upsell_deli",)),
    "an issue binds its own": (cap("issue", "upsell", "decision", 1), ("upsell_deli",)),
    "each issue on its own, if it is marketing": (cap("issue", "*", "decision", 1), ("upsell_deli",)),
    "another issue does not bind": (cap("issue", "retention", "decision", 0), ()),
    "a group": (cap("group", "fresh", "decision", 0), ("upsell_deli",)),
    "each action on its own, if it is marketing": (cap("action", "*", "decision", 1), ()),
    "a named action, marketing or not": (cap("action", "store_hours", "decision", 1), ("store_hours",)),
    "other channels do not count": (cap("all", "", "decision", 0, channels=("email",)), ()),
    "its own channel counts": (
        cap("all", "", "decision", 2, channels=("app", "email")),
        ("upsell_deli", "store_hours"),
    ),
    "before the window does not count": (cap("marketing", "", "decision", 1, days=0.5), ("upsell_deli",)),
    "reservations count as impressions": (cap("marketing", "", "impression", 2), ("upsell_deli",)),
    "responses count only as responses": (cap("marketing", "", "click", 1), ()),
}


@pytest.mark.parametrize(("limit", "refused"), CAPS.values(), ids=CAPS.keys())
def test_caps_count_what_they_say(clean_url: str, limit: Limit, refused: tuple[str, ...]) -> None:
    """With cheese, coffee and opening hours decided just now, deli and hours are refused as the cap says."""

    async def scenario(state: RedisState) -> None:
        old = NOW - (DAY if "window" in str(limit) else 60)
        await record(state, decision_row("a", old), (CHEESE, HOURS))
        await record(state, decision_row("a", NOW - 30), (COFFEE,))
        assert (await record(state, decision_row("a", NOW), (DELI, HOURS), (limit,))).refused == refused

    on(clean_url, scenario)


def test_offers_of_one_answer_count_among_each_other(clean_url: str) -> None:
    """Of three offers under a limit of two, the third is refused."""

    async def scenario(state: RedisState) -> None:
        limit = cap("marketing", "", "impression", 2)
        found = await record(state, decision_row("a", NOW), (CHEESE, COFFEE, HOURS, DELI), (limit,))
        assert found.refused == ("upsell_deli",)

    on(clean_url, scenario)


MANY = """
import asyncio, sys
sys.path.insert(0, sys.argv[3])
from features.contract import LAYOUT
from service.adapters.connection import Link
from service.adapters.redis_state import RedisState
from service.ports import CapCheck, Caps, CapTerms
from tests.service.rows import CHEESE, decision_row

async def main():
    link = Link(sys.argv[1])
    state = RedisState(link, link, LAYOUT)
    limits = Caps(CapTerms((CapCheck("a", "marketing", "", "impression", 7),)), [0.0])
    calls = [
        state.record(decision_row("busy", float(sys.argv[2]) + i * 1e-3), (CHEESE,), limits,
                     answer=None, request_digest="", deadline_seconds=20)
        for i in range(32)
    ]
    done = await asyncio.gather(*calls)
    print(sum(not recorded.refused for recorded in done))

asyncio.run(main())
"""


def test_a_cap_is_never_exceeded_by_many_at_once(clean_url: str) -> None:
    """Of 64 parallel records for one customer by two processes, exactly the cap's limit is granted."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, clean_url, str(NOW + i), str(Path(__file__).parents[3])],
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    granted = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(granted) == 7

    async def scenario(state: RedisState) -> None:
        assert len((await state.contacts_of("busy", NOW))["contacts"]) == 7
        assert len(await journal_of(state, "busy")) == 7

    on(clean_url, scenario)


def test_contacts_older_than_any_window_are_dropped(clean_url: str) -> None:
    """Recording drops contacts beyond the horizon, so a customer's history stays small."""

    async def scenario(state: RedisState) -> None:
        await record(state, decision_row("a", NOW - (CONTACTS_DAYS + 1) * DAY))
        await record(state, decision_row("a", NOW), (DELI,))
        seen = await state.contacts_of("a", NOW + 1000 * DAY)
        assert seen["contacts"] == []
        [left] = await state._state.exchange([("ZCARD", keys.contacts("a"))], deadline_seconds=5, reason="")
        assert left == 1

    on(clean_url, scenario)


@pytest.mark.parametrize(
    ("said", "codes"),
    [
        ({"granted": True}, {"marketing": 1}),
        ({"granted": False}, {"marketing": 0}),
        ({"granted": True, "expiry": NOW - 1}, {}),
        ({"granted": True, "expiry": NOW + 1}, {"marketing": 1}),
        ({"granted": True, "purpose": "profiling"}, {"profiling": 1}),
        ({"granted": True, "channel": "email"}, {}),
    ],
)
def test_consent_is_for_its_channel_its_purpose_and_its_time(
    clean_url: str, said: dict[str, Any], codes: dict[str, int]
) -> None:
    """Only an unexpired grant of marketing on the asked channel is a yes; what is not known is not a yes."""
    properties = {"channel": "app", "purpose": "marketing", "source": "test", **said}

    async def scenario(state: RedisState) -> None:
        journal = RedisJournal(clean_url, deadline_seconds=5, idempotency_seconds=100)
        await journal.append_events([Event("e", "a", "consent_changed", NOW - 10, properties)], NOW)
        await journal.close()
        assert (await state.gather(PLAN, ["b", "a"], "app", NOW, 1.0)).batch.consents == ({}, codes)
        [kept] = (await state.contacts_of("a", NOW))["consents"]
        assert kept == {"expiry": None, **properties, "at": NOW - 10}

    on(clean_url, scenario)


def test_an_objection_stops_marketing_on_every_channel_at_once(clean_url: str) -> None:
    """A refusal for all channels is a no on each from the next gather on; a later grant for one is a yes there only."""

    async def scenario(state: RedisState) -> None:
        journal = RedisJournal(clean_url, deadline_seconds=5, idempotency_seconds=100)

        async def say(at: float, channel: str, granted: bool) -> None:
            said = {"channel": channel, "purpose": "marketing", "granted": granted, "source": "test"}
            await journal.append_events([Event(f"e{at}", "a", "consent_changed", NOW + at, said)], NOW)

        async def marketing() -> list[int | None]:
            batches = [(await state.gather(PLAN, ["a"], c, NOW + 9, 1.0)).batch for c in ("app", "email")]
            return [batch.consents[0].get("marketing") for batch in batches]

        await say(1, "app", True)
        await say(2, "email", True)
        assert await marketing() == [1, 1]
        await say(3, "all", False)
        assert await marketing() == [0, 0]
        await say(4, "email", True)
        assert await marketing() == [0, 1]
        await journal.close()

    on(clean_url, scenario)


def test_a_customer_s_time_zone_is_the_newest_said(clean_url: str) -> None:
    """It comes with the batch, whichever order its events come in, and stands apart from the consents."""

    async def scenario(state: RedisState) -> None:
        journal = RedisJournal(clean_url, deadline_seconds=5, idempotency_seconds=100)
        for at, name in ((5.0, "Asia/Tokyo"), (3.0, "Europe/Lisbon"), (7.0, "America/Santiago")):
            told = Event(f"e{at}", "a", "time_zone_changed", NOW + at, {"time_zone": name, "source": "app"})
            assert [r.status for r in await journal.append_events([told], NOW)] == ["accepted"]
        await journal.close()
        batch = (await state.gather(PLAN, ["b", "a"], "app", NOW, 1.0)).batch
        assert batch.time_zones == ("", "America/Santiago")
        seen = await state.contacts_of("a", NOW)
        assert seen["time_zone"] == {"time_zone": "America/Santiago", "source": "app", "at": NOW + 7}
        assert seen["consents"] == []
        assert (await state.contacts_of("b", NOW))["time_zone"] is None

    on(clean_url, scenario)


def test_a_switch_holds_from_the_next_gather_on_and_is_written_down(clean_url: str) -> None:
    """Pausing shows in every later batch, resuming takes it away, and both are in the journal with who and why."""

    async def scenario(state: RedisState) -> None:
        await state.set_switch("action", "upsell_cheese", paused=True, who="ana", why="recall", now=NOW)
        await state.set_switch("all", "", paused=True, who="ana", why="incident", now=NOW)
        async with opened(clean_url) as other:
            assert (await other.gather(PLAN, ["a"], "app", NOW, 1.0)).batch.paused == {
                ("action", "upsell_cheese"),
                ("all", ""),
            }
            await state.set_switch("all", "", paused=False, who="ben", why="over", now=NOW)
            assert (await other.gather(PLAN, ["a"], "app", NOW, 1.0)).batch.paused == {("action", "upsell_cheese")}
        [entries] = await state._state.exchange(
            [("XRANGE", keys.of_partition(0, "journal"), "-", "+")], deadline_seconds=5, reason=""
        )
        assert [pairs[1] for _, pairs in entries] == [b"switch"] * 3

    on(clean_url, scenario)


def test_a_dead_store_degrades_within_the_deadline_and_comes_back(tmp_path: Path) -> None:
    """After kill -9 gather answers degraded and record refuses; within two seconds of a restart all is whole again."""
    server = EmbeddedServer(tmp_path)
    url = server.acquire()

    async def scenario(state: RedisState) -> None:
        await state.set_switch("issue", "upsell", paused=True, who="ana", why="test", now=NOW)
        await record(state, decision_row("a", NOW))
        assert (await state.gather(PLAN, ["a"], "app", NOW, 1.0)).degraded_reasons == ()
        os.kill(json.loads((tmp_path / "redis" / "server.json").read_text())["pid"], signal.SIGKILL)
        gathered = await state.gather(PLAN, ["a"], "app", NOW, 0.05)
        assert gathered.degraded_reasons == ("features_unavailable", "log_unavailable", "state_unavailable")
        assert not gathered.batch.is_loggable
        assert not gathered.batch.is_known.any()
        assert gathered.batch.consents == ({},)
        assert gathered.batch.paused == {("issue", "upsell")}
        with pytest.raises(StoreUnavailable) as error:
            await record(state, decision_row("a", NOW), deadline_seconds=0.05)
        assert error.value.reason == "log_unavailable"
        assert not await state.ping()
        while server.is_running():
            await asyncio.sleep(0.001)
        assert server.ensure() == url
        async with asyncio.timeout(2):
            while (gathered := await state.gather(PLAN, ["a"], "app", NOW, 0.05)).degraded_reasons:
                await asyncio.sleep(0.01)
        assert gathered.batch.contacts.showings[0].action_id == "upsell_cheese"
        assert await record(state, decision_row("a", NOW)) == Recorded()

    on(url, scenario)
    server.release()


def test_features_and_state_fail_each_for_itself(clean_url: str) -> None:
    """With two servers, losing the features leaves consents and caps, and losing the state leaves the facts."""

    async def scenario() -> None:
        nowhere = "redis://127.0.0.1:1"
        async with opened(clean_url, nowhere) as state:
            gathered = await state.gather(PLAN, ["a"], "app", NOW, 1.0)
            assert gathered.degraded_reasons == ("features_unavailable",)
            assert gathered.batch.is_loggable
        async with opened(nowhere, clean_url) as state:
            gathered = await state.gather(PLAN, ["a"], "app", NOW, 1.0)
            assert gathered.degraded_reasons == ("log_unavailable", "state_unavailable")

    asyncio.run(scenario())


def test_a_refused_command_costs_its_own_half_of_the_pipeline(
    feast_world: tuple[Any, FactPlan], clean_url: str
) -> None:
    """A key of a wrong type or a command that is forbidden degrades facts or state, and leaves the other as it is."""
    store, plan = feast_world
    write_all(store, "a", a_row(1))
    state_down = ("log_unavailable", "state_unavailable")

    async def scenario(state: RedisState) -> None:
        async def gather() -> Any:
            return await state.gather(plan, ["a"], "app", time.time(), 1.0)

        async def tell(*command: str | bytes) -> None:
            await state._state.exchange([command], deadline_seconds=5, reason="")

        await tell("SET", keys.contacts("a"), "no sorted set")
        found = await gather()
        assert found.degraded_reasons == state_down
        np.testing.assert_array_equal(found.batch.facts[:, 0], a_row(1))
        with pytest.raises(StoreUnavailable, match=r"script record: .*WRONGTYPE"):
            await record(state, decision_row("a", NOW), caps=(cap("all", "", "decision", 1),))
        await tell("DEL", keys.contacts("a"))
        await tell("ACL", "SETUSER", "default", "-zrangebyscore")
        try:
            found = await gather()
        finally:
            await tell("ACL", "SETUSER", "default", "+zrangebyscore")
        assert found.degraded_reasons == state_down
        assert (await gather()).degraded_reasons == ()
        key = FactReader(plan, LAYOUT).key("a")
        await tell("DEL", key)
        await tell("SET", key, "no hash")
        found = await gather()
        assert found.degraded_reasons == ("features_unavailable",)
        assert found.batch.is_loggable

    on(clean_url, scenario)


def test_a_full_store_refuses_to_record_and_still_reads(tmp_path: Path) -> None:
    """Where the server has no memory left, recording is `log_unavailable`, writes nothing, and gather goes on."""
    with EmbeddedServer(tmp_path) as url:

        async def scenario(state: RedisState) -> None:
            await record(state, decision_row("a", NOW))
            await state._state.exchange([("CONFIG", "SET", "maxmemory", "1")], deadline_seconds=5, reason="")
            with pytest.raises(StoreUnavailable, match="log_unavailable: script record: OOM"):
                await record(state, decision_row("a", NOW + 1), (DELI,))
            batch = (await state.gather(PLAN, ["a"], "app", NOW, 1.0)).batch
            assert {shown.action_id for shown in batch.contacts.showings} == {"upsell_cheese"}

        on(url, scenario)


def test_hostile_customer_ids_reach_only_their_own_keys(clean_url: str) -> None:
    """Braces, colons, globs, newlines and NUL in an id neither break a key nor reach another customer."""
    names = ["a", "{p00}", "a:b", "*", "a\nb", "a\0b", "ü" * 60]

    async def scenario(state: RedisState) -> None:
        for i, name in enumerate(names):
            await record(state, decision_row(name, NOW), (CHEESE._replace(action_id=f"x{i}"),))
        batch = (await state.gather(PLAN, names, "app", NOW + RESERVATION_SECONDS, 1.0)).batch
        shown = [showing.action_id for showing in batch.contacts.showings]
        assert dict(zip(batch.contacts.customers.tolist(), shown, strict=True)) == {
            i: f"x{i}" for i in range(len(names))
        }

    on(clean_url, scenario)


def test_an_id_with_a_bar_is_refused_before_it_shapes_a_contact(clean_url: str) -> None:
    """The separator of contacts cannot be part of an id."""

    async def scenario(state: RedisState) -> None:
        with pytest.raises(ValueError, match=r"has a '\|'"):
            await record(state, decision_row("a", NOW), (CHEESE._replace(group="a|b"),))

    on(clean_url, scenario)

"""When a store that does not answer is no longer asked."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.adapters.breaker import FAILURES_IN_A_ROW, PROBE_SECONDS, WINDOW, Breaker
from service.adapters.connection import Link
from service.ports import StoreUnavailable


class Bench:
    """A breaker on a clock of our own; probes come after half a second."""

    def __init__(self) -> None:
        self.now = 100.0
        self.breaker = Breaker(now=lambda: self.now, between=lambda least, most: 0.5)

    def call(self, *, works: bool, seconds: float = 0.01) -> bool:
        """Make a call; return whether it was let through."""
        began = self.breaker.admit()
        if began is None:
            return False
        self.now += seconds
        (self.breaker.succeeded if works else self.breaker.failed)(began)
        return True


def opened() -> Bench:
    """Return one that has just opened."""
    bench = Bench()
    while bench.breaker.state == "closed":
        bench.call(works=False)
    return bench


def test_it_opens_after_five_failures_in_a_row() -> None:
    """Four failures and a success leave it closed, the fifth in a row opens it, and then nobody waits."""
    bench = Bench()
    for works in (*[False] * 4, True, *[False] * 4):
        assert bench.call(works=works)
        assert bench.breaker.state == "closed"
    assert bench.call(works=False)
    assert bench.breaker.state == "open"
    assert not bench.call(works=True)


def test_it_opens_when_more_than_half_of_the_last_twenty_failed() -> None:
    """Failures that never come five in a row open it all the same, but only as more than half of twenty calls."""
    bench = Bench()
    pattern = [False, False, True] * 20
    failures = 0
    for made, works in enumerate(pattern, start=1):
        bench.call(works=works)
        failures += not works
        if bench.breaker.state == "open":
            assert made == WINDOW
            return
    raise AssertionError(f"still closed after {failures} failures of {len(pattern)}")


def test_a_hundredth_of_slow_calls_never_opens_it() -> None:
    """One call in a hundred that fails is no reason not to ask."""
    bench = Bench()
    assert all(bench.call(works=made % 100 != 0) for made in range(3000))


def test_calls_that_fail_together_count_once_in_a_row() -> None:
    """Many calls under way meet one hiccup of a moment: that is one failure, not many in a row."""
    bench = Bench()
    for _ in range(FAILURES_IN_A_ROW - 1):
        begun = [bench.breaker.admit() for _ in range(4)]
        bench.now += 0.01
        for began in begun:
            assert began is not None
            bench.breaker.failed(began)
        assert bench.breaker.state == "closed"
    bench.call(works=False)
    assert bench.breaker.state == "open"


def test_two_hiccups_of_many_calls_do_not_open_it_and_more_do() -> None:
    """Most of the last twenty calls may fail at two moments; at a third one it is no hiccup any more."""
    bench = Bench()
    bench.call(works=True)
    for moment in range(3):
        assert bench.breaker.state == "closed"
        for _ in range(2):
            bench.call(works=True)
        begun = [bench.breaker.admit() for _ in range(6)]
        bench.now += 0.01
        for began in begun:
            assert began is not None
            bench.breaker.failed(began)
        assert bench.breaker.state == ("open" if moment == 2 else "closed")


def test_one_probe_at_a_time_and_its_answer_decides() -> None:
    """After the wait exactly one call is let through; its failure waits again, its success closes."""
    bench = opened()
    bench.now += 0.4
    assert bench.breaker.admit() is None
    bench.now += 0.2
    began = bench.breaker.admit()
    assert began is not None
    assert bench.breaker.state == "probing"
    assert bench.breaker.admit() is None
    bench.breaker.failed(began)
    assert bench.breaker.admit() is None
    bench.now += 0.6
    assert bench.call(works=True)
    assert bench.breaker.state == "closed"
    assert bench.call(works=True)


def test_a_probe_whose_caller_went_away_does_not_hold_the_breaker() -> None:
    """A cancelled probe gives its place to a later one."""
    bench = opened()
    bench.now += 0.6
    began = bench.breaker.admit()
    assert began is not None
    bench.breaker.gave_up(began)
    assert bench.breaker.state == "open"
    bench.now += 0.6
    assert bench.call(works=True)


def test_answers_to_calls_from_before_it_opened_change_nothing() -> None:
    """A call begun before the opening is no probe, however it ends."""
    bench = Bench()
    early = bench.breaker.admit()
    assert early is not None
    for _ in range(FAILURES_IN_A_ROW):
        bench.call(works=False)
    bench.breaker.succeeded(early)
    assert bench.breaker.state == "open"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["succeeded", "failed", "gave_up"]), st.floats(0, 0.3)), max_size=120))
def test_it_is_never_stuck(history: list[tuple[str, float]]) -> None:
    """Whatever happened, two seconds later a call is let through, and its success closes it."""
    now = [0.0]
    breaker = Breaker(now=lambda: now[0])
    for end, pause in history:
        began = breaker.admit()
        now[0] += pause
        if began is not None:
            getattr(breaker, end)(began)
    now[0] += PROBE_SECONDS[1] + 0.001
    began = breaker.admit()
    assert began is not None
    breaker.succeeded(began)
    assert breaker.state == "closed"


def test_a_dead_server_is_asked_by_one_call_in_many() -> None:
    """On a link to nobody, callers get their error at once and only probes reach for the server."""
    breaker = Breaker()
    link = Link("redis://127.0.0.1:1", breaker=breaker)

    async def scenario() -> list[str]:
        said = []
        for _ in range(200):
            with pytest.raises(StoreUnavailable) as error:
                await link.exchange([("PING",)], deadline_seconds=1, reason="state_unavailable")
            said.append(str(error.value))
        return said

    said = asyncio.run(scenario())
    assert breaker.state == "open"
    assert sum("not asked" in text for text in said) >= 190


def test_a_patient_caller_neither_obeys_nor_teaches_it() -> None:
    """A call with patience goes out although it is open, and its failures open nothing."""
    breaker = Breaker()
    link = Link("redis://127.0.0.1:1", breaker=breaker)

    async def scenario() -> None:
        for _ in range(10):
            with pytest.raises(StoreUnavailable, match=r"Connect|refused"):
                await link.exchange([("PING",)], deadline_seconds=1, reason="", is_guarded=False)

    asyncio.run(scenario())
    assert breaker.state == "closed"


def test_a_cancelled_caller_frees_the_probe(clean_url: str) -> None:
    """A caller that goes away in mid-probe leaves a breaker that closes with the next probe."""
    breaker = Breaker(between=lambda least, most: 0.0)
    dead, alive = "redis://127.0.0.1:1", clean_url
    link = Link(dead, breaker=breaker)

    async def scenario() -> None:
        for _ in range(FAILURES_IN_A_ROW):
            with pytest.raises(StoreUnavailable):
                await link.exchange([("PING",)], deadline_seconds=1, reason="")
        assert breaker.state == "open"
        link.move(alive)
        probe = asyncio.create_task(link.exchange([("PING",)], deadline_seconds=5, reason=""))
        await asyncio.sleep(0)
        assert breaker.state == "probing"
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert breaker.state == "open"
        assert await link.exchange([("PING",)], deadline_seconds=5, reason="") == [b"PONG"]
        assert breaker.state == "closed"
        await link.close()

    asyncio.run(scenario())


def test_a_busy_process_does_not_blame_the_server(clean_url: str) -> None:
    """Deadlines missed because this process was busy do not open the breaker of a healthy server."""
    breaker = Breaker()
    link = Link(clean_url, breaker=breaker)

    async def scenario() -> None:
        for _ in range(FAILURES_IN_A_ROW + 1):
            call = asyncio.create_task(link.exchange([("PING",)], deadline_seconds=0.005, reason=""))
            await asyncio.sleep(0)
            time.sleep(0.03)
            await asyncio.gather(call, return_exceptions=True)
        await link.close()

    asyncio.run(scenario())
    assert breaker.state == "closed"

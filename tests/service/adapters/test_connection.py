"""One server as adapters see it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
from pathlib import Path

import pytest

from service.adapters.connection import Call, Link, Script
from service.adapters.embedded import EmbeddedServer
from service.ports import StoreUnavailable


def test_a_cancelled_caller_never_gets_or_leaves_anothers_reply(clean_url: str) -> None:
    """With many callers on few connections and random cancellations, every answer belongs to its question."""

    async def scenario() -> tuple[int, int]:
        link = Link(clean_url, max_connections=4)
        await link.exchange([("SET", f"k{i}", f"value of k{i}") for i in range(50)], deadline_seconds=5, reason="")
        chance = random.Random(7)
        answered = cut = 0

        async def ask(i: int) -> None:
            nonlocal answered
            [found, missing] = await link.exchange([("GET", f"k{i}"), ("GET", "-")], deadline_seconds=5, reason="")
            assert (found, missing) == (f"value of k{i}".encode(), None)
            answered += 1

        # On a slow machine more callers have their reply before they are cut: go on until enough were.
        for rounds in itertools.count():
            if (rounds >= 150 and cut > 100) or rounds == 2_000:
                break
            tasks = [asyncio.create_task(ask(chance.randrange(50))) for _ in range(10)]
            await asyncio.sleep(chance.random() * 0.001)
            for task in tasks:
                if chance.random() < 0.5:
                    task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            cut += sum(isinstance(result, asyncio.CancelledError) for result in done)
            assert not [r for r in done if isinstance(r, Exception)]
        await link.close()
        return answered, cut

    answered, cut = asyncio.run(scenario())
    assert answered > 300
    assert cut > 100


def test_a_refused_connection_is_the_stores_unavailability(tmp_path: Path) -> None:
    """Where nothing listens, the caller gets StoreUnavailable with its own reason."""

    async def scenario() -> None:
        await Link("redis://127.0.0.1:1").exchange([("PING",)], deadline_seconds=1, reason="state_unavailable")

    with pytest.raises(StoreUnavailable) as error:
        asyncio.run(scenario())
    assert error.value.reason == "state_unavailable"


def test_a_wrong_password_is_said_and_the_password_is_not(redis_url: str) -> None:
    """A refused login names the server's complaint, and no representation of a link shows its password."""
    wrong = redis_url.replace(redis_url.split(":")[2].split("@")[0], "wrong-password")

    async def scenario() -> None:
        await Link(wrong).exchange([("PING",)], deadline_seconds=1, reason="state_unavailable")

    with pytest.raises(StoreUnavailable, match="WRONGPASS") as error:
        asyncio.run(scenario())
    assert "wrong-password" not in str(error.value)
    assert "wrong-password" not in repr(Link(wrong))


def test_a_frozen_server_costs_the_deadline_and_its_connections(tmp_path: Path) -> None:
    """While the server is stopped each call ends at its deadline; once it goes on, answers are right again."""
    with EmbeddedServer(tmp_path) as url:
        pid = json.loads((tmp_path / "redis" / "server.json").read_text())["pid"]

        async def scenario() -> None:
            link = Link(url)
            await link.exchange([("SET", "a", "1")], deadline_seconds=5, reason="")
            os.kill(pid, signal.SIGSTOP)
            try:
                for _ in range(3):
                    with pytest.raises(StoreUnavailable, match="no answer within 20 ms"):
                        await link.exchange([("GET", "a")], deadline_seconds=0.02, reason="")
            finally:
                os.kill(pid, signal.SIGCONT)
            assert await link.exchange([("GET", "a")], deadline_seconds=5, reason="") == [b"1"]
            await link.close()

        asyncio.run(scenario())


def test_connections_that_died_while_idle_are_replaced_unseen(tmp_path: Path) -> None:
    """After a restart of the server the next call succeeds on a fresh connection, without an error in between."""
    server = EmbeddedServer(tmp_path)
    url = server.acquire()

    async def scenario() -> None:
        link = Link(url)
        await asyncio.gather(*(link.exchange([("PING",)], deadline_seconds=5, reason="") for _ in range(5)))
        os.kill(json.loads((tmp_path / "redis" / "server.json").read_text())["pid"], signal.SIGKILL)
        while server.is_running():
            await asyncio.sleep(0.001)
        assert server.ensure() == url
        assert await link.exchange([("PING",)], deadline_seconds=5, reason="") == [b"PONG"]
        await link.close()

    asyncio.run(scenario())
    server.release()


def test_a_script_that_the_server_forgot_is_sent_again_in_place(clean_url: str) -> None:
    """Scripts run although the server does not know them, each reply in the place of its call."""

    async def scenario() -> list[object]:
        link = Link(clean_url)
        script = Script("echo", b"return ARGV[1]", "e9a26ee8c7ce4a4b0aa9d2ed61ad4b2c6e2a9b6f")
        known = Script.read("switch")
        journal = ["{p00}", "{p00}j"]
        replies = await link.run(
            [
                Call(script, [], ["first"]),
                Call(known, journal, ["all|", "{}", "entry"]),
                Call(script, [], ["last"]),
            ],
            deadline_seconds=5,
            reason="",
        )
        await link.close()
        return replies

    first, entry, last = asyncio.run(scenario())
    assert (first, last) == (b"first", b"last")
    assert isinstance(entry, bytes)


def test_a_script_that_fails_is_unavailability_and_names_the_script(clean_url: str) -> None:
    """A key of the wrong type makes the script fail; the caller hears which script and why."""

    async def scenario() -> None:
        link = Link(clean_url)
        await link.exchange([("SET", "nba:{p00}:switches", "text")], deadline_seconds=5, reason="")
        call = Call(Script.read("switch"), ["nba:{p00}:switches", "j"], ["all|", "{}", "entry"])
        try:
            await link.run([call], deadline_seconds=5, reason="state_unavailable")
        finally:
            await link.close()

    with pytest.raises(StoreUnavailable, match=r"script switch: .*WRONGTYPE"):
        asyncio.run(scenario())

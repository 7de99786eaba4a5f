"""Outcomes and events on a real server."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from features.contract import LAYOUT
from service.adapters import redis_keys as keys
from service.adapters.connection import Link
from service.adapters.journal_entries import decode_event, decode_outcome
from service.adapters.redis_journal import RedisJournal
from service.adapters.redis_state import RedisState
from service.decision.record import decision_id_from, partition_of
from service.ports import Caps, Event, Outcome, StoreUnavailable
from tests.service.rows import CHEESE, HOURS, decision_row

NOW = 1_770_000_000.0
Result = TypeVar("Result")


class World:
    """State, journal and a bare link on one server."""

    def __init__(self, url: str) -> None:
        self.link = Link(url)
        self.state = RedisState(self.link, self.link, LAYOUT)
        self.journal = RedisJournal(url, deadline_seconds=5, idempotency_seconds=1000)

    async def decide(self, customer: str) -> str:
        """Record a decision with cheese and opening hours; return its id."""
        row = decision_row(customer, NOW)
        await self.state.record(row, (CHEESE, HOURS), Caps(), answer=None, request_digest="", deadline_seconds=5)
        return row.decision_id

    async def outcome(self, outcome: Outcome) -> str:
        """Append one outcome; return its status."""
        [receipt] = await self.journal.append_outcomes([outcome], NOW)
        assert receipt.id == outcome.outcome_id
        return receipt.status

    async def entries(self, partition: int) -> list[tuple[str, bytes]]:
        """Return kinds and payloads of a partition's journal."""
        [found] = await self.ask("XRANGE", keys.of_partition(partition, "journal"), "-", "+")
        return [(pairs[1].decode(), pairs[3]) for _, pairs in found]

    async def evidence(self, partition: int) -> dict[str, float]:
        """Return a partition's sums of outcomes as of their anchors."""
        [found] = await self.ask("HGETALL", keys.of_partition(partition, "evidence"))
        held = {name.decode(): value for name, value in zip(found[::2], found[1::2], strict=True)}
        return {name: float(value.split(b"|")[0]) for name, value in held.items() if "|" in name}

    async def ask(self, *command: str) -> list[list[bytes]]:
        """Send one command."""
        return await self.link.exchange([command], deadline_seconds=5, reason="")


def on(url: str, scenario: Callable[[World], Awaitable[Result]]) -> Result:
    """Run a scenario."""

    async def run() -> Result:
        world = World(url)
        try:
            return await scenario(world)
        finally:
            await world.link.close()
            await world.journal.close()

    return asyncio.run(run())


def test_an_outcome_is_logged_with_its_decision_and_counted(clean_url: str) -> None:
    """An accepted outcome stands in the journal beside its decision, as a contact, and in the evidence."""

    async def scenario(world: World) -> None:
        decision_id = await world.decide("a")
        outcome = Outcome("o1", decision_id, "upsell_cheese", "accept", 3.5, NOW + 60, "digest", ("clock_skew",))
        assert await world.outcome(outcome) == "accepted"
        (_, (kind, payload)) = await world.entries(partition_of("a"))
        entry = decode_outcome(payload)
        assert kind == "outcome"
        assert entry.outcome == outcome
        assert entry.decision is not None
        assert (entry.decision.customer_id, entry.decision.decision_time) == ("a", NOW)
        contacts = (await world.state.contacts_of("a", NOW))["contacts"]
        assert ("accept", "upsell_cheese", NOW + 60) in [(c["kind"], c["action_id"], c["time"]) for c in contacts]
        assert await world.evidence(partition_of("a")) == {"upsell_cheese|accept": 1}

    on(clean_url, scenario)


def test_an_outcome_sent_again_has_no_second_effect(clean_url: str) -> None:
    """The same id and body is a duplicate, the same id with another body a conflict; neither changes anything."""

    async def scenario(world: World) -> None:
        decision_id = await world.decide("a")
        outcome = Outcome("o1", decision_id, "upsell_cheese", "click", None, NOW, "body")
        statuses = [
            await world.outcome(outcome),
            await world.outcome(replace(outcome, occurred_at=NOW + 9)),
            await world.outcome(replace(outcome, type="accept", body_digest="another")),
        ]
        assert statuses == ["accepted", "duplicate", "conflict"]
        assert len(await world.entries(partition_of("a"))) == 2
        assert await world.evidence(partition_of("a")) == {"upsell_cheese|click": 1}

    on(clean_url, scenario)


def test_a_click_told_under_two_ids_is_evidence_once(clean_url: str) -> None:
    """Evidence counts decisions that were answered, not messages about them; both messages are logged."""

    async def scenario(world: World) -> None:
        decision_id = await world.decide("a")
        for name in ("o1", "o2"):
            assert await world.outcome(Outcome(name, decision_id, "upsell_cheese", "click", None, NOW)) == "accepted"
        assert await world.evidence(partition_of("a")) == {"upsell_cheese|click": 1}
        assert len(await world.entries(partition_of("a"))) == 3

    on(clean_url, scenario)


def test_an_outcome_of_an_unknown_decision_is_parked(clean_url: str) -> None:
    """An orphan is kept in the journal for later, without contact or evidence; any text serves as a decision id."""

    async def scenario(world: World) -> None:
        for decision_id in (decision_id_from(b"\1" * 16, "a"), "no decision id", "{p00}:x|y"):
            outcome = Outcome(f"o of {decision_id}", decision_id, "upsell_cheese", "click", None, NOW)
            assert await world.outcome(outcome) == "orphan"
            assert await world.outcome(outcome) == "duplicate"
            partition = keys.partition_of_id(decision_id)
            kind, payload = (await world.entries(partition))[-1]
            assert kind == "orphan"
            assert decode_outcome(payload).decision is None
            assert decode_outcome(payload).outcome == outcome
            assert await world.evidence(partition) == {}

    on(clean_url, scenario)


def test_an_action_that_was_not_in_the_decision_is_refused_and_can_be_corrected(clean_url: str) -> None:
    """A foreign action stores nothing, not even its id, so the corrected outcome is taken under the same id."""

    async def scenario(world: World) -> None:
        decision_id = await world.decide("a")
        outcome = Outcome("o1", decision_id, "upsell_deli", "click", None, NOW, "body")
        assert await world.outcome(outcome) == "foreign_action"
        assert len(await world.entries(partition_of("a"))) == 1
        assert await world.outcome(replace(outcome, action_id="upsell_cheese", body_digest="other")) == "accepted"

    on(clean_url, scenario)


def test_each_item_of_a_list_gets_its_own_receipt_in_order(clean_url: str) -> None:
    """One pipeline takes outcomes of many decisions; repeats within the list are seen as such."""

    async def scenario(world: World) -> None:
        ids = [await world.decide(f"c{i}") for i in range(40)]
        outcomes = [Outcome(f"o{i}", d, "upsell_cheese", "impression", None, NOW) for i, d in enumerate(ids)]
        outcomes += [outcomes[3], Outcome("x", ids[0], "nothing", "click", None, NOW)]
        receipts = await world.journal.append_outcomes(outcomes, NOW)
        assert [r.id for r in receipts] == [o.outcome_id for o in outcomes]
        assert [r.status for r in receipts] == ["accepted"] * 40 + ["duplicate", "foreign_action"]

    on(clean_url, scenario)


def test_events_of_a_customer_stay_in_their_order(clean_url: str) -> None:
    """A customer's events stand in their partition in the order they were sent, with all their properties."""

    async def scenario(world: World) -> None:
        events = [Event(f"e{i}", "a", "purchase", NOW + i, {"lines": [{"aisle": "deli", "n": i}]}) for i in range(20)]
        receipts = await world.journal.append_events(events, NOW)
        assert {r.status for r in receipts} == {"accepted"}
        assert [decode_event(payload) for _, payload in await world.entries(partition_of("a"))] == events
        again = await world.journal.append_events([events[0], replace(events[1], type="x")], NOW)
        assert [r.status for r in again] == ["duplicate", "conflict"]

    on(clean_url, scenario)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_newest_word_on_consent_counts_in_whatever_order_it_arrives(clean_url: str, order: tuple[int, ...]) -> None:
    """Consent follows the moment it was given, not the moment it was heard of; at one moment the refusal wins."""
    said = [(True, NOW - 20), (True, NOW - 10), (False, NOW - 10)]

    async def scenario(world: World) -> None:
        for i in order:
            granted, at = said[i]
            properties = {"channel": "app", "purpose": "marketing", "granted": granted, "source": "a | b"}
            await world.journal.append_events([Event(f"e{i}", "a", "consent_changed", at, properties)], NOW)
        [kept] = (await world.state.contacts_of("a", NOW))["consents"]
        assert (kept["granted"], kept["at"]) == (False, NOW - 10)

    on(clean_url, scenario)


def test_nothing_is_acknowledged_while_the_store_is_away() -> None:
    """Without a store there is no receipt at all."""

    async def scenario() -> None:
        journal = RedisJournal("redis://127.0.0.1:1", deadline_seconds=0.2, idempotency_seconds=10)
        await journal.append_events([Event("e", "a", "purchase", NOW, {})], NOW)

    with pytest.raises(StoreUnavailable, match="log_unavailable"):
        asyncio.run(scenario())


def bought(n: int, customer: str) -> Event:
    """Return an event of its own."""
    return Event(f"e{n}", customer, "profile_changed", NOW, {"n": n})


def test_singles_of_one_turn_share_a_round_trip(clean_url: str) -> None:
    """Of 200 at once each gets its own receipt, each stands in the journal once, and few round trips were made."""

    async def scenario(world: World) -> None:
        trips = []
        send = world.journal._link._exchange

        async def counted(commands: Any) -> Any:
            trips.append(len(commands))
            return await send(commands)

        world.journal._link._exchange = counted  # type: ignore[method-assign]
        events = [bought(n, f"c{n % 50}") for n in range(200)]
        asked = [*events, *events[:20], *(replace(event, properties={"n": -1}) for event in events[20:30])]
        answers = await asyncio.gather(*(world.journal.append_events([event], NOW) for event in asked))
        receipts = [receipt for [receipt] in answers]
        assert [receipt.id for receipt in receipts] == [event.event_id for event in asked]
        statuses = Counter(receipt.status for receipt in receipts)  # which of two with one id comes first is open
        assert statuses == {"accepted": 200, "duplicate": 20, "conflict": 10}
        kept = [decode_event(blob) for p in range(64) for _, blob in await world.entries(p)]
        assert sorted(event.event_id for event in kept) == sorted(event.event_id for event in events)
        assert len(trips) < 20

    on(clean_url, scenario)


def test_what_the_store_refuses_of_one_is_no_others_failure(clean_url: str) -> None:
    """A journal that is no stream fails the customers of its partition alone, also in one turn with others."""

    async def scenario(world: World) -> None:
        await world.ask("SET", keys.of_partition(partition_of("bad"), "journal"), "no stream")
        sound = [f"c{n}" for n in range(40) if partition_of(f"c{n}") != partition_of("bad")]
        customers = [*sound[:10], "bad", *sound[10:]]
        asked = (world.journal.append_events([bought(n, who)], NOW) for n, who in enumerate(customers))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        failed = [who for who, answer in zip(customers, answers, strict=True) if isinstance(answer, StoreUnavailable)]
        assert failed == ["bad"]
        assert all(a[0].status == "accepted" for a in answers if not isinstance(a, BaseException))

    on(clean_url, scenario)


def test_singles_fail_together_in_the_time_of_one() -> None:
    """Where nothing answers, everybody is told so within one deadline."""

    async def scenario(port: int) -> float:
        journal = RedisJournal(f"redis://127.0.0.1:{port}/0", deadline_seconds=0.3, idempotency_seconds=10)
        begun = asyncio.get_running_loop().time()
        asked = (journal.append_events([bought(n, f"c{n}")], NOW) for n in range(100))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(answer, StoreUnavailable) for answer in answers)
        seconds = asyncio.get_running_loop().time() - begun
        await journal.close()
        return seconds

    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert asyncio.run(scenario(silent.getsockname()[1])) < 1.0

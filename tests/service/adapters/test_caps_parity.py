"""The caps of the atomic script are the caps of the core."""

from __future__ import annotations

import asyncio
import math
import random

from features.contract import LAYOUT
from service.adapters import redis_keys as keys
from service.adapters.connection import Link
from service.adapters.redis_state import RedisState
from service.decision.contact_policy import CapTable
from service.decision.model import Action, Cap, Catalogue, Experiment, Exploration, Scoring
from service.ports import CapCheck, Offer
from tests.service.rows import decision_row, plan_by_hand

NOW = 1_770_000_000.0
CHANNELS = ("app", "email")
KINDS = ("decision", "impression", "click", "accept", "reject")
ACTIONS = [
    ("a0", "upsell", "dairy", True),
    ("a1", "upsell", "fresh", True),
    ("a2", "cross_sell", "fresh", True),
    ("a3", "retention", "fuel", True),
    ("a4", "service", "help", False),
]


def random_caps(chance: random.Random) -> tuple[Cap, ...]:
    """Return a few caps of any scope, window, channel and limit."""
    caps = []
    for i in range(chance.randint(1, 4)):
        scope = chance.choice(("all", "marketing", "issue", "group", "action"))
        column = {"issue": 1, "group": 2, "action": 0}.get(scope)
        scope_id = "" if column is None else chance.choice([*(action[column] for action in ACTIONS), "*"])
        channels = chance.choice(((), ("app",), ("email",), ("app", "email")))
        counted, limit = chance.choice(KINDS), chance.randint(0, 4)
        caps.append(Cap(f"cap{i}", scope, scope_id, counted, limit, chance.choice((600.0, 3600.0, 9e4)), channels, ""))
    return tuple(caps)


def catalogue_with(caps: tuple[Cap, ...]) -> Catalogue:
    """Return a catalogue of ACTIONS with these caps."""
    actions = tuple(
        Action(
            id=name, name=name, issue=issue, group=group, value=1.0, cost=0.0, lever=1.0, prior=0.1,
            scoring=Scoring.PRIOR, member=None, campaign_type=None, window_days=14.0, is_marketing=marketing,
            may_be_unlogged=False, success_rule="", starts_at=math.nan, ends_at=math.nan,
        )
        for name, issue, group, marketing in ACTIONS
    )  # fmt: skip
    return Catalogue(
        version="v", currency="USD", actions=actions, treatments=(), placements=(), rules=(), caps=caps,
        experiment=Experiment("e", "s", (("nba", 1.0),)), exploration=Exploration("none", 0.0), context=(),
        arbitration={}, context_weights={}, thresholds={}, default_locale="en", expires_seconds=60.0,
        channels=CHANNELS,
    )  # fmt: skip


def random_members(chance: random.Random) -> list[tuple[float, str]]:
    """Return contacts as they are stored: decisions, some shown, some answered, at any time of the last day."""
    members = []
    for i in range(chance.randint(0, 12)):
        name, issue, group, marketing = chance.choice(ACTIONS)
        channel, at = chance.choice(CHANNELS), NOW - chance.uniform(1, 1e5)
        tail = f"|{i:034d}|{name}|{issue}|{group}|t|{channel}|{int(marketing)}"
        members.append((at, "decision" + tail))
        for kind in KINDS[1:]:
            if chance.random() < 0.4:
                members.append((min(at + chance.uniform(0, 2000), NOW), kind + tail))
    return members


def test_script_and_core_refuse_the_same_actions(clean_url: str) -> None:
    """For 150 random histories and sets of caps, the script refuses an action just when the core has no room for it."""
    chance = random.Random(11)
    refusals = 0

    async def scenario() -> None:
        nonlocal refusals
        link = Link(clean_url)
        state, plan = RedisState(link, link, LAYOUT), plan_by_hand()
        for case in range(150):
            customer, channel = f"c{case}", chance.choice(CHANNELS)
            caps = random_caps(chance)
            stored = random_members(chance)
            if stored:
                pairs = [part for at, member in stored for part in (repr(at), member)]
                await link.exchange([("ZADD", keys.contacts(customer), *pairs)], deadline_seconds=5, reason="")
            contacts = (await state.gather(plan, [customer], channel, NOW, 1.0)).batch.contacts
            table = CapTable.of(catalogue_with(caps))
            room = table.room(contacts, 1, channel, NOW)[0]
            checks = [
                CapCheck(c.id, c.scope, c.scope_id, c.counted, c.limit, NOW - c.window_seconds, c.channels)
                for c in caps
            ]
            for a, (name, issue, group, marketing) in enumerate(ACTIONS):
                counters = table.counter_of[a]
                has_room = bool((room[counters[counters >= 0]] > 0).all())
                [reply] = await link.run(
                    [
                        state._record_call(
                            decision_row(customer, NOW, channel=channel),
                            # A second offer that is always refused keeps the first one from being reserved.
                            [Offer(name, issue, group, "t", marketing), Offer("never", "-", "-", "t", False)],
                            [*checks, CapCheck("x", "action", "never", "decision", 0, NOW - 1, ())],
                            None,
                            "",
                        )
                    ],
                    deadline_seconds=5,
                    reason="",
                )
                refused = {action.decode() for action in reply[1:]} - {"never"}
                assert (refused == set()) == has_room, (case, name, caps, stored)
                refusals += not has_room
        await link.close()

    asyncio.run(scenario())
    assert 100 < refusals < 650

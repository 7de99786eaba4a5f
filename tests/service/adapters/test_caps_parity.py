"""The caps of the atomic script are the caps of the core."""

from __future__ import annotations

import asyncio
import math
import random

import pytest

from features.contract import LAYOUT
from service.adapters import redis_keys as keys
from service.adapters.connection import Link
from service.adapters.redis_state import RedisState
from service.catalogue.time_zones import local_times
from service.decision.contact_counts import Windows
from service.decision.contact_policy import CapTable
from service.decision.model import (
    CALENDAR,
    CONTACT_KINDS,
    Action,
    Cap,
    Catalogue,
    Experiment,
    Exploration,
    Placement,
    Scoring,
    Treatment,
)
from service.ports import CapCheck, Caps, CapTerms, Offer
from tests.service.rows import decision_row, plan_by_hand

DAY = 86_400.0
NOW = 1_790_000_000.0
"""2026-09-21; Santiago has had no midnight on the 6th."""
PLACEMENTS = {"app": ("home", "side"), "email": ("hero",)}
CHANNELS = tuple(PLACEMENTS)
ZONES = ("UTC", "America/Santiago", "Europe/Lisbon", "Pacific/Chatham", "Asia/Kolkata", "America/St_Johns")
ACTIONS = [
    ("a0", "upsell", "dairy", True),
    ("a1", "upsell", "fresh", True),
    ("a2", "cross_sell", "fresh", True),
    ("a3", "retention", "fuel", True),
    ("a4", "service", "help", False),
]
RETIRED = ("gone", "upsell", "fresh", True)
"""Shown by a catalogue of the past: it counts as what it was then."""


def random_caps(chance: random.Random) -> tuple[Cap, ...]:
    """Return a few caps of any scope, window, unit, channels, placements and limit."""
    caps = []
    for i in range(chance.randint(1, 5)):
        scope = chance.choice(("all", "marketing", "issue", "group", "action", "treatment"))
        named = {"issue": 1, "group": 2, "action": 0}.get(scope)
        ids = [action[named] for action in ACTIONS] if named is not None else [f"{a[0]}.app" for a in ACTIONS]
        calendar = chance.choice(("", "", *CALENDAR))
        window = 0.0 if calendar else chance.choice((600.0, 3600.0, 1.1 * DAY, 9.0 * DAY))
        cap = Cap(
            f"cap{i}",
            scope,
            "" if scope in ("all", "marketing") else chance.choice([*ids, "*"]),
            chance.choice((*CONTACT_KINDS, "decision", "impression", "impression")),
            chance.randint(0, 4),
            window,
            chance.choice(((), ("app",), ("email",), CHANNELS)),
            "",
            calendar,
            chance.choice(("action", "action", "message")),
            chance.choice(((), (), ("home",), ("home", "hero"))),
        )
        caps.append(cap)
    return tuple(caps)


def catalogue_with(caps: tuple[Cap, ...], reservations: dict[str, float]) -> Catalogue:
    """Return a catalogue of ACTIONS on every channel and placement with these caps."""
    actions = tuple(
        Action(
            id=name, name=name, issue=issue, group=group, value=1.0, cost=0.0, lever=1.0, prior=0.1,
            scoring=Scoring.PRIOR, member=None, campaign_type=None, window_days=14.0, is_marketing=marketing,
            may_be_unlogged=False, success_rule="", starts_at=math.nan, ends_at=math.nan,
        )
        for name, issue, group, marketing in ACTIONS
    )  # fmt: skip
    treatments = tuple(
        Treatment(f"{action.id}.{channel}", action.id, channel, PLACEMENTS[channel], {})
        for action in actions
        for channel in CHANNELS
    )
    return Catalogue(
        version="v", currency="USD", actions=actions, treatments=treatments,
        placements=tuple(Placement(name, channel, 1) for channel, names in PLACEMENTS.items() for name in names),
        rules=(), caps=caps, experiment=Experiment("e", "s", (("nba", 1.0),)), exploration=Exploration("none", 0.0),
        context=(), arbitration={}, context_weights={}, thresholds={}, default_locale="en", expires_seconds=60.0,
        channels=CHANNELS, reservations=reservations,
    )  # fmt: skip


def random_members(chance: random.Random, now: float) -> list[tuple[float, str]]:
    """Return contacts as they are stored: decisions of some actions each, some shown, some answered, some ahead."""
    members = []
    for i in range(chance.randint(0, 14)):
        channel = chance.choice(CHANNELS)
        at = now - chance.choice((chance.uniform(-60, 4000), chance.uniform(0, 2 * DAY), chance.uniform(0, 40 * DAY)))
        for name, issue, group, marketing in chance.sample([*ACTIONS, RETIRED], chance.randint(1, 3)):
            placement = chance.choice(PLACEMENTS[channel])
            shown = f"{name}|{issue}|{group}|{name}.{channel}|{channel}|{int(marketing)}|{placement}"
            members.append((at, f"decision|{i:034d}|{shown}"))
            for kind in CONTACT_KINDS[1:]:
                if chance.random() < 0.4:
                    members.append((at + chance.uniform(0, 2000), f"{kind}|{i:034d}|{shown}"))
    return members


async def refusals(url: str, cases: int, seed: int) -> int:
    """Compare the script with the core on random histories; return how many offers were refused."""
    chance = random.Random(seed)
    refused_offers = 0
    link = Link(url)
    state, plan = RedisState(link, link, LAYOUT), plan_by_hand()
    # An offer that is always refused keeps the others from being reserved.
    never = (Offer("never", "-", "-", "t", False, "home"), CapCheck("x", "action", "never", "decision", 0))
    for case in range(cases):
        customer, channel, zone = f"c{case}", chance.choice(CHANNELS), chance.choice(ZONES)
        now = NOW + chance.uniform(-20 * DAY, 60 * DAY)
        caps, stored = random_caps(chance), random_members(chance, now)
        catalogue = catalogue_with(caps, chance.choice(({}, {"email": 5000.0, "app": DAY}, {"app": 60.0})))
        if stored:
            pairs = [part for at, member in stored for part in (repr(at), member)]
            await link.exchange([("ZADD", keys.contacts(customer), *pairs)], deadline_seconds=5, reason="")
        contacts = (await state.gather(plan, [customer], channel, now, 5.0)).batch.contacts
        table, (local, _) = CapTable.of(catalogue), local_times([zone], "UTC", now)
        room = table.room(contacts, channel, now, local)[0]
        since = Windows.of(caps).since(now, local)[0].tolist()
        checks = [
            (CapCheck(c.id, c.scope, c.scope_id, c.counted, c.limit, c.channels, c.placements, c.unit), since[p])
            for p, c in enumerate(caps)
            if not c.channels or channel in c.channels
        ]
        terms = CapTerms((*(check for check, _ in checks), never[1]), catalogue.reservations)
        limits = Caps(terms, [*(moment for _, moment in checks), 0.0])
        for action in catalogue.actions:
            treatment = next(t for t in catalogue.treatments if t.id == f"{action.id}.{channel}")
            placement = chance.choice(PLACEMENTS[channel])
            counters = [*table.counters_of(action, treatment), *table.counters_of(action, treatment, placement)]
            has_room = all(room[counter] > 0 for counter in counters if counter >= 0)
            offer = Offer(action.id, action.issue, action.group, treatment.id, action.is_marketing, placement)
            recorded = await state.record(
                decision_row(customer, now, channel=channel),
                [offer, never[0]],
                limits,
                answer=None,
                request_digest="",
                deadline_seconds=5,
            )
            assert (action.id not in recorded.refused) == has_room, (case, action.id, zone, now, caps, stored)
            for refused, cap in zip(recorded.refused, recorded.denied_by, strict=True):
                assert refused == "never" or cap in {c.id for c in caps}
            refused_offers += not has_room
    await link.close()
    return refused_offers


def test_script_and_core_refuse_the_same_actions(clean_url: str) -> None:
    """For 200 random histories, policies, clocks and zones the script refuses what the core has no room for."""
    assert 200 < asyncio.run(refusals(clean_url, 200, seed=11)) < 800


@pytest.mark.prove
def test_script_and_core_refuse_the_same_actions_ten_thousand_times(clean_url: str) -> None:
    """For 10,000 random histories, policies, clocks and zones the script refuses what the core has no room for."""
    assert 10_000 < asyncio.run(refusals(clean_url, 10_000, seed=12)) < 40_000

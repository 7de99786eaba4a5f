"""What the shapes call sound is what the checks take; what the checks refuse is never called sound."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.contract import AISLES, CAMPAIGN_TYPES, PROFILE
from features.event_shapes import SHAPES, is_sound
from features.events import EVENT_TYPES, EventError, check_event
from features.layout import Kind
from tests.small_world import SmallWorld
from training.sources import events

ODD = (
    None, True, False, 0, 1, -1, -0.0, 1e9, 1e9 + 1, 10**30, float("nan"), float("inf"), "", "x", "x" * 100, "x" * 101,
    "\U0001f600" * 100, AISLES[0], CAMPAIGN_TYPES[0], [], {}, [[]], b"x",
)  # fmt: skip
LINE = {
    "aisle": AISLES[0],
    "quantity": 1,
    "sales_value": 2.5,
    "product_id": "p",
    "retail_disc": None,
    "is_private": True,
}
SOUND: dict[str, dict[str, Any]] = {
    "purchase": {"lines": [LINE, LINE], "basket_id": "b", "store_id": None},
    "campaign_sent": {"campaign_id": "c", "campaign_type": CAMPAIGN_TYPES[0]},
    "coupon_redeemed": {"campaign_id": "c", "campaign_type": CAMPAIGN_TYPES[0], "aisle": AISLES[0], "coupon_id": "k"},
    "profile_changed": {
        fact.name: fact.vocabulary[0] if fact.vocabulary else 3
        for fact in PROFILE.facts
        if fact.kind is not Kind.ANCHOR
    },
}


def takes(event_type: str, properties: Any) -> bool:
    try:
        check_event(event_type, properties)
    except EventError:
        return False
    return True


def test_there_is_a_shape_for_each_type() -> None:
    """No type is left to the slow way, and the full example of each is sound."""
    assert set(SHAPES) == set(EVENT_TYPES)
    for event_type, properties in SOUND.items():
        assert is_sound(event_type, properties)
        assert takes(event_type, properties)


def test_real_events_are_sound(small_world: SmallWorld) -> None:
    """Every event of the example's year is told at once."""
    past = events(small_world.history, None, datetime(2017, 3, 1, tzinfo=UTC))
    found = [is_sound(event["type"], event["properties"]) for event in past]
    assert len(found) > 1_000
    assert all(found)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_one_thing_changed(event_type: str) -> None:
    """Any field with any odd value, missing or under another name: sound exactly where the checks take it."""
    agreed = 0
    for where in ([], ["lines", 0]) if event_type == "purchase" else ([],):
        fields = LINE if where else SOUND[event_type]
        for name in (*fields, "other"):
            for value in (*ODD, ...):
                properties: Any = (
                    {**SOUND[event_type], "lines": [dict(LINE), LINE]} if where else dict(SOUND[event_type])
                )
                target = properties["lines"][0] if where else properties
                if value is ...:
                    target.pop(name, None)
                else:
                    target[name] = value
                assert is_sound(event_type, properties) == takes(event_type, properties), (name, value)
                agreed += 1
    assert agreed > 2 * len(ODD)


@given(st.randoms(use_true_random=False), st.sampled_from(EVENT_TYPES))
def test_many_things_changed(chance: random.Random, event_type: str) -> None:
    """Whatever is called sound the checks take."""
    properties: Any = {**SOUND[event_type]}
    for _ in range(chance.randint(0, 3)):
        properties[chance.choice([*properties, "other"])] = chance.choice(
            [*ODD, [LINE], [LINE] * 1_001, [{**LINE, "aisle": 1}]]
        )
    assert not is_sound(event_type, properties) or takes(event_type, properties)


@pytest.mark.parametrize("count", [0, 1, 1_000, 1_001])
def test_lines_are_counted(count: int) -> None:
    """One to a thousand lines."""
    properties = {"lines": [LINE] * count}
    assert is_sound("purchase", properties) == takes("purchase", properties) == (1 <= count <= 1_000)


def test_an_unknown_type_is_not_sound() -> None:
    """Nor is one that has no shape here."""
    assert not is_sound("consent_changed", {})

"""What an event must carry."""

from __future__ import annotations

from typing import Any

import pytest

from features.facts import EVENT_TYPES, EventError, check_event

LINE: dict[str, Any] = {"aisle": "seafood", "quantity": 1, "sales_value": 7.5}
GOOD: dict[str, dict[str, Any]] = {
    "purchase": {"lines": [LINE, {**LINE, "product_id": "9", "is_promoted": True, "coupon_disc": None}]},
    "campaign_sent": {"campaign_id": "18", "campaign_type": "a"},
    "coupon_redeemed": {"campaign_id": "18", "campaign_type": "a", "coupon_id": "5", "aisle": "seafood"},
    "profile_changed": {"age_band": "65+", "household_size": 2, "income_band": None},
}


def test_types() -> None:
    """The event types are those of the good examples."""
    assert set(EVENT_TYPES) == set(GOOD)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_good(event_type: str) -> None:
    """A complete event of each type is taken."""
    check_event(event_type, GOOD[event_type])


@pytest.mark.parametrize(
    ("event_type", "properties", "field", "word"),
    [
        ("purchases", {}, "type", "did you mean 'purchase'"),
        ("purchase", {}, "properties.lines", "missing"),
        ("purchase", {"lines": []}, "properties.lines", "1 to 1000"),
        ("purchase", {"lines": [LINE] * 1001}, "properties.lines", "1 to 1000"),
        ("purchase", {"lines": [LINE, {**LINE, "aisle": "seefood"}]}, "properties.lines[1].aisle", "'seafood'"),
        ("purchase", {"lines": [{**LINE, "sales_value": -1}]}, "properties.lines[0].sales_value", "number"),
        ("purchase", {"lines": [{**LINE, "sales_value": float("nan")}]}, "properties.lines[0].sales_value", "number"),
        ("purchase", {"lines": [{**LINE, "quantity": True}]}, "properties.lines[0].quantity", "number"),
        ("purchase", {"lines": [{**LINE, "is_private": 1}]}, "properties.lines[0].is_private", "true or false"),
        ("purchase", {"lines": [{**LINE, "price": 1}]}, "properties.lines[0]", "not known"),
        ("purchase", {"lines": ["x"]}, "properties.lines[0]", "object"),
        ("campaign_sent", {"campaign_id": "1", "campaign_type": "d"}, "properties.campaign_type", "a, b, c"),
        ("coupon_redeemed", {"campaign_id": "1", "campaign_type": "a"}, "properties.aisle", "missing"),
        ("profile_changed", {"age_band": "old"}, "properties.age_band", "none of"),
        ("profile_changed", {"kids_count": "2"}, "properties.kids_count", "number"),
        ("profile_changed", {"profile_anchor_at": 1.0}, "properties", "not known"),
    ],
)
def test_bad(event_type: str, properties: dict[str, Any], field: str, word: str) -> None:
    """A bad event is refused with a sentence that names the field and says what would do."""
    with pytest.raises(EventError, match=r"\.$") as caught:
        check_event(event_type, properties)
    assert caught.value.field == field
    assert word in str(caught.value)

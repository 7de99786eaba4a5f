"""Laws of the fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.contract import AISLES, CAMPAIGN_TYPES, LAYOUT, PROFILE, RECENT_DAYS
from features.facts import EventError, Floats, fold, from_view, to_view, unknown
from features.layout import SECONDS_PER_DAY

START = 1_500_000_000.0


def _row(name: str) -> int:
    return LAYOUT.slices[name].start


def _fold_all(events: list[dict[str, Any]]) -> Floats:
    row = unknown()
    for event in events:
        row, _ = fold(row, event)
    return row


def _purchase(day: float, *lines: tuple[str, float], **more: Any) -> dict[str, Any]:
    listed = [{"aisle": aisle, "quantity": 1, "sales_value": value, **more} for aisle, value in lines]
    return {"type": "purchase", "occurred_at": START + day * SECONDS_PER_DAY, "properties": {"lines": listed}}


# Times lie on a coarse grid, so that equal moments occur often.
_moments = st.integers(0, 1200).map(lambda step: START + step * 21_600.0)
_money = st.floats(0, 200).map(lambda value: round(value, 2))
_lines = st.lists(
    st.fixed_dictionaries(
        {"aisle": st.sampled_from(AISLES), "quantity": st.integers(0, 9), "sales_value": _money},
        optional={
            "retail_disc": _money,
            "coupon_disc": _money,
            "is_private": st.booleans(),
            "is_promoted": st.booleans(),
        },
    ),
    min_size=1,
    max_size=6,
)
_types = st.sampled_from(CAMPAIGN_TYPES)
_profile = st.fixed_dictionaries(
    {}, optional={f.name: st.sampled_from(f.vocabulary) for f in PROFILE.facts if f.vocabulary}
)
_events = st.one_of(
    st.tuples(st.just("purchase"), st.fixed_dictionaries({"lines": _lines})),
    st.tuples(st.just("campaign_sent"), st.fixed_dictionaries({"campaign_id": st.just("1"), "campaign_type": _types})),
    st.tuples(
        st.just("coupon_redeemed"),
        st.fixed_dictionaries({"campaign_id": st.just("1"), "campaign_type": _types, "aisle": st.sampled_from(AISLES)}),
    ),
    st.tuples(st.just("profile_changed"), _profile),
)
_histories = st.lists(
    st.builds(lambda pair, at: {"type": pair[0], "properties": pair[1], "occurred_at": at}, _events, _moments),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(_histories.flatmap(lambda events: st.tuples(st.just(events), st.permutations(events))))
def test_order_does_not_matter(pair: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
    """Events in any order, equal moments included, give the same facts up to rounding."""
    events, permuted = pair
    np.testing.assert_allclose(_fold_all(permuted), _fold_all(events), rtol=1e-9, atol=1e-12, equal_nan=True)


def test_latest_days_stay_in_any_order() -> None:
    """Of more shopping days than a row holds the latest distinct ones stay, whatever order they came in."""
    days = np.repeat(np.arange(100), 2)
    events = [_purchase(float(day), ("deli", 1.0)) for day in np.random.default_rng(7).permutation(days)]
    kept = _fold_all(events)[LAYOUT.slices["shopping_days"]]
    first = np.floor((START - 5 * 3600) / SECONDS_PER_DAY)
    np.testing.assert_array_equal(kept, first + np.arange(100 - RECENT_DAYS, 100))


def test_sums_by_hand() -> None:
    """Two baskets 28 days apart: the earlier one counts half at half-life 28, and a quarter at half-life 7 is 1/16."""
    row = _fold_all([_purchase(0, ("seafood", 8.0), ("fuel", 4.0)), _purchase(28, ("seafood", 1.0))])
    assert row[_row("spend_h28")] == pytest.approx(12 / 2 + 1, rel=1e-12)
    assert row[_row("spend_h7")] == pytest.approx(12 / 16 + 1, rel=1e-12)
    assert row[_row("spend_squared_h91")] == pytest.approx(144 * 2 ** (-28 / 91) + 1, rel=1e-12)
    assert row[_row("units_h28")] == pytest.approx(1 / 2 + 1, rel=1e-12)
    assert row[_row("fuel_spend_h91")] == pytest.approx(4 * 2 ** (-28 / 91), rel=1e-12)
    assert row[_row("aisle_spend_h28") + AISLES.index("seafood")] == pytest.approx(8 / 2 + 1, rel=1e-12)
    assert row[_row("largest_basket")] == 12
    assert row[_row("baskets_count")] == 2
    assert row[_row("purchases_anchor_at")] == START + 28 * SECONDS_PER_DAY


def test_evening_and_weekend_are_local() -> None:
    """Friday 22:30 UTC is Friday evening at UTC-5; Saturday 04:30 UTC still is; Monday 04:59 UTC is a Sunday."""
    friday = 1_506_724_200.0  # 2017-09-29T22:30:00Z
    for later, evening, weekend in ((0, 1, 0), (6, 1, 0), (54.49, 1, 1), (54.6, 0, 0)):
        event = {**_purchase(0, ("deli", 1.0)), "occurred_at": friday + later * 3600}
        row = _fold_all([event])
        assert (row[_row("evening_baskets_h91")], row[_row("weekend_baskets_h91")]) == (evening, weekend), later


def test_what_is_touched() -> None:
    """A fold leaves its input alone and names the views it touched; the others stay unknown."""
    before = unknown()
    row, views = fold(before, _purchase(0, ("deli", 1.0)))
    assert np.isnan(before).all()
    assert views == {"purchases", "aisle_history", "prices", "journey"}
    assert np.isnan(row[LAYOUT.slices["sends_a_count"]]).all()
    assert np.isnan(row[LAYOUT.slices["age_band"]]).all()
    assert row[_row("coupon_discount_h91")] == 0
    assert row[_row("aisle_baskets_count") + AISLES.index("pet")] == 0
    assert np.isnan(row[_row("aisle_purchase_at") + AISLES.index("pet")])


def test_late_profile_is_ignored() -> None:
    """A declaration older than the one known changes nothing; a newer one replaces all of it."""
    old = {"type": "profile_changed", "occurred_at": START, "properties": {"age_band": "65+", "kids_count": 1}}
    new = {"type": "profile_changed", "occurred_at": START + 1, "properties": {"age_band": "55-64"}}
    for events in ([old, new], [new, old]):
        view = to_view(_fold_all(events), "profile")
        assert (view["age_band"], view["kids_count"]) == ("55-64", None)


def test_profiles_of_one_moment() -> None:
    """Two declarations of the very same moment give one profile, whichever came first."""
    pair = [
        {"type": "profile_changed", "occurred_at": START, "properties": {"age_band": band, "marital_status": status}}
        for band, status in (("65+", "Married"), ("19-24", "Unmarried"))
    ]
    np.testing.assert_array_equal(_fold_all(pair), _fold_all(pair[::-1]))


def test_unknown_type() -> None:
    """The fold refuses a type that is not its own, such as consent."""
    with pytest.raises(EventError, match="type"):
        fold(unknown(), {"type": "consent_changed", "occurred_at": START, "properties": {}})


@settings(max_examples=30, deadline=None)
@given(_histories)
def test_views_and_back(events: list[dict[str, Any]]) -> None:
    """What the store holds of a row gives the row back, bit for bit."""
    row, rebuilt = _fold_all(events), unknown()
    for view in LAYOUT.views:
        from_view(to_view(row, view.name), view.name, rebuilt)
    np.testing.assert_array_equal(rebuilt, row)


def test_foreign_text_is_missing() -> None:
    """A text outside the vocabulary, None and an absent value are missing."""
    block = from_view({"age_band": "ancient", "income_band": None}, "profile")
    assert np.isnan(block).all()

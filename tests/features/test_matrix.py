"""Laws of the columns as of a decision time."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from features.contract import AISLES, LAYOUT, STAGES
from features.facts import Floats, fold, unknown
from features.layout import SECONDS_PER_DAY
from features.matrix import ACTION_COLUMNS, OFFER_COLUMNS, ActionTable, Columns, ModelInput, mask_stale
from training.past import Past

NOW = datetime(2017, 10, 1, 5, tzinfo=UTC).timestamp()
COLUMNS = Columns()
ACTIONS = ActionTable.of(
    COLUMNS, [0, 1, 2, 3], ["seafood", "pet", None, "produce"], [0, np.nan, np.nan, 2], [30, 30, 30, 45]
)


def _shopper(days: list[int], hour: float = 12.0) -> Floats:
    """Facts of one who shopped on these days before NOW's local day (0 = that very day), as a matrix of one."""
    row = unknown()
    for day in days:
        at = NOW - day * SECONDS_PER_DAY + hour * 3600
        lines = [{"aisle": "deli", "quantity": 1, "sales_value": 5.0}]
        row, _ = fold(row, {"type": "purchase", "occurred_at": at, "properties": {"lines": lines}})
    return row[:, None]


def _stage(facts: Floats, now: float) -> str:
    return STAGES[int(COLUMNS.as_of(facts, now)[COLUMNS.index["stage"], 0])]


@pytest.fixture(scope="module")
def facts(past: Past) -> Floats:
    return past.facts_at(NOW)


def test_batch_equals_one_by_one(facts: Floats) -> None:
    """A batch of n customers gives bit for bit what n batches of one give, for one moment and for many."""
    some = facts[:, ::17]
    nows = NOW + np.arange(some.shape[1]) * 3_333.0
    for now in (NOW, nows):
        whole = COLUMNS.as_of(some, now)
        single = [
            COLUMNS.as_of(some[:, i : i + 1], now if isinstance(now, float) else now[i : i + 1])
            for i in range(len(nows))
        ]
        np.testing.assert_array_equal(whole, np.hstack(single))


def test_rows_equal_one_by_one(facts: Floats) -> None:
    """Model rows of a batch equal those made customer by customer, and follow the declared names."""
    model_input = ModelInput(COLUMNS)
    some = facts[:, :40]
    customers, actions = (grid.ravel() for grid in np.meshgrid(np.arange(40), np.arange(4), indexing="ij"))
    rows = model_input.rows(COLUMNS.as_of(some, NOW), customers, actions, ACTIONS)
    assert rows.shape == (160, len(model_input.names))
    for i in range(40):
        alone = model_input.rows(COLUMNS.as_of(some[:, i : i + 1], NOW), np.zeros(4, np.int64), np.arange(4), ACTIONS)
        np.testing.assert_array_equal(rows[4 * i : 4 * i + 4], alone)
    place = model_input.names.index("aisle_baskets_count")
    seafood = LAYOUT.slices["aisle_baskets_count"].start + AISLES.index("seafood")
    np.testing.assert_array_equal(rows[::4, place], some[seafood])
    assert np.isnan(rows[2::4, place]).all()


def test_an_offer_is_told_by_its_own_columns() -> None:
    """Coupons and breadth end a row; an action without an offer has none."""
    table = ActionTable.of(COLUMNS, [1, 0], ["seafood", None], [0, np.nan], [30, 30], [(4, 0.5), (np.nan, np.nan)])
    places = [ACTION_COLUMNS.index(name) for name in OFFER_COLUMNS]
    np.testing.assert_array_equal(table.statics[:, places], [[4, 0.5], [np.nan, np.nan]])
    assert np.isnan(ACTIONS.statics[:, places]).all()


def test_silence_ages_by_itself() -> None:
    """Who shopped weekly is lapsing after 17.5 days of silence and lapsed after 60, on the very day, by no job."""
    shopper = _shopper(list(range(0, 98, 7)))
    stages = [_stage(shopper, NOW + day * SECONDS_PER_DAY) for day in range(70)]
    assert stages[:18] == ["loyal"] * 18
    assert stages[18:61] == ["lapsing"] * 43
    assert stages[61:] == ["lapsed"] * 9


def test_stage_turns_at_local_midnight() -> None:
    """Silence counts local days: the stage turns at 00:00 local, not at the hour of the last basket."""
    shopper = _shopper(list(range(0, 98, 7)))
    midnight = NOW + 18 * SECONDS_PER_DAY
    assert (_stage(shopper, midnight - 1), _stage(shopper, midnight)) == ("loyal", "lapsing")


def test_new_returned_and_active() -> None:
    """New for 45 days; returned within 30 days after a gap of 60; active without a loyal rhythm."""
    assert _stage(_shopper([3]), NOW) == "new"
    assert _stage(_shopper([200, 190, 180, 10]), NOW) == "returned"
    assert _stage(_shopper([200, 170, 140, 110, 80, 50, 20]), NOW) == "active"


def test_unknown_customer_has_no_stage() -> None:
    """Of an unknown customer every column is missing."""
    assert np.isnan(COLUMNS.as_of(unknown()[:, None], NOW)).all()


def test_skew_is_no_negative_age() -> None:
    """A moment or anchor ahead of now has aged by nothing: no negative days, no growing sums."""
    shopper = _shopper([0], hour=3.0)
    seen = COLUMNS.as_of(shopper, NOW)
    assert seen[COLUMNS.index["days_since_last_basket"], 0] == 0
    assert seen[COLUMNS.index["spend_h7"], 0] == 5.0
    assert seen[COLUMNS.index["silence_days"], 0] == 0


def test_sums_halve_in_their_half_life() -> None:
    """As of 28 days after the basket a sum of half-life 28 is half of it."""
    shopper = _shopper([28], hour=0.0)
    assert COLUMNS.as_of(shopper, NOW)[COLUMNS.index["spend_h28"], 0] == 2.5


def test_ratio_without_denominator_is_missing() -> None:
    """A ratio over nothing is missing, never infinite."""
    shopper = _shopper([3])
    values = COLUMNS.as_of(shopper, NOW)
    assert np.isnan(values[COLUMNS.index["aisle_promoted_share__pet"], 0])
    assert values[COLUMNS.index["aisle_promoted_share__deli"], 0] == 0
    assert not np.isinf(values).any()


def test_stale_views_are_missing(facts: Floats) -> None:
    """Facts of a view older than its maximum age become missing, those of fresh views and other customers stay."""
    some = facts[:, :3].copy()
    names = [view.name for view in LAYOUT.views]
    times = np.full((len(names), 3), NOW)
    times[names.index("purchases"), 1] = NOW - 401 * SECONDS_PER_DAY
    times[names.index("contacts"), 2] = np.nan
    stale = mask_stale(LAYOUT, some, times, NOW)
    assert stale.sum() == 1
    assert np.isnan(some[LAYOUT.slices["spend_h28"], 1]).all()
    np.testing.assert_array_equal(np.delete(some, 1, axis=1), facts[:, [0, 2]])
    np.testing.assert_array_equal(some[LAYOUT.slices["first_seen_at"]], facts[LAYOUT.slices["first_seen_at"], :3])


def test_stages_of_the_example(facts: Floats) -> None:
    """On 1 October the stages are near the figures measured on the data (a trip here is a shopping day)."""
    stages = COLUMNS.as_of(facts, NOW)[COLUMNS.index["stage"]]
    counts = {stage: int((stages == code).sum()) for code, stage in enumerate(STAGES)}
    published = {"new": 21, "active": 961, "loyal": 1217, "lapsing": 122, "lapsed": 70, "returned": 55}
    for stage, count in published.items():
        assert counts[stage] == pytest.approx(count, rel=0.05, abs=2), counts

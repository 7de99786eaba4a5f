"""Facts of the past: equal to the fold, without leaks, and as Feast shall read them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.contract import LAYOUT
from features.facts import Floats, fold, from_view, to_view, unknown
from training.backfill import backfill, facts_at, snapshot_moments
from training.past import Past
from training.sources import connect, events, unix_seconds, write_history

FINAL = datetime(2018, 1, 1, 4, 1, 21, tzinfo=UTC)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    write_history(folder)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_history(folder, customers=120)
    return folder


def _moments(count: int) -> list[float]:
    """Moments spread over the year, among them those at which many events happen at once."""
    start, end = datetime(2017, 1, 5, 17, tzinfo=UTC).timestamp(), FINAL.timestamp()
    return [*np.linspace(start, end - 3e6, count - 2), datetime(2017, 10, 30, 5, tzinfo=UTC).timestamp(), end]


def _replayed(history: Path, past: Past, moments: list[float]) -> Iterator[tuple[float, Floats]]:
    """Fold all events in time order and stop at each moment."""
    place = {customer: i for i, customer in enumerate(past.customer_ids)}
    rows = np.full((len(place), LAYOUT.width), np.nan)
    waiting = sorted(moments)
    for event in events(history, None, datetime.fromtimestamp(waiting[-1], UTC)):
        at = unix_seconds(event["occurred_at"])
        while at >= waiting[0]:
            yield waiting.pop(0), rows
        i = place[event["customer_id"]]
        rows[i], _ = fold(rows[i], {**event, "occurred_at": at})
    for moment in waiting:
        yield moment, rows


def _assert_stream_equals_sql(history: Path, moments: list[float]) -> None:
    with Past(history) as past:
        compared = 0
        for moment, rows in _replayed(history, past, moments):
            np.testing.assert_allclose(rows.T, past.facts_at(moment), rtol=1e-9, atol=0, equal_nan=True)
            compared += 1
        assert compared == len(moments)


@pytest.mark.prove
def test_stream_equals_sql(history: Path) -> None:
    """Folding all events of all households gives what one SQL aggregate gives, at three moments, within 1e-9."""
    _assert_stream_equals_sql(history, _moments(3))


@pytest.mark.prove
def test_stream_equals_sql_at_twenty_moments(history: Path) -> None:
    """The same at twenty moments."""
    _assert_stream_equals_sql(history, _moments(20))


@pytest.mark.parametrize("change", ["dropped", "altered"])
def test_later_events_change_nothing(small: Path, tmp_path: Path, change: str) -> None:
    """Facts at a moment stay the same bytes when every event at or after it is dropped or altered."""
    moment = datetime(2017, 6, 5, 5, tzinfo=UTC)
    at = f"'{moment.isoformat()}'::TIMESTAMPTZ"
    altered = {
        "lines": (
            "occurred_at",
            "sales_value * 3 AS sales_value, 'pet' AS aisle, 99.0 AS coupon_disc, true AS is_private",
        ),
        "sends": ("sent_at", "'c' AS campaign_type"),
        "redemptions": ("redeemed_at", "'pet' AS aisle, 'c' AS campaign_type"),
        "profiles": ("declared_at", "'65+' AS age_band"),
    }
    with connect() as con:
        for name, (time, columns) in altered.items():
            source = f"read_parquet('{small}/{name}.parquet')"
            later = f"UNION ALL BY NAME SELECT * REPLACE ({columns}) FROM {source} WHERE {time} >= {at}"
            query = f"SELECT * FROM {source} WHERE {time} < {at} {later if change == 'altered' else ''}"
            con.execute(f"COPY ({query}) TO '{tmp_path}/{name}.parquet' (FORMAT parquet)")
    ids, facts = facts_at(small, moment)
    other_ids, other = facts_at(tmp_path, moment)
    assert ids.tolist() == other_ids.tolist()
    np.testing.assert_allclose(other, facts, rtol=1e-13, equal_nan=True)
    assert not np.isnan(facts[LAYOUT.slices["spend_total"]]).all()


def test_event_at_the_moment_does_not_count(small: Path) -> None:
    """An event at the very moment is not yet known; a second later it is."""
    with connect() as con:
        found = con.execute(f"SELECT occurred_at, customer_id FROM '{small}/lines.parquet' LIMIT 1").fetchone()
    assert found is not None
    moment, customer = found[0].timestamp(), found[1]
    with Past(small) as past:
        place = past.customer_ids.tolist().index(customer)
        before, after = past.facts_at(moment)[:, place], past.facts_at(moment + 1)[:, place]
    first = LAYOUT.slices["first_basket_at"]
    assert np.isnan(before[first]).all()
    assert after[first] == moment


def test_moments(small: Path) -> None:
    """Snapshots are taken on local Mondays, at campaign starts, and right after the last basket of the data."""
    moments = snapshot_moments(small)
    assert moments == sorted(set(moments))
    assert moments[0] == datetime(2017, 1, 2, 5, tzinfo=UTC)
    assert datetime(2017, 10, 4, 5, tzinfo=UTC) in moments  # campaign 16, a Wednesday
    mondays = [m for m in moments if m.weekday() == 0 and m.hour == 5]
    assert len(mondays) == 52
    with connect() as con:
        last = con.execute(f"SELECT max(occurred_at) FROM '{small}/lines.parquet'").fetchone()
    assert last is not None
    assert 0 < (moments[-1] - last[0]).total_seconds() <= 1


def test_snapshots_hold_the_facts(small: Path, tmp_path: Path) -> None:
    """Snapshots hold, per view, exactly the customers the view knows, with their facts in Feast's form."""
    moments = [datetime(2017, 2, 6, 5, tzinfo=UTC), datetime(2017, 6, 5, 5, tzinfo=UTC)]
    summary = backfill(small, tmp_path, moments)
    assert (summary.moments, summary.rows > 0) == (2, True)
    ids, facts = facts_at(small, moments[1])
    place = {customer: i for i, customer in enumerate(ids)}
    for view in LAYOUT.views:
        table = pq.read_table(tmp_path / "facts" / view.name / "20170605T050000Z.parquet")
        assert str(table.schema.field("event_timestamp").type) == "timestamp[us, tz=UTC]"
        rows = table.to_pylist()
        assert {row["event_timestamp"] for row in rows} == {moments[1]}
        block = from_view({}, view.name)
        start = LAYOUT.slices[view.facts[0].name].start
        known = ~np.isnan(facts[start : start + len(block)]).all(axis=0)
        assert {row["customer_id"] for row in rows} == set(ids[known])
        for row in rows[::9]:
            expected = facts[:, place[row["customer_id"]]]
            np.testing.assert_array_equal(from_view(row, view.name), expected[start : start + len(block)])
            stored = to_view(expected, view.name)
            assert all(len(row[name]) == len(value) for name, value in stored.items() if isinstance(value, list))


def test_backfill_again_gives_the_same_bytes(small: Path, tmp_path: Path) -> None:
    """A second backfill replaces the snapshots with the same content and leaves no other file."""
    moment = [datetime(2017, 6, 5, 5, tzinfo=UTC)]
    backfill(small, tmp_path, moment, threads=1)
    first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    backfill(small, tmp_path, moment, threads=1)
    second = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(first) == len(LAYOUT.views)
    assert first == second


def test_missing_history_is_said(tmp_path: Path) -> None:
    """Without the tidy tables the error names the missing file and the command that makes it."""
    with pytest.raises(FileNotFoundError, match=r"lines\.parquet is missing.*nba"):
        Past(tmp_path)


def test_unknown_customers_have_no_row(small: Path) -> None:
    """Before anything happened nobody has facts."""
    ids, facts = facts_at(small, datetime(2016, 1, 1, tzinfo=UTC))
    assert len(ids) == 0
    assert facts.shape == (LAYOUT.width, 0)
    assert unknown().shape == (LAYOUT.width,)

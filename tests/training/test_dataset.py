"""Training rows: what is a positive, and that nothing after a row's moment is seen by it."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from features.contract import UTC_OFFSET_HOURS
from tests.small_world import SmallWorld, feast_environment
from training.dataset import BURN_IN_WEEKS, OFFER_DAYS, build_dataset, feast_facts, label_rows, monthly_moments, seconds
from training.past import Past
from training.sources import connect


@pytest.fixture(scope="module")
def rows(small_world: SmallWorld) -> pa.Table:
    return label_rows(small_world.history, monthly_moments(small_world.history))


def _lines(history: Path) -> dict[str, list[tuple[datetime, str]]]:
    bought: dict[str, list[tuple[datetime, str]]] = {}
    with connect() as con:
        query = f"SELECT DISTINCT customer_id, occurred_at, aisle FROM read_parquet('{history}/lines.parquet')"
        for customer, at, aisle in con.execute(query).fetchall():
            bought.setdefault(customer, []).append((at, aisle))
    return bought


def test_moments_are_local_mondays_after_the_burn_in(small_world: SmallWorld) -> None:
    """Monthly moments start thirteen weeks in, at 00:00 local on Mondays, and end where the window still fits."""
    moments = monthly_moments(small_world.history)
    with connect() as con:
        query = f"SELECT min(occurred_at), max(occurred_at) FROM read_parquet('{small_world.history}/lines.parquet')"
        first, last = con.execute(query).fetchall()[0]
    local = [moment + timedelta(hours=UTC_OFFSET_HOURS) for moment in moments]
    assert all(moment.weekday() == 0 and moment.hour == moment.minute == 0 for moment in local)
    assert moments[0] - first >= timedelta(weeks=BURN_IN_WEEKS) - timedelta(days=1)
    assert moments[-1] + timedelta(days=30) <= last


def test_cross_sell_and_retention_labels_are_what_a_plain_loop_finds(small_world: SmallWorld, rows: pa.Table) -> None:
    """Counted anew in Python from the lines: who lacked the aisle for 180 days, who bought it, who fell silent."""
    bought = _lines(small_world.history)
    window, lack = timedelta(days=30), timedelta(days=180)
    seen = {"cross_sell": 0, "retention": 0}
    for row in rows.to_pylist():
        if row["issue"] not in seen or row["row_id"] % 7:
            continue
        at, own = row["moment"], bought[row["customer_id"]]
        after = [aisle for when, aisle in own if at <= when < at + window]
        assert any(when < at for when, _ in own)
        if row["issue"] == "retention":
            assert row["label"] == (not after)
        else:
            assert not any(aisle == row["member"] and at - lack <= when < at for when, aisle in own)
            assert row["label"] == (row["member"] in after)
        seen[row["issue"]] += 1
    assert min(seen.values()) > 100


def test_an_upsell_label_is_a_redemption_in_the_campaigns_window(small_world: SmallWorld, rows: pa.Table) -> None:
    """Each positive has a redemption of its campaign and aisle after the send and before the end; no other row has."""
    with connect() as con:
        table = f"read_parquet('{small_world.history}/redemptions.parquet')"
        query = f"SELECT customer_id, campaign_id, aisle, redeemed_at FROM {table}"
        redeemed = {}
        for customer, campaign, aisle, at in con.execute(query).fetchall():
            redeemed.setdefault((customer, campaign, aisle), []).append(at)
    found = [row for row in rows.to_pylist() if row["issue"] == "upsell"]
    for row in found:
        times = redeemed.get((row["customer_id"], row["campaign_id"], row["member"]), [])
        assert row["label"] == any(row["moment"] < at <= row["known_at"] for at in times)
    assert sum(row["label"] for row in found) > 50


def test_labels_hang_on_what_comes_after_only_within_the_window(
    small_world: SmallWorld, rows: pa.Table, tmp_path: Path
) -> None:
    """With every line and redemption after the last label is known dropped, labels known by then stay as they are."""
    cut = monthly_moments(small_world.history)[3]
    history = tmp_path / "history"
    shutil.copytree(small_world.history, history)
    with connect() as con:
        for table, column in (("lines", "occurred_at"), ("redemptions", "redeemed_at")):
            kept = f"SELECT * FROM read_parquet('{small_world.history}/{table}.parquet') WHERE {column} <= '{cut}'"
            con.execute(f"COPY ({kept}) TO '{history}/{table}.parquet' (FORMAT parquet)")
    fewer = label_rows(history, [m for m in monthly_moments(small_world.history) if m + timedelta(days=30) <= cut])

    def known(table: pa.Table) -> dict[tuple[object, ...], bool]:
        keys = ("issue", "customer_id", "moment", "member", "campaign_id")
        return {tuple(r[k] for k in keys): r["label"] for r in table.to_pylist() if r["known_at"] <= cut}

    assert known(fewer) == known(rows)
    assert len(known(rows)) > 5000


def test_an_offer_is_what_the_lines_before_its_campaign_tell(
    small_world: SmallWorld, rows: pa.Table, tmp_path: Path
) -> None:
    """Counted anew in Python; lines from the last send on do not count."""
    offers = {}
    for row in rows.to_pylist():
        if row["issue"] == "upsell":
            offers[row["campaign_id"], row["member"]] = (row["moment"], row["offer_coupons"], row["offer_breadth"])
        else:
            assert row["offer_coupons"] is row["offer_breadth"] is None
    history = tmp_path / "history"
    shutil.copytree(small_world.history, history)
    cut = max(moment for moment, *_ in offers.values())
    with connect() as con:
        kept = f"SELECT * FROM read_parquet('{small_world.history}/lines.parquet') WHERE occurred_at < '{cut}'"
        con.execute(f"COPY ({kept}) TO '{history}/lines.parquet' (FORMAT parquet)")
        sold = con.execute(f"SELECT occurred_at, aisle, product_id, sales_value FROM ({kept})").fetchall()
        listed = con.execute(f"SELECT * FROM read_parquet('{history}/coupons.parquet')").fetchall()
    fewer = label_rows(history, monthly_moments(small_world.history)[:1])
    again = {
        (row["campaign_id"], row["member"]): (row["moment"], row["offer_coupons"], row["offer_breadth"])
        for row in fewer.to_pylist()
        if row["issue"] == "upsell"
    }
    assert offers.keys() == again.keys()
    for (campaign, aisle), (moment, coupons, breadth) in list(offers.items())[::9]:
        own = [(coupon, product) for coupon, c, a, product in listed if (c, a) == (campaign, aisle)]
        recent = [line for line in sold if moment - timedelta(days=OFFER_DAYS) <= line[0] < moment]
        total = sum(spend for _, where, _, spend in recent if where == aisle)
        products = {product for _, product in own}
        assert coupons == len({coupon for coupon, _ in own})
        assert (breadth is None) == (total == 0.0)
        if breadth is not None:
            assert breadth == pytest.approx(sum(s for *_, product, s in recent if product in products) / total)
            assert again[campaign, aisle][2] == pytest.approx(breadth)


def test_facts_through_feast_are_the_pasts_own_for_the_very_row(small_world: SmallWorld, rows: pa.Table) -> None:
    """Feast keeps no order, yet each row's facts are those of its customer strictly before its moment."""
    some = rows.take(list(range(0, rows.num_rows, 211)))
    with feast_environment(small_world.var):
        dataset = build_dataset(some, feast_facts())
    moments, customers = dataset.column("moment"), dataset.column("customer_id")
    with Past(small_world.history, threads=1) as past:
        position = {customer: i for i, customer in enumerate(past.customer_ids)}
        for moment in np.unique(moments):
            own = np.flatnonzero(moments == moment)
            expected = past.facts_at(moment)[:, [position[customer] for customer in customers[own]]]
            assert np.array_equal(dataset.facts[:, dataset.pairs[own]], expected, equal_nan=True)


def test_no_fact_of_a_row_lies_after_its_moment(small_world: SmallWorld, rows: pa.Table) -> None:
    """Elapsed days are never zero by clamping: no moment or anchor is at or after the row's own moment."""
    from features.contract import LAYOUT
    from features.layout import Kind

    some = rows.take(list(range(0, rows.num_rows, 97)))
    with feast_environment(small_world.var):
        dataset = build_dataset(some, feast_facts())
    moments = seconds(some["moment"])
    for name, fact in LAYOUT.facts.items():
        if fact.kind in (Kind.MOMENT, Kind.ANCHOR):
            values = dataset.facts[LAYOUT.slices[name]][:, dataset.pairs]
            assert not (values > moments).any(), name


def test_the_fingerprint_names_the_bytes(small_world: SmallWorld, rows: pa.Table) -> None:
    """The same rows give the same fingerprint, one flipped label another."""
    some = rows.slice(0, 500)

    def facts_of(customers: object, moments: np.ndarray) -> np.ndarray:
        from features.contract import LAYOUT

        return np.full((LAYOUT.width, len(moments)), np.nan)

    labels = some["label"].to_pylist()
    labels[17] = not labels[17]
    changed = some.set_column(some.column_names.index("label"), "label", pa.array(labels))
    one, same, other = (build_dataset(table, facts_of).fingerprint for table in (some, some, changed))
    assert one == same
    assert one != other

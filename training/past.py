"""The facts of all customers as of a past moment: one SQL aggregate over the tidy tables.

Decides nothing: it must equal `features.facts.fold` over the same events, and is its oracle. It must not know of Feast,
models or labels. Only events strictly before a moment count, so facts leak nothing of their own moment.

A decayed sum is SUM(v * 2^((t - origin) / half_life)), moved to the view's anchor by 2^((origin - anchor) / half_life);
all terms are positive, so nothing cancels and the detour over one common origin costs no precision.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features.contract import (
    AISLE_HISTORY,
    AISLES,
    CAMPAIGN_TYPES,
    CONTACTS,
    HALF_LIVES_DAYS,
    LAYOUT,
    PRICES,
    PROFILE,
    PURCHASES,
    RECENT_DAYS,
    UTC_OFFSET_HOURS,
)
from features.layout import SECONDS_PER_DAY, Fact, Kind, View
from training.sources import connect

Floats = NDArray[np.float64]

_WEIGHTS = ", ".join(f"pow(2, (s - origin) / {days * SECONDS_PER_DAY}) AS w{days}" for days in HALF_LIVES_DAYS)

_PREPARE = f"""
CREATE TEMP TABLE households AS SELECT customer_id, (row_number() OVER (ORDER BY customer_id) - 1)::INT AS c FROM (
  SELECT customer_id FROM read_parquet('{{history}}/lines.parquet')
  UNION SELECT customer_id FROM read_parquet('{{history}}/sends.parquet')
  UNION SELECT customer_id FROM read_parquet('{{history}}/profiles.parquet'));
CREATE TEMP TABLE origin AS SELECT epoch_us(min(occurred_at)) / 1e6 AS origin
  FROM read_parquet('{{history}}/lines.parquet');
CREATE TEMP TABLE lines AS
SELECT c, basket_id, epoch_us(occurred_at) / 1e6 AS s, local_day, (list_position({list(AISLES)}, aisle) - 1)::INT AS a,
  aisle = 'fuel' AS is_fuel, quantity, sales_value, retail_disc, coupon_disc, coupon_match_disc, is_private, is_promoted
FROM read_parquet('{{history}}/lines.parquet') JOIN households USING (customer_id);
CREATE TEMP TABLE baskets AS
SELECT *, {_WEIGHTS} FROM (
  SELECT c, basket_id, any_value(s) AS s, any_value(local_day) AS local_day, sum(sales_value) AS spend,
    coalesce(sum(quantity) FILTER (NOT is_fuel), 0) AS units, count(*) AS lines,
    coalesce(sum(sales_value) FILTER (is_fuel), 0) AS fuel_spend, bool_or(is_fuel) AS has_fuel,
    sum(retail_disc) AS retail_discount, sum(coupon_disc) AS coupon_discount,
    sum(coupon_match_disc) AS coupon_match_discount, bool_or(coupon_disc > 0 OR coupon_match_disc > 0) AS has_coupon,
    count(*) FILTER (retail_disc > 0 OR coupon_disc > 0 OR coupon_match_disc > 0) AS discounted_lines,
    coalesce(sum(sales_value) FILTER (is_private), 0) AS private_spend,
    ((any_value(local_day) + 3) % 7 >= 5)::INT AS weekend,
    ((any_value(s) + {UTC_OFFSET_HOURS * 3600}) % 86400 >= 17 * 3600)::INT AS evening
  FROM lines GROUP BY c, basket_id), origin ORDER BY s;
CREATE TEMP TABLE aisle_baskets AS
SELECT *, {_WEIGHTS} FROM (
  SELECT c, a, basket_id, any_value(s) AS s, sum(sales_value) AS spend, bool_or(is_promoted) AS is_promoted,
    coalesce(sum(sales_value) FILTER (is_promoted), 0) AS promoted_spend
  FROM lines GROUP BY c, a, basket_id), origin ORDER BY s;
CREATE TEMP TABLE days AS SELECT c, local_day, min(s) AS s FROM baskets GROUP BY c, local_day;
CREATE TEMP TABLE contacts AS
SELECT *, {_WEIGHTS} FROM (
  SELECT c, epoch_us(sent_at) / 1e6 AS s, campaign_type AS t, NULL::INT AS a, false AS is_redemption
  FROM read_parquet('{{history}}/sends.parquet') JOIN households USING (customer_id)
  UNION ALL SELECT c, epoch_us(redeemed_at) / 1e6, campaign_type, list_position({list(AISLES)}, aisle) - 1, true
  FROM read_parquet('{{history}}/redemptions.parquet') JOIN households USING (customer_id)), origin ORDER BY s;
CREATE TEMP TABLE profiles AS SELECT c, epoch_us(declared_at) / 1e6 AS s, p.*
FROM read_parquet('{{history}}/profiles.parquet') p JOIN households USING (customer_id);
DROP TABLE lines;
"""

_AMOUNTS = {
    "spend": "spend", "baskets": "1", "units": "units", "lines": "lines", "spend_squared": "spend * spend",
    "weekend_baskets": "weekend", "evening_baskets": "evening", "fuel_spend": "fuel_spend",
    "retail_discount": "retail_discount", "coupon_discount": "coupon_discount",
    "coupon_match_discount": "coupon_match_discount", "discounted_lines": "discounted_lines",
    "private_spend": "private_spend",
    "aisle_spend": "spend", "aisle_baskets": "1", "aisle_promoted_spend": "promoted_spend",
    "sends": "(NOT is_redemption)::INT", "redemptions": "is_redemption::INT",
}  # fmt: skip
"""What each decayed sum adds up, in columns of the table that its view is computed from."""

_PLAIN = {
    "purchases_anchor_at": "max(s)", "first_basket_at": "min(s)", "last_basket_at": "max(s)",
    "last_fuel_at": "max(s) FILTER (has_fuel)", "baskets_count": "count(*)", "spend_total": "sum(spend)",
    "largest_basket": "max(spend)",
    "prices_anchor_at": "max(s)", "last_coupon_line_at": "max(s) FILTER (has_coupon)",
    "aisle_purchase_at": "max(s)", "aisle_baskets_count": "count(*)",
    "aisle_promoted_at": "max(s) FILTER (is_promoted)",
    "contacts_anchor_at": "max(s)",
    **{f"last_send_{t}_at": f"max(s) FILTER (NOT is_redemption AND t = '{t}')" for t in CAMPAIGN_TYPES},
    **{f"last_redemption_{t}_at": f"max(s) FILTER (is_redemption AND t = '{t}')" for t in CAMPAIGN_TYPES},
    **{f"sends_{t}_count": f"count(*) FILTER (NOT is_redemption AND t = '{t}')" for t in CAMPAIGN_TYPES},
    **{f"redemptions_{t}_count": f"count(*) FILTER (is_redemption AND t = '{t}')" for t in CAMPAIGN_TYPES},
    "aisle_redemptions_count": "count(*)", "aisle_redemption_at": "max(s)",
}  # fmt: skip
"""Moments and counts, in columns of the table that their view is computed from."""


def _aggregate(fact: Fact) -> str:
    if fact.half_life_days is None:
        return f"{_PLAIN[fact.name]} AS {fact.name}"
    return f"sum({_AMOUNTS[fact.name.rsplit('_h', 1)[0]]} * w{fact.half_life_days:.0f}) AS {fact.name}"


def _select(facts: Iterable[Fact], table: str, keys: str, where: str = "") -> tuple[tuple[Fact, ...], str]:
    chosen = tuple(facts)
    columns = ", ".join(_aggregate(fact) for fact in chosen)
    return chosen, f"SELECT {keys}, {columns} FROM {table} WHERE s < ? {where} GROUP BY {keys}"


_SCALARS = (
    _select((*PURCHASES.facts, *PRICES.facts), "baskets", "c"),
    _select((f for f in CONTACTS.facts if f.per is None), "contacts", "c"),
)
_PER_AISLE = (
    _select((f for f in AISLE_HISTORY.facts if f.per), "aisle_baskets", "c, a"),
    _select((f for f in CONTACTS.facts if f.per), "contacts", "c, a", "AND is_redemption"),
)
_DAYS = f"""
SELECT c, local_day, row_number() OVER (PARTITION BY c ORDER BY local_day) - 1 AS place FROM (
  SELECT c, local_day FROM days WHERE s < ?
  QUALIFY row_number() OVER (PARTITION BY c ORDER BY local_day DESC) <= {RECENT_DAYS})
"""
_DECAYED = tuple((fact, view) for view in LAYOUT.views for fact in view.facts if fact.half_life_days is not None)


class Past:
    """The tidy tables, loaded and indexed once, from which facts at any moment are computed.

    Use as a context manager; it holds some 300 MB in DuckDB.
    """

    def __init__(self, history: Path, threads: int = 2) -> None:
        """Load the tables under `history`.

        Raises:
            FileNotFoundError: A tidy table is missing.
        """
        for name in ("lines", "sends", "redemptions", "profiles"):
            if not (history / f"{name}.parquet").is_file():
                raise FileNotFoundError(f"{history / name}.parquet is missing: make the tidy tables first (nba load).")
        self._con = connect(threads)
        self._con.execute(_PREPARE.format(history=history))
        found = self._con.execute("SELECT customer_id FROM households ORDER BY c").fetchall()
        self.customer_ids = np.array([row[0] for row in found], dtype=object)
        self.origin = float(self._one("SELECT origin FROM origin"))
        self.last_basket_at = float(self._one("SELECT max(s) FROM baskets"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._con.close()

    def _one(self, query: str) -> Any:
        row = self._con.execute(query).fetchone()
        if row is None or row[0] is None:
            raise ValueError("The tidy tables hold no baskets: make them anew (nba load).")
        return row[0]

    def _columns(self, query: str, moment: float) -> dict[str, NDArray[Any]]:
        found = self._con.execute(query, [moment]).fetchnumpy()
        return {name: _plain(values) for name, values in found.items()}

    def facts_at(self, moment: float) -> Floats:
        """Compute the facts of all customers from the events strictly before a moment.

        Args:
            moment: Unix seconds UTC.

        Returns:
            (LAYOUT.width, len(customer_ids)), NaN where nothing is known.
        """
        facts = np.full((LAYOUT.width, len(self.customer_ids)), np.nan)
        for chosen, query in _SCALARS:
            found = self._columns(query, moment)
            for fact in chosen:
                facts[LAYOUT.slices[fact.name].start, found["c"]] = found[fact.name]
        self._fill_aisles(facts, moment)
        self._fill_journey(facts, moment)
        self._fill_profiles(facts, moment)
        for fact, view in _DECAYED:
            block = facts[LAYOUT.slices[fact.name]]
            seconds = self.origin - facts[_anchor_row(view)]
            block *= np.exp2(seconds / ((fact.half_life_days or np.nan) * SECONDS_PER_DAY))
        return facts

    def _fill_aisles(self, facts: Floats, moment: float) -> None:
        facts[LAYOUT.slices["aisles_anchor_at"]] = facts[LAYOUT.slices["last_basket_at"]]
        for chosen, query in _PER_AISLE:
            found = self._columns(query, moment)
            for fact in chosen:
                place = LAYOUT.slices[fact.name]
                if fact.kind is not Kind.MOMENT:
                    # Who is known in the view and never bought in the aisle has bought there zero times.
                    facts[place, ~np.isnan(facts[_anchor_row(LAYOUT.view_of[fact.name])])] = 0.0
                facts[place.start + found["a"].astype(np.int64), found["c"]] = found[fact.name]

    def _fill_journey(self, facts: Floats, moment: float) -> None:
        found = self._columns(_DAYS, moment)
        facts[LAYOUT.slices["shopping_days"].start + found["place"], found["c"]] = found["local_day"]
        contacted = self._columns("SELECT c, min(s) AS s FROM contacts WHERE s < ? GROUP BY c", moment)
        seen = facts[LAYOUT.slices["first_basket_at"].start].copy()
        seen[contacted["c"]] = np.fmin(seen[contacted["c"]], contacted["s"])
        facts[LAYOUT.slices["first_seen_at"].start] = seen

    def _fill_profiles(self, facts: Floats, moment: float) -> None:
        found = self._columns("SELECT * FROM profiles WHERE s < ?", moment)
        for fact in PROFILE.facts:
            if fact.kind is Kind.ANCHOR:
                values = found["s"]
            elif fact.vocabulary:
                codes = {text: float(code) for code, text in enumerate(fact.vocabulary)}
                values = np.array([codes.get(text, np.nan) for text in found[fact.name]])
            else:
                values = found[fact.name]
            facts[LAYOUT.slices[fact.name].start, found["c"]] = values


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Turn a masked array (SQL NULLs) into one with NaN, or None for texts."""
    missing = np.ma.getmaskarray(values)
    known: NDArray[Any] = np.ma.getdata(values)
    if known.dtype.kind in "iufb" and not missing.any():
        return known
    plain = known.astype(object if known.dtype.kind in "OUT" else np.float64)
    plain[missing] = None if plain.dtype.kind == "O" else np.nan
    return plain


def _anchor_row(view: View | str) -> int:
    name = view if isinstance(view, str) else view.name
    facts = next(v.facts for v in LAYOUT.views if v.name == name)
    place: slice = LAYOUT.slices[next(f.name for f in facts if f.kind is Kind.ANCHOR)]
    return int(place.start)


def facts_at(history: Path, moment: datetime) -> tuple[NDArray[Any], Floats]:
    """Compute the facts of every customer known before a moment.

    Args:
        history: Folder of the tidy tables.
        moment: Only events strictly before it count; aware.

    Returns:
        Customer ids (n,), and facts (LAYOUT.width, n).
    """
    with Past(history) as past:
        facts = past.facts_at(moment.timestamp())
        known = ~np.isnan(facts).all(axis=0)
        return past.customer_ids[known], facts[:, known]

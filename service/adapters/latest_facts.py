"""The latest facts of all customers, from the lake, as of a moment. DuckDB reads; nothing of Feast is touched.

What Feast's offline store would join for that moment: of each view the row with the newest event timestamp that is not
ahead of it. Whether it is fresh enough is not decided here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import JOIN_KEY
from features.layout import Fact, Layout, View
from service.catalogue.population import Population


class NoFacts(Exception):
    """The lake has no facts yet."""


def latest_facts(lake: Path, layout: Layout, now: float, threads: int = 1) -> Population:
    """Read the latest facts as of `now`, customers in the order of their ids.

    Raises:
        NoFacts: There are none.
    """
    import duckdb

    tables: dict[str, Any] = {}
    with duckdb.connect(config={"threads": threads}) as connection:
        for view in layout.views:
            if list((lake / "facts" / view.name).glob("*.parquet")):
                tables[view.name] = _latest(connection, lake / "facts" / view.name, view, now)
    ids = sorted({customer for table in tables.values() for customer in table[JOIN_KEY].to_pylist()})
    if not ids:
        raise NoFacts(f"{lake / 'facts'} holds no facts; run `make demo` or `nba prepare` first")
    row_of = {customer: row for row, customer in enumerate(ids)}
    facts, times = np.full((layout.width, len(ids)), np.nan), np.full((len(layout.views), len(ids)), np.nan)
    for v, view in enumerate(layout.views):
        if view.name in tables:
            table = tables[view.name]
            rows = np.array([row_of[customer] for customer in table[JOIN_KEY].to_pylist()], dtype=np.int64)
            times[v, rows] = table["seconds"].to_numpy()
            for fact in view.facts:
                facts[layout.slices[fact.name], rows] = _numbers(table[fact.name].combine_chunks(), fact)
    return Population(tuple(ids), facts, times)


def _latest(connection: Any, folder: Path, view: View, now: float) -> Any:
    """Return a table of each customer's newest row of a view."""
    names = ", ".join(f'"{fact.name}"' for fact in view.facts)
    query = f"""
        SELECT {JOIN_KEY}, epoch(event_timestamp) AS seconds, {names}
        FROM read_parquet(?, union_by_name=true) WHERE event_timestamp <= ?
        QUALIFY row_number() OVER (PARTITION BY {JOIN_KEY} ORDER BY event_timestamp DESC, created DESC) = 1
        ORDER BY {JOIN_KEY}
    """
    found = connection.sql(query, params=[f"{folder}/*.parquet", datetime.fromtimestamp(now, UTC)])
    return found.to_arrow_table()


def _numbers(column: Any, fact: Fact) -> NDArray[np.float64]:
    """Turn a column into (length, n): texts into codes, lists into rows, null into NaN."""
    if fact.vocabulary:
        code = {text: float(i) for i, text in enumerate(fact.vocabulary)}
        return np.array([[code.get(text, np.nan) for text in column.to_pylist()]])
    if fact.length > 1:
        block = np.full((len(column), fact.length), np.nan)
        present = np.asarray(column.is_valid())
        flat = column.drop_null().flatten().to_numpy(zero_copy_only=False)
        block[present] = flat.reshape(-1, fact.length)
        return block.T
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)[None, :]

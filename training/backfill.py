"""Snapshots of all customers' facts at past moments, as Feast's offline store reads them.

Decides at which moments snapshots are worth taking and how they lie in the lake. It must not know how facts come about
(`past.py`), nor of models or labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from features.contract import JOIN_KEY, LAYOUT, UTC_OFFSET_HOURS
from features.layout import Fact, View
from training.past import Floats, Past, facts_at
from training.sources import connect

__all__ = ["BackfillSummary", "backfill", "facts_at", "snapshot_moments", "view_table"]


def snapshot_moments(history: Path) -> list[datetime]:
    """List the moments worth a snapshot: local Mondays, campaign starts, and one second after the last basket."""
    with connect() as con:
        first, last = con.execute(
            "SELECT epoch(min(occurred_at)), epoch(max(occurred_at)) FROM read_parquet(?)", [f"{history}/lines.parquet"]
        ).fetchall()[0]
        starts = con.execute("SELECT epoch(start_at) FROM read_parquet(?)", [f"{history}/campaigns.parquet"]).fetchall()
    local = timedelta(hours=UTC_OFFSET_HOURS)
    day = (datetime.fromtimestamp(first, UTC) + local).replace(hour=0, minute=0, second=0, microsecond=0)
    monday = day + timedelta(days=(7 - day.weekday()) % 7) - local
    end = datetime.fromtimestamp(int(last) + 1, UTC)
    mondays = (monday + timedelta(weeks=week) for week in range(int((end - monday) / timedelta(weeks=1)) + 1))
    campaigns = (datetime.fromtimestamp(row[0], UTC) for row in starts)
    return sorted({moment for moment in (*mondays, *campaigns, end) if first < moment.timestamp() <= end.timestamp()})


def view_table(view: View, customer_ids: NDArray[Any], facts: Floats, moment: datetime) -> pa.Table:
    """Lay one view's facts out as Feast reads them: one row a customer of whom the view knows anything.

    Texts and single numbers are null where missing; arrays always have their full length, with NaN where missing.
    """
    block = slice(LAYOUT.slices[view.facts[0].name].start, LAYOUT.slices[view.facts[-1].name].stop)
    known = ~np.isnan(facts[block]).all(axis=0)
    stamp = pa.array([moment] * int(known.sum()), pa.timestamp("us", tz="UTC"))
    columns: dict[str, Any] = {JOIN_KEY: pa.array(customer_ids[known], pa.string())}
    for fact in view.facts:
        columns[fact.name] = _arrow(fact, facts[LAYOUT.slices[fact.name]][:, known])
    return pa.table({**columns, "event_timestamp": stamp, "created": stamp})


def _arrow(fact: Fact, block: Floats) -> pa.Array:
    if fact.length > 1:
        offsets = pa.array(np.arange(0, block.size + 1, fact.length, dtype=np.int32))
        return pa.ListArray.from_arrays(offsets, pa.array(block.T.ravel()))
    if fact.vocabulary:
        texts = [None if np.isnan(code) else fact.vocabulary[int(code)] for code in block[0]]
        return pa.array(texts, pa.string())
    return pa.array(block[0], pa.float64(), from_pandas=True)


@dataclass(frozen=True, slots=True)
class BackfillSummary:
    """What a backfill wrote: moments, rows over all views, bytes."""

    moments: int
    rows: int
    size_bytes: int


def backfill(
    history: Path,
    lake: Path,
    moments: Sequence[datetime] | None = None,
    *,
    console: Console | None = None,
    threads: int = 2,
) -> BackfillSummary:
    """Write snapshots `lake/facts/<view>/<moment>.parquet` of all views, each file whole or not at all.

    Args:
        history: Folder of the tidy tables.
        lake: Root of the lake.
        moments: Aware moments; by default those of `snapshot_moments`. An existing snapshot is replaced.
        console: Where progress is shown; None shows nothing.
        threads: How many threads DuckDB may use.
    """
    chosen = snapshot_moments(history) if moments is None else moments
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = size = 0
    with Progress(*columns, console=console or Console(quiet=True)) as progress:
        task = progress.add_task("Loading the past", total=len(chosen))
        with Past(history, threads) as past:
            for moment in chosen:
                progress.update(task, description=f"Facts at {moment:%Y-%m-%d}")
                facts = past.facts_at(moment.timestamp())
                for view in LAYOUT.views:
                    table = view_table(view, past.customer_ids, facts, moment)
                    size += _write(
                        table, lake / "facts" / view.name / f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}.parquet"
                    )
                    rows += table.num_rows
                progress.advance(task)
    return BackfillSummary(len(chosen), rows, size)


def _write(table: pa.Table, path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)
    return path.stat().st_size

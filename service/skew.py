"""`nba skew`: facts as decisions were served with, against facts recomputed from the lake as of then, view by view.

Recomputed are the newest snapshot before the decision and, on top, the customer's events in the order of the journal.
Events are applied some milliseconds after they were acknowledged, so the facts served are those of some prefix of the
journal: one that lacks only events of the last `lag_seconds` is *in flight*, not skewed. Knows the lake; no store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from features.contract import LAYOUT
from features.facts import EVENT_TYPES, Floats, fold, unknown
from features.matrix import mask_stale
from service.adapters.latest_facts import NoFacts, latest_facts
from service.lake_files import files

TOLERANCE = 1e-9
_SAMPLE = """
SELECT decision_id, customer_id, decision_seconds, epoch_us(logged_at) / 1e6 AS logged_seconds, facts, view_times
FROM read_parquet({decisions}, union_by_name = true)
WHERE decision_seconds >= ? AND decision_seconds < ? AND NOT dry_run
  AND NOT list_contains(degraded_reasons, 'features_unavailable')
ORDER BY hash(decision_id), decision_id LIMIT ?
"""
_EVENTS = """
SELECT customer_id, type, epoch_us(occurred_at) / 1e6 AS seconds, epoch_us(logged_at) / 1e6 AS logged_seconds,
  properties
FROM read_parquet({events}, union_by_name = true) WHERE customer_id IN (SELECT unnest(?::VARCHAR[]))
ORDER BY customer_id, logged_at, split_part(journal_id, '-', 2)::BIGINT
"""


class Difference(NamedTuple):
    """The farthest of a view's facts: as served, as recomputed."""

    decision_id: str
    fact: str
    served: float
    recomputed: float


@dataclass
class ViewSkew:
    """How one view fared.

    Attributes:
        same, in_flight, skewed: Decisions. worst: The largest relative difference among the skewed, and where.
    """

    same: int = 0
    in_flight: int = 0
    skewed: int = 0
    worst: Difference | None = None
    distance: float = 0.0

    @property
    def verdict(self) -> str:
        """Return ok or skewed."""
        return "skewed" if self.skewed else "ok"

    def add(self, decision_id: str, served: Floats, recomputed: Floats, names: Sequence[str]) -> None:
        """Take down a skewed view of a decision."""
        self.skewed += 1
        far = distances(served, recomputed)
        at = int(np.argmax(far))
        if self.worst is None or far[at] > self.distance:
            self.distance = float(far[at])
            self.worst = Difference(decision_id, names[at], float(served[at]), float(recomputed[at]))


@dataclass
class Skew:
    """The finding over a sample of decisions."""

    decisions: int = 0
    views: dict[str, ViewSkew] = field(default_factory=lambda: {view.name: ViewSkew() for view in LAYOUT.views})

    @property
    def is_skewed(self) -> bool:
        """Say whether any view was."""
        return any(view.skewed for view in self.views.values())


def find_skew(
    lake: Path, since: float = -np.inf, until: float = np.inf, *, sample: int = 1_000, lag_seconds: float = 5.0
) -> Skew:
    """Compare a sample of the decisions of a time; the same lake gives the same sample.

    Args:
        since, until: Decision times, Unix seconds.
        lag_seconds: What was acknowledged so shortly before a decision may not have been applied yet.
    """
    import duckdb

    found, skew = files(lake, "decisions"), Skew()
    if not found:
        return skew
    bounds = [max(since, -1e12), min(until, 1e12), sample]
    with duckdb.connect(config={"threads": 1}) as con:
        rows = _rows(con, _SAMPLE.format(decisions=list(found)), bounds)
        told = files(lake, "events")
        customers = sorted({row["customer_id"] for row in rows})
        events = _rows(con, _EVENTS.format(events=list(told)), [customers]) if told else []
    by_customer: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        by_customer.setdefault(event["customer_id"], []).append(event)
    snapshots = Snapshots(lake)
    for row in rows:
        _compare(skew, row, snapshots, by_customer.get(row["customer_id"], []), lag_seconds)
    skew.decisions = len(rows)
    return skew


class Snapshots:
    """The facts that were materialized by a moment, read once for each."""

    def __init__(self, lake: Path) -> None:
        import duckdb

        self._lake = lake
        self._moments: list[float] = []
        if list(lake.glob("facts/*/*.parquet")):
            query = "SELECT DISTINCT epoch(event_timestamp) FROM read_parquet(?, union_by_name = true) ORDER BY ALL"
            self._moments = [m for (m,) in duckdb.execute(query, [f"{lake}/facts/*/*.parquet"]).fetchall()]
        self._read: dict[float, dict[str, Floats]] = {}

    def of(self, customer: str, at: float) -> tuple[Floats | None, float]:
        """Return the customer's facts in the newest snapshot not after a moment, and its own moment."""
        before = [moment for moment in self._moments if moment <= at]
        if not before:
            return None, -np.inf
        moment = before[-1]
        if moment not in self._read:
            try:
                found = latest_facts(self._lake, LAYOUT, moment)
            except NoFacts:
                return None, -np.inf
            self._read[moment] = {c: found.facts[:, i] for i, c in enumerate(found.customer_ids)}
        return self._read[moment].get(customer), moment


def _compare(
    skew: Skew, row: Mapping[str, Any], snapshots: Snapshots, events: Sequence[Mapping[str, Any]], lag_seconds: float
) -> None:
    served, times = np.frombuffer(row["facts"], "<f8"), np.frombuffer(row["view_times"], "<f8")
    base, moment = snapshots.of(row["customer_id"], row["decision_seconds"])
    prefixes = [unknown() if base is None else base.copy()]
    ages = [np.inf]
    for event in events:
        is_ours = event["type"] in EVENT_TYPES and event["seconds"] >= moment
        if is_ours and event["logged_seconds"] <= row["logged_seconds"]:
            properties = json.loads(event["properties"])
            known = {"type": event["type"], "occurred_at": event["seconds"], "properties": properties}
            prefixes.append(fold(prefixes[-1], known)[0])
            ages.append(row["logged_seconds"] - event["logged_seconds"])
    candidates = [prefixes[-1]]
    for k in range(len(prefixes) - 1, 0, -1):
        if ages[k] > lag_seconds:
            break
        candidates.append(prefixes[k - 1])
    for facts in candidates:
        mask_stale(LAYOUT, facts[:, None], times[:, None], row["decision_seconds"])
    for view in LAYOUT.views:
        names = [fact.name for fact in view.facts for _ in range(fact.length)]
        place = slice(LAYOUT.slices[view.facts[0].name].start, LAYOUT.slices[view.facts[-1].name].stop)
        matching = [
            k for k, facts in enumerate(candidates) if (distances(served[place], facts[place]) <= TOLERANCE).all()
        ]
        of_view = skew.views[view.name]
        if not matching:
            of_view.add(row["decision_id"], served[place], candidates[0][place], names)
        elif matching[0] == 0:
            of_view.same += 1
        else:
            of_view.in_flight += 1


def distances(one: Floats, other: Floats) -> Floats:
    """Return relative differences; infinite where only one of two numbers is missing."""
    is_missing = np.isnan(one), np.isnan(other)
    with np.errstate(invalid="ignore"):
        far = np.abs(one - other) / np.maximum(np.maximum(np.abs(one), np.abs(other)), 1e-300)
    far = np.where(one == other, 0.0, far)
    return np.where(is_missing[0] & is_missing[1], 0.0, np.where(is_missing[0] ^ is_missing[1], np.inf, far))


def _rows(con: Any, query: str, arguments: Sequence[Any]) -> list[dict[str, Any]]:
    found = con.execute(query, arguments)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

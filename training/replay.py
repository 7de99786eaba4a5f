"""Replays the past through the fold, in time order and in memory, and brings the facts online: no API, no journal.

The quick way to fill an online store from events, and the twin of `materialize`, which takes snapshots instead. Decides
nothing about facts: `features.facts` does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from features.facts import Floats, fold, unknown
from training.feast_steps import push
from training.sources import events, unix_seconds

if TYPE_CHECKING:
    from feast import FeatureStore

CHUNK = 1_000
"""Customers in one push: more only take more memory."""
SHOWN_EVERY = 5_000


class Replayed:
    """Customers' facts while events come in."""

    def __init__(self) -> None:
        self.facts: dict[str, Floats] = {}
        self.views: dict[str, frozenset[str]] = {}
        self.last_at: dict[str, float] = {}
        self.events = self.lines = 0

    def add(self, event: dict[str, Any]) -> None:
        """Fold one event, as `training.sources.events` gives it."""
        customer, at = event["customer_id"], unix_seconds(event["occurred_at"])
        known = self.facts.get(customer)
        row, touched = fold(unknown() if known is None else known, {**event, "occurred_at": at})
        self.facts[customer] = row
        self.views[customer] = self.views.get(customer, frozenset()) | touched
        self.last_at[customer] = max(self.last_at.get(customer, at), at)
        self.events += 1
        self.lines += len(event["properties"].get("lines", ()))

    def bring_online(self, store: FeatureStore | None = None) -> int:
        """Push every customer's views; a row older than the stored one is ignored by Feast. Returns rows pushed."""
        by_view: dict[str, list[str]] = {}
        for customer, views in self.views.items():
            for view in views:
                by_view.setdefault(view, []).append(customer)
        pushed = 0
        for view, customers in sorted(by_view.items()):
            for start in range(0, len(customers), CHUNK):
                some = customers[start : start + CHUNK]
                rows = {customer: self.facts[customer] for customer in some}
                pushed += push(view, rows, [self.last_at[customer] for customer in some], store)
        return pushed


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """What a replay did. `lines` are transactions: basket lines as the till wrote them."""

    events: int
    lines: int
    customers: int
    fold_seconds: float
    push_seconds: float

    @property
    def lines_per_second(self) -> float:
        """Transactions a second, from reading to online."""
        return self.lines / (self.fold_seconds + self.push_seconds)

    def __str__(self) -> str:
        return (
            f"{self.events:,} events with {self.lines:,} transactions of {self.customers:,} customers are online: "
            f"{self.lines_per_second:,.0f} transactions/s ({self.fold_seconds:.1f} s read and folded, "
            f"{self.push_seconds:.1f} s pushed)"
        )


def replay(
    history: Path,
    since: datetime | None = None,
    until: datetime | None = None,
    store: FeatureStore | None = None,
    *,
    console: Console | None = None,
) -> ReplaySummary:
    """Fold all events of a time, from nothing, and bring the facts online.

    Args:
        history: Folder of the tidy tables.
        since, until: First moment included and excluded; None: all.
        store: By default the store of this project.
        console: Where progress is shown; None shows nothing.
    """
    begun = time.perf_counter()
    replayed = fold_history(events(history, since, until), console)
    folded = time.perf_counter()
    replayed.bring_online(store)
    done = time.perf_counter()
    return ReplaySummary(replayed.events, replayed.lines, len(replayed.facts), folded - begun, done - folded)


def fold_history(past: Iterable[dict[str, Any]], console: Console | None = None) -> Replayed:
    """Fold events, from nothing, and show how far it is."""
    replayed = Replayed()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console or Console(quiet=True), transient=True) as progress:
        task = progress.add_task("Replaying", total=None)
        for event in past:
            replayed.add(event)
            if replayed.events % SHOWN_EVERY == 0:
                progress.update(task, description=f"Replaying {event['occurred_at'][:10]}: {replayed.events:,} events")
    return replayed

"""Brings events online as facts: read a customer's facts, fold, push through Feast, exactly once around a crash.

Before a push, its customers and their event timestamps are written down (the *intent*). Feast writes a view's row with
its timestamp in one command, so whoever finishes a half-done push sees which views of which customer carry that
timestamp, and pushes only the others. Not covered: a materialization that writes newer rows of the same customers
between reading and pushing wins, and the events of that push are then missing from the facts until the next backfill.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from features.contract import LAYOUT
from features.facts import EVENT_TYPES, Floats, fold
from service.adapters.connection import Link
from service.adapters.feast_reader import FactReader
from service.adapters.journal_entries import decode_event
from service.adapters.partition_owner import Entry, Intent, PartitionOwner
from service.ports import Clock, Event, FactPlan, StoreUnavailable

log = logging.getLogger("nba.worker")

READ_SECONDS = 5.0


class Push(Protocol):
    """Where facts are written."""

    def push(self, view: str, rows: Mapping[str, Floats], stamps: Mapping[str, int]) -> None:
        """Write customers' facts of one view, stamped in microseconds; older rows than the stored ones are ignored."""


class Known(NamedTuple):
    """A customer in the feature store: facts (LAYOUT.width,), and each view's timestamp in microseconds, 0 = never."""

    facts: Floats
    stamps: dict[str, int]


class Folded(NamedTuple):
    """A customer after their events: new facts, and the views that changed."""

    facts: Floats
    views: frozenset[str]


@dataclass
class FactStream:
    """Applies the events of owned partitions to the feature store.

    Args:
        features: Where Feast's hashes are read. plan: how. push: where facts are written.
    """

    owner: PartitionOwner
    features: Link
    plan: FactPlan
    push: Push
    clock: Clock

    def __post_init__(self) -> None:
        self._reader = FactReader(self.plan, LAYOUT)

    async def resume(self, partition: int) -> str:
        """Finish what a dead owner began to push. Returns the id of the last event that is applied."""
        applied, intent = await self.owner.progress(partition)
        if intent is None:
            return applied
        entries = await self.owner.entries(partition, applied, intent.last)
        events = [event for event in map(event_of, entries) if event is not None]
        known = await self._known(event.customer_id for event in events)
        rows: dict[str, dict[str, Floats]] = {}
        stamps = dict(intent.stamps)
        for customer, folded in fold_all(events, known).items():
            stamp = stamps.setdefault(customer, _next_stamp(known[customer]))
            for view in folded.views:
                if known[customer].stamps[view] != stamp:
                    rows.setdefault(view, {})[customer] = folded.facts
        await asyncio.to_thread(self._push_all, rows, stamps)
        await self.owner.applied({partition: intent.last})
        return intent.last

    async def apply(self, events: Mapping[int, Sequence[tuple[Entry, Event]]]) -> set[str]:
        """Fold events, by partition and in order, and push the facts: intent, push, applied.

        Returns:
            Ids of entries that could not be folded and were set aside.
        """
        if not events:
            return set()
        known = await self._known(event.customer_id for items in events.values() for _, event in items)
        now = round(self.clock.now() * 1e6)
        rows: dict[str, dict[str, Floats]] = {}
        stamps: dict[str, int] = {}
        intents: dict[int, Intent] = {}
        aside: set[str] = set()
        for partition, items in events.items():
            usable = []
            for entry, event in items:
                error = _fold_error(event, known)
                if error is None:
                    usable.append(event)
                else:
                    aside.add(entry.id)
                    await self.set_aside(partition, entry, error)
            folded = fold_all(usable, known)
            for customer, (facts, views) in folded.items():
                stamps[customer] = max(now, _next_stamp(known[customer]))
                for view in views:
                    rows.setdefault(view, {})[customer] = facts
            intents[partition] = Intent(items[-1][0].id, {customer: stamps[customer] for customer in folded})
        await self.owner.intend(intents)
        await asyncio.to_thread(self._push_all, rows, stamps)
        await self.owner.applied({partition: intent.last for partition, intent in intents.items()})
        return aside

    async def set_aside(self, partition: int, entry: Entry, error: Exception) -> None:
        """Move an entry that cannot be used to the poison stream, and say so."""
        log.error("partition %d: entry %s set aside: %s", partition, entry.id, error)
        await self.owner.set_aside(partition, entry, f"{type(error).__name__}: {error}")

    async def _known(self, customers: Iterable[str]) -> dict[str, Known]:
        names = sorted(set(customers))
        asked = [("HGETALL", self._reader.key(customer)) for customer in names]
        replies = await self.features.exchange(asked, deadline_seconds=READ_SECONDS, reason="features_unavailable")
        known = {}
        for customer, reply in zip(names, replies, strict=True):
            if not isinstance(reply, list):
                raise StoreUnavailable("features_unavailable", str(reply))
            facts, times = np.empty(LAYOUT.width), np.empty(len(LAYOUT.views))
            # As of the end of time: a row stamped ahead of the clock must be read here, or its facts would be lost.
            self._reader.decode(dict(zip(reply[::2], reply[1::2], strict=True)), math.inf, facts, times)
            stamps = {v.name: 0 if np.isnan(t) else round(t * 1e6) for v, t in zip(LAYOUT.views, times, strict=True)}
            known[customer] = Known(facts, stamps)
        return known

    def _push_all(self, rows: Mapping[str, Mapping[str, Floats]], stamps: Mapping[str, int]) -> None:
        for view, of_view in rows.items():
            self.push.push(view, of_view, stamps)


def event_of(entry: Entry) -> Event | None:
    """Return the event to be folded, or None where the entry is something else, such as a consent."""
    if entry.kind != "event":
        return None
    event = decode_event(entry.payload)
    return event if event.type in EVENT_TYPES else None


def fold_all(events: Iterable[Event], known: Mapping[str, Known]) -> dict[str, Folded]:
    """Fold events, in order, into the facts of their customers; customers of whom nothing changed are left out."""
    folded: dict[str, Folded] = {}
    for event in events:
        facts, views = folded.get(event.customer_id) or Folded(known[event.customer_id].facts, frozenset())
        facts, touched = fold(facts, _as_mapping(event))
        if touched or views:
            folded[event.customer_id] = Folded(facts, views | touched)
    return folded


def _next_stamp(customer: Known) -> int:
    """Return the least timestamp that Feast takes for every view: it drops what is not newer than the stored row."""
    return max(customer.stamps.values()) + 1


def _fold_error(event: Event, known: Mapping[str, Known]) -> Exception | None:
    """Try the event alone: what cannot be folded must not take the others of its batch with it."""
    try:
        fold(known[event.customer_id].facts, _as_mapping(event))
    except Exception as error:
        return error
    return None


def _as_mapping(event: Event) -> dict[str, Any]:
    return {"type": event.type, "occurred_at": event.occurred_at, "properties": event.properties}

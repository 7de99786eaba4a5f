"""Brings events online as facts: read a customer's facts, fold, write, exactly once around a crash.

Before a write, its customers and their event timestamps are written down (the *intent*). Whoever finishes a half-done
write sees which views of which customer carry that timestamp, and writes only the others. A customer of whom somebody
else wrote between reading and writing, such as a materialization, is read and folded once more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from features.facts import EVENT_TYPES, fold
from service.adapters.fact_store import Change, FactStore, Known
from service.adapters.journal_entries import decode_event
from service.adapters.partition_owner import Entry, Intent, PartitionOwner
from service.ports import Clock, Event, StoreUnavailable

log = logging.getLogger("nba.worker")

ATTEMPTS = 20
"""How often customers are read and folded again because somebody else wrote them meanwhile."""

Pending = dict[str, list[tuple[int, Entry, Event]]]
"""Customer -> (partition, entry, event), in order."""


@dataclass
class FactStream:
    """Applies the events of owned partitions to the feature store."""

    owner: PartitionOwner
    store: FactStore
    clock: Clock

    async def resume(self, partition: int) -> str:
        """Finish what a dead owner began to write. Returns the id of the last event that is applied."""
        applied, intent = await self.owner.progress(partition)
        if intent is None:
            return applied
        entries = await self.owner.entries(partition, applied, intent.last)
        events = {partition: [(entry, event) for entry in entries if (event := event_of(entry)) is not None]}
        await self._bring_online(events, {partition: intent.last}, dict(intent.stamps))
        return intent.last

    async def apply(self, events: Mapping[int, Sequence[tuple[Entry, Event]]]) -> set[str]:
        """Fold events, by partition and in order, and write the facts: intent, write, applied.

        Returns:
            Ids of entries that could not be folded and were set aside.
        """
        last = {partition: items[-1][0].id for partition, items in events.items()}
        return await self._bring_online(events, last, {}) if last else set()

    async def set_aside(self, partition: int, entry: Entry, error: Exception) -> None:
        """Move an entry that cannot be used to the poison stream, and say so."""
        log.error("partition %d: entry %s set aside: %s", partition, entry.id, error)
        await self.owner.set_aside(partition, entry, f"{type(error).__name__}: {error}")

    async def _bring_online(
        self, events: Mapping[int, Sequence[tuple[Entry, Event]]], last: Mapping[int, str], stamps: dict[str, int]
    ) -> set[str]:
        """Write what the events make of their customers; `stamps` are those of an intent that may be half done."""
        pending: Pending = {}
        for partition, items in events.items():
            for entry, event in items:
                pending.setdefault(event.customer_id, []).append((partition, entry, event))
        partition_of = {customer: items[0][0] for customer, items in pending.items()}
        stamps = {customer: stamp for customer, stamp in stamps.items() if customer in pending}
        aside: set[str] = set()
        waiting = pending
        for _ in range(ATTEMPTS):
            known = await self.store.read(waiting)
            changes = await self._fold(waiting, known, stamps, aside)
            intents: dict[int, dict[str, int]] = {partition: {} for partition in last}
            for customer, stamp in stamps.items():
                intents[partition_of[customer]][customer] = stamp
            await self.owner.intend({p: Intent(last[p], of_partition) for p, of_partition in intents.items()})
            refused = await self.store.write(changes)
            if not refused:
                await self.owner.applied(last)
                return aside
            waiting = {customer: pending[customer] for customer in refused}
            for customer in refused:
                del stamps[customer]
        raise StoreUnavailable("features_unavailable", f"{len(waiting)} customers are written by somebody else too")

    async def _fold(
        self, waiting: Pending, known: Mapping[str, Known], stamps: dict[str, int], aside: set[str]
    ) -> dict[str, Change]:
        """Return what changes of customers, and note the stamp of each that does; set aside what cannot be folded."""
        now = round(self.clock.now() * 1e6)
        changes: dict[str, Change] = {}
        for customer, items in waiting.items():
            before = known[customer]
            stamp = stamps.get(customer, 0)
            is_half_done = stamp > 0 and stamp in before.stamps.values()
            if stamp < next_stamp(before) and not is_half_done:
                stamp = max(now, next_stamp(before))
            facts, views = before.facts, frozenset[str]()
            for partition, entry, event in items:
                if entry.id in aside:
                    continue
                try:
                    facts, touched = fold(facts, _as_mapping(event))
                except Exception as error:  # what cannot be folded must not take the others of its batch with it
                    aside.add(entry.id)
                    await self.set_aside(partition, entry, error)
                else:
                    views |= touched
            left = frozenset(view for view in views if before.stamps[view] != stamp)
            if views:
                stamps[customer] = stamp
            if left:
                changes[customer] = Change(before, facts, left, stamp)
        return changes


def event_of(entry: Entry) -> Event | None:
    """Return the event to be folded, or None where the entry is something else, such as a consent."""
    if entry.kind != "event":
        return None
    event = decode_event(entry.payload)
    return event if event.type in EVENT_TYPES else None


def next_stamp(customer: Known) -> int:
    """Return the least timestamp that Feast takes for every view: it drops what is not newer than the stored row."""
    return max(customer.stamps.values()) + 1


def _as_mapping(event: Event) -> dict[str, Any]:
    return {"type": event.type, "occurred_at": event.occurred_at, "properties": event.properties}

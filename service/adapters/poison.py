"""Entries that the worker could not use: where they stand, with their errors, and back into the journal.

An entry is put back and taken off the list in one atomic step of its partition, so a crash never doubles or loses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.adapters import redis_keys as keys
from service.adapters.connection import Call, Link, Script
from service.adapters.journal_entries import as_text
from service.decision.record import PARTITIONS
from service.ports import StoreUnavailable

DEADLINE_SECONDS = 5.0
REASON = "log_unavailable"


class SetAside(NamedTuple):
    """An entry that was set aside.

    Attributes:
        id: In the partition's list. journal_id, kind, size: of the entry. error: why it could not be used.
    """

    partition: int
    id: str
    journal_id: str
    kind: str
    size: int
    error: str


async def set_aside(link: Link) -> list[SetAside]:
    """Return all entries that were set aside, oldest first within a partition. Raises StoreUnavailable."""
    asked = [("XRANGE", keys.of_partition(p, "poison"), "-", "+") for p in range(PARTITIONS)]
    replies = await link.exchange(asked, deadline_seconds=DEADLINE_SECONDS, reason=REASON)
    found = []
    for partition, entries in enumerate(replies):
        if not isinstance(entries, list):
            raise StoreUnavailable(REASON, str(entries))
        for entry_id, pairs in entries:
            values = {as_text(name): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)}
            said = [as_text(values.get(name, b"")) for name in ("id", "k", "error")]
            found.append(SetAside(partition, as_text(entry_id), said[0], said[1], len(values.get("v", b"")), said[2]))
    return found


async def apply_again(link: Link, entries: Sequence[SetAside]) -> int:
    """Put entries back at the end of their journals. Returns how many were; others were put back by somebody else."""
    script = Script.read("unpoison")
    calls = [
        Call(script, [keys.of_partition(e.partition, name) for name in ("poison", "journal")], [e.id]) for e in entries
    ]
    replies = await link.run(calls, deadline_seconds=DEADLINE_SECONDS, reason=REASON) if calls else []
    return sum(map(int, replies))

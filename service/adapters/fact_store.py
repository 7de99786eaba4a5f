"""What the worker needs of the feature store: read what is known of customers, write what changed of them.

Two stores fulfil it: `redis_facts` (Feast's own Redis layout, written directly) and `feast_push` (any online store,
through Feast's SDK). Both leave bytes that either reader of decisions takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from features.facts import Floats


class Known(NamedTuple):
    """A customer in the feature store.

    Attributes:
        facts: (LAYOUT.width,), NaN where missing.
        stamps: View -> its event timestamp in microseconds, 0 = never written.
        marks: Each view's timestamp field and its bytes as read, for stores that compare them; else empty.
    """

    facts: Floats
    stamps: Mapping[str, int]
    marks: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A customer after their events: new facts, the views that changed, the event timestamp in microseconds."""

    known: Known
    facts: Floats
    views: frozenset[str]
    stamp: int


class FactStore(Protocol):
    """Where facts are kept online."""

    async def read(self, customers: Iterable[str]) -> dict[str, Known]:
        """Read customers, each once. Raises StoreUnavailable."""

    async def write(self, changes: Mapping[str, Change]) -> set[str]:
        """Write what changed of customers; each customer whole or not at all where the store can.

        Returns:
            Customers of whom somebody else wrote since they were read: nothing of them was written.

        Raises:
            StoreUnavailable: What was written is then unknown; the stamps tell.
        """

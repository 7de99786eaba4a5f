"""`FactStore` on Feast's Redis layout: reads and writes a customer's hash as Feast itself would, many in one pipeline.

Feast's SDK takes some milliseconds a call and a tenth of one a row, and compares timestamps in one command and writes
in another. Here the comparison and the write of all views are one script a customer, so that a materialization or a
worker that lost its partition meanwhile is noticed and never overwritten. A test pins the bytes to what Feast writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import hiredis

from features.facts import Floats
from features.layout import Kind, Layout
from service.adapters.connection import Call, Link, Script
from service.adapters.fact_store import Change, Known
from service.adapters.feast_reader import FactReader, list_header, text_value, timestamp_value
from service.ports import FactPlan, StoreUnavailable

DEADLINE_SECONDS = 5.0
REASON = "features_unavailable"
PIPELINE = 500
"""Customers in one round trip."""
_DOUBLE = b"\x29"


class RedisFacts:
    """The hashes of customers on one server.

    Args:
        link: The feature store. plan: Where facts lie in it. layout: Where they lie in a row.
    """

    def __init__(self, link: Link, plan: FactPlan, layout: Layout) -> None:
        self.link = link
        self._layout = layout
        self._reader = FactReader(plan, layout)
        self._encoder = FactEncoder(plan, layout)
        self._script = Script.read("facts")

    async def read(self, customers: Iterable[str]) -> dict[str, Known]:
        """Read customers, each once. Raises StoreUnavailable."""
        names = list(dict.fromkeys(customers))
        known: dict[str, Known] = {}
        for start in range(0, len(names), PIPELINE):
            some = names[start : start + PIPELINE]
            asked = [("HGETALL", self._reader.key(customer)) for customer in some]
            replies = await self.link.exchange(asked, deadline_seconds=DEADLINE_SECONDS, reason=REASON)
            for reply in replies:
                if isinstance(reply, hiredis.ReplyError):
                    raise StoreUnavailable(REASON, str(reply))
            found = self._reader.rows(replies)
            for i, customer in enumerate(some):
                known[customer] = self._known(replies[i], found.facts[i], found.view_times[i])
        return known

    async def write(self, changes: Mapping[str, Change]) -> set[str]:
        """Write customers, each whole or not at all; return those that somebody else wrote meanwhile."""
        names = list(changes)
        refused: set[str] = set()
        for start in range(0, len(names), PIPELINE):
            some = names[start : start + PIPELINE]
            calls = [self._call(customer, changes[customer]) for customer in some]
            replies = await self.link.run(calls, deadline_seconds=DEADLINE_SECONDS, reason=REASON)
            refused.update(customer for customer, reply in zip(some, replies, strict=True) if not reply)
        return refused

    def _known(self, reply: Sequence[bytes], facts: Floats, times: Floats) -> Known:
        stamps = {
            view.name: 0 if time != time else round(time * 1e6)
            for view, time in zip(self._layout.views, times.tolist(), strict=True)
        }
        pairs = iter(reply)
        fields = dict(zip(pairs, pairs, strict=True))
        marks = [part for field in self._encoder.stamp_fields.values() for part in (field, fields.get(field, b""))]
        return Known(facts, stamps, tuple(marks))

    def _call(self, customer: str, change: Change) -> Call:
        marks = change.known.marks
        fields = self._encoder.fields(change.facts, change.views, change.stamp)
        return Call(self._script, [self._reader.key(customer)], [len(marks) // 2, *marks, *fields])


class FactEncoder:
    """Writes a row of facts as the fields and values of a customer's hash."""

    def __init__(self, plan: FactPlan, layout: Layout) -> None:
        field_of = {name: field for field, name in plan.fields.items()}
        self.stamp_fields = {view: field for field, view in plan.timestamps.items()}
        self._numbers: dict[str, list[tuple[bytes, int]]] = {}
        self._lists: dict[str, list[tuple[bytes, bytes, int, int]]] = {}
        self._texts: dict[str, list[tuple[bytes, int, list[bytes]]]] = {}
        for view in layout.views:
            facts = [(field_of[fact.name], layout.slices[fact.name], fact) for fact in view.facts]
            self._lists[view.name] = [
                (field, list_header(fact.length), 8 * place.start, 8 * place.stop)
                for field, place, fact in facts
                if fact.length > 1
            ]
            self._texts[view.name] = [
                (field, place.start, [text_value(text) for text in fact.vocabulary])
                for field, place, fact in facts
                if fact.kind is Kind.CATEGORY
            ]
            self._numbers[view.name] = [
                (field, place.start)
                for field, place, fact in facts
                if fact.length == 1 and fact.kind is not Kind.CATEGORY
            ]

    def fields(self, facts: Floats, views: Iterable[str], stamp: int) -> list[bytes]:
        """Return field, value, field, value, ... of some views, with their event timestamp in microseconds."""
        values, raw, moment = facts.tolist(), facts.astype("<f8", copy=False).tobytes(), timestamp_value(stamp)
        found: list[bytes] = []
        for view in views:
            found += (self.stamp_fields[view], moment)
            for field, row in self._numbers[view]:
                value = values[row]
                found += (field, _DOUBLE + raw[8 * row : 8 * row + 8] if value == value else b"")
            for field, header, start, stop in self._lists[view]:
                found += (field, header + raw[start:stop])
            for field, row, texts in self._texts[view]:
                value = values[row]
                found += (field, texts[int(value)] if value == value else b"")
        return found

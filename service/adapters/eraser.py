"""Removes one customer from everywhere: state store, feature store, streams, lake, snapshots. Safe to do again.

Decides where a customer can be and takes them out there, in an order that lets a second try find what a first one left:
the ids of the customer's decisions are read before the rows that hold them go. What is counted without a name stays.
Knows no route, no lease and no schedule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hiredis
import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.adapters import redis_keys as keys
from service.adapters.connection import Command, Link, Reply
from service.adapters.erasures import Pending
from service.adapters.journal_entries import as_text
from service.adapters.lake_upkeep import take_out, take_out_of_file
from service.adapters.partition_owner import Entry
from service.decision.record import partition_of
from service.lake_files import LOG_TABLES, files
from service.ports import FactPlan, StoreUnavailable

REASON = "state_unavailable"
DEADLINE_SECONDS = 10.0
PAGE = 500


class Eraser:
    """Takes customers out.

    Args:
        plan: Where Feast keeps a customer. var: Folder of everything the service writes; `lake` lies in it.
    """

    def __init__(self, state: Link, features: Link, plan: FactPlan, var: Path, lake: Path) -> None:
        self._state, self._features, self._plan, self._var, self._lake = state, features, plan, var, lake

    async def erase(self, pending: Pending) -> dict[str, int]:
        """Remove the customer. Returns how much was removed, by place. Raises StoreUnavailable, OSError.

        Everything that was logged of the customer must be in the lake by now.
        """
        customer = pending.customer_id
        decisions = await asyncio.to_thread(self._decisions_of, customer)
        removed = {
            "facts": await self._delete(self._features, [self._feast_key(customer)]),
            "contacts and consents": await self._delete(self._state, [keys.contacts(customer), keys.consent(customer)]),
            "decisions and answers": await self._delete(
                self._state, [name(d) for d in decisions for name in (keys.decision, keys.answer, keys.parked)]
            ),
            "journal": await self._take_out_of_stream(customer, "journal", decisions),
            "poison": await self._take_out_of_stream(customer, "poison", decisions),
        }
        removed |= await asyncio.to_thread(self._take_out_of_files, customer, decisions)
        for link in {self._state, self._features}:  # the append-only file still holds what was written
            await link.exchange([("BGREWRITEAOF",)], deadline_seconds=DEADLINE_SECONDS, reason=REASON)
        return removed

    def _feast_key(self, customer: str) -> bytes:
        said = customer.encode()
        return self._plan.key_prefix + len(said).to_bytes(4, "little") + said + self._plan.key_suffix

    def _decisions_of(self, customer: str) -> list[str]:
        found: list[str] = []
        for path in files(self._lake, "decisions"):
            mine = pq.read_table(path, columns=["decision_id"], filters=pc.field("customer_id") == customer)
            found += mine["decision_id"].to_pylist()
        return found

    def _take_out_of_files(self, customer: str, decisions: Sequence[str]) -> dict[str, int]:
        is_theirs = pc.field("customer_id") == customer
        of_outcomes = is_theirs | pc.field("decision_id").isin(decisions) if decisions else is_theirs
        removed = {
            "decision log": take_out(self._lake, "decisions", is_theirs, ["customer_id"]),
            "outcomes": take_out(self._lake, "outcomes", of_outcomes, ["customer_id", "decision_id"]),
            "events": take_out(self._lake, "events", is_theirs, ["customer_id"]),
            "shadows": take_out(self._lake, "shadows", is_theirs, ["customer_id"]),
            "snapshots and files": 0,
        }
        for path in other_files(self._var, self._lake):
            removed["snapshots and files"] += take_out_of_file(path, is_theirs, ["customer_id"])
        return removed

    async def _take_out_of_stream(self, customer: str, name: str, decisions: Sequence[str]) -> int:
        """Remove a customer's entries from a stream of their partition."""
        stream = keys.of_partition(partition_of(customer), name)
        mine = [entry.id for entry in await entries_of(self._state, stream, {customer, *decisions})]
        if not mine:
            return 0
        [removed] = await _ask(self._state, [("XDEL", stream, *mine)])
        return int(removed)

    async def _delete(self, link: Link, names: Sequence[str | bytes]) -> int:
        pages = [names[i : i + PAGE] for i in range(0, len(names), PAGE)]
        return sum([sum(await _ask(link, [("DEL", name) for name in page])) for page in pages])


def other_files(var: Path, lake: Path) -> list[Path]:
    """Return the Parquet files beside the log: fact snapshots, history, what batches and exports wrote."""
    log = [lake / name for name in (*LOG_TABLES, "commits")]
    found = sorted({*var.rglob("*.parquet"), *lake.rglob("*.parquet")})
    return [path for path in found if path.is_file() and not any(path.is_relative_to(folder) for folder in log)]


async def entries_of(link: Link, stream: str, ids: set[str]) -> list[Entry]:
    """Return the entries of a stream in which one of the ids stands as a text. Raises StoreUnavailable."""
    after, mine = "-", []
    while True:
        [page] = await _ask(link, [("XRANGE", stream, after, "+", "COUNT", PAGE)])
        for entry_id, pairs in page:
            values = dict(zip(pairs[::2], pairs[1::2], strict=True))
            if _names_any(values.get(b"v", b""), ids):
                mine.append(Entry(as_text(entry_id), as_text(values.get(b"k", b"")), values.get(b"v", b"")))
        if len(page) < PAGE:
            return mine
        after = f"({as_text(page[-1][0])}"


async def _ask(link: Link, commands: Sequence[Command]) -> list[Reply]:
    replies = await link.exchange(commands, deadline_seconds=DEADLINE_SECONDS, reason=REASON)
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise StoreUnavailable(REASON, str(reply))
    return replies


def _names_any(payload: bytes, ids: set[str]) -> bool:
    """Say whether one of the ids is a text of the payload; one that cannot be read is searched as it is."""
    try:
        return not ids.isdisjoint(_texts_in(msgspec.msgpack.decode(payload)))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return any(name.encode() in payload for name in ids)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts_in(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts_in(inner)

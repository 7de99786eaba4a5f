"""One process's hold on partitions of the journal: lease with fencing token, reading, progress, trimming.

Knows streams and keys (`redis_keys.py`), not what is in an entry. Whatever it changes is refused by the server once the
partition belongs to another owner.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import hiredis
import msgspec

from service.adapters import redis_keys as keys
from service.adapters.connection import Call, Command, Link, Reply, Script
from service.adapters.journal_entries import as_text
from service.ports import StoreUnavailable

REASON = "log_unavailable"
DEADLINE_SECONDS = 5.0
NOTHING = "0-0"


class NotOwner(Exception):
    """The partition belongs to another process by now: what was about to be done must not be done."""


class Entry(NamedTuple):
    """An entry of the journal."""

    id: str
    kind: str
    payload: bytes


class Intent(msgspec.Struct, frozen=True):
    """What an owner is about to push to the feature store, written down first: after a crash it tells what was pushed.

    Attributes:
        last: Journal id of the last event in the push.
        stamps: customer id -> event timestamp of the push in microseconds; a view that carries it has been pushed.
    """

    last: str
    stamps: dict[str, int]


class Progress(NamedTuple):
    """How far facts were applied: the last applied event, and a push that may be half done."""

    applied: str
    intent: Intent | None


class Taken(NamedTuple):
    """What a call of `take` changed.

    Attributes:
        gained: Newly owned. lost: owned by another meanwhile. surplus: still owned, more than the fair share: to be
            finished and given back.
    """

    gained: set[int]
    lost: set[int]
    surplus: set[int]


class PartitionOwner:
    """Owns a fair share of the partitions on behalf of this process: all of n workers agree on who may have how many.

    Args:
        lease_seconds: How long a dead owner's partitions stay its own.
        fence_of: The greatest token that a partition's lake has seen.
    """

    def __init__(
        self, link: Link, *, lease_seconds: float = 10.0, fence_of: Callable[[int], int] = lambda partition: 0
    ) -> None:
        self._link = link
        self._lease_ms = int(lease_seconds * 1000)
        self._script, self._workers = Script.read("partition"), Script.read("workers")
        self._fence_of = fence_of
        self.name = secrets.token_hex(8)
        self.tokens: dict[int, int] = {}

    async def take(self, partitions: Iterable[int]) -> Taken:
        """Renew what is held, and take what is free up to the fair share."""
        wanted = list(partitions)
        [names] = await self._run([Call(self._workers, [keys.WORKERS], [self.name, self._lease_ms])])
        rank, share = names.index(self.name.encode()), len(wanted) // len(names)
        quota = share + (rank < len(wanted) % len(names))
        before = dict(self.tokens)
        self.tokens = await self._take(sorted(before))
        lost = {p for p in before if self.tokens.get(p) != before[p]}
        if len(self.tokens) < quota:
            others = [p for p in wanted if p not in self.tokens]
            free = await self._free(others[rank * share :] + others[: rank * share])
            self.tokens.update(await self._take(free[: quota - len(self.tokens)]))
        gained = {p for p, token in self.tokens.items() if before.get(p) != token}
        return Taken(gained, lost, set(sorted(set(self.tokens) - gained)[quota:]))

    async def give(self, partitions: Iterable[int]) -> None:
        """Let others take some partitions at once."""
        tokens = {p: self.tokens.pop(p) for p in partitions if p in self.tokens}
        await self._run([self._call(p, "give", f"{self.name}|{token}") for p, token in tokens.items()])

    async def leave(self) -> None:
        """Let others take all partitions at once, and count no more."""
        await self.give(list(self.tokens))
        await self._run([Call(self._workers, [keys.WORKERS], [self.name, 0])])

    async def check(self, partition: int) -> None:
        """Make sure that the partition is still owned. Raises NotOwner."""
        await self._guarded([(partition, "check", ())])

    async def _take(self, partitions: Sequence[int]) -> dict[int, int]:
        calls = [self._call(p, "take", self.name, self._lease_ms, self._fence_of(p)) for p in partitions]
        return {p: token for p, token in zip(partitions, await self._run(calls), strict=True) if token}

    async def _free(self, partitions: Sequence[int]) -> list[int]:
        """Return those without a lease, or with one of this very process that it forgot."""
        [leases] = await self._ask([("MGET", *(keys.of_partition(p, "lease") for p in partitions))], DEADLINE_SECONDS)
        own = f"{self.name}|".encode()
        return [p for p, lease in zip(partitions, leases, strict=True) if lease is None or lease.startswith(own)]

    async def read(
        self, after: Mapping[int, str], *, count: int, block_seconds: float | None = None
    ) -> dict[int, list[Entry]]:
        """Read up to `count` entries of each partition after its id; wait up to `block_seconds` for the first."""
        if not after:
            return {}
        partition_of = {keys.of_partition(p, "journal").encode(): p for p in after}
        block = () if block_seconds is None else ("BLOCK", max(int(block_seconds * 1000), 1))
        command: Command = ("XREAD", "COUNT", count, *block, "STREAMS", *partition_of, *after.values())
        [streams] = await self._ask([command], DEADLINE_SECONDS + (block_seconds or 0.0))
        return {partition_of[key]: _entries(found) for key, found in streams or ()}

    async def entries(self, partition: int, after: str, last: str) -> list[Entry]:
        """Read the entries after one id up to and with another."""
        command: Command = ("XRANGE", keys.of_partition(partition, "journal"), f"({after}", last)
        [found] = await self._ask([command], DEADLINE_SECONDS)
        return _entries(found)

    async def progress(self, partition: int) -> Progress:
        """Return how far facts were applied."""
        names = (keys.of_partition(partition, "applied"), keys.of_partition(partition, "intent"))
        [[applied, intent]] = await self._ask([("MGET", *names)], DEADLINE_SECONDS)
        return Progress(
            as_text(applied or NOTHING), None if intent is None else msgspec.msgpack.decode(intent, type=Intent)
        )

    async def intend(self, intents: Mapping[int, Intent]) -> None:
        """Write down what is about to be pushed. Raises NotOwner."""
        await self._guarded([(p, "intend", (msgspec.msgpack.encode(intent),)) for p, intent in intents.items()])

    async def applied(self, last: Mapping[int, str]) -> None:
        """Write down that all events up to an id are in the feature store. Raises NotOwner."""
        await self._guarded([(p, "applied", (entry_id,)) for p, entry_id in last.items()])

    async def trim(self, partition: int, last: str) -> None:
        """Remove the entries up to and with an id, which are in the lake. Raises NotOwner."""
        milliseconds, _, sequence = last.partition("-")
        await self._guarded([(partition, "trim", (f"{milliseconds}-{int(sequence) + 1}",))])

    async def set_aside(self, partition: int, entry: Entry, error: str) -> None:
        """Move an entry that cannot be used to the partition's poison stream. Raises NotOwner."""
        await self._guarded([(partition, "aside", (entry.id, entry.kind, entry.payload, error[:500]))])

    async def forgotten(self, partition: int, receipt_id: str) -> None:
        """Take an erasure that is done off the list. Raises NotOwner."""
        await self._guarded([(partition, "forgotten", (receipt_id,))])

    async def _guarded(self, operations: Sequence[tuple[int, str, tuple[str | bytes, ...]]]) -> None:
        calls = []
        for partition, operation, arguments in operations:
            token = self.tokens.get(partition)
            if token is None:
                raise NotOwner(f"partition {partition}")
            calls.append(self._call(partition, operation, f"{self.name}|{token}", *arguments))
        replies = await self._run(calls)
        refused = [operation[0] for operation, reply in zip(operations, replies, strict=True) if not reply]
        if refused:
            raise NotOwner(f"partitions {refused}")

    def _call(self, partition: int, operation: str, *arguments: str | bytes | int) -> Call:
        names = ("lease", "fence", "applied", "intent", "journal", "poison", "erasures")
        return Call(self._script, [keys.of_partition(partition, name) for name in names], [operation, *arguments])

    async def _run(self, calls: Sequence[Call]) -> list[Reply]:
        return await self._link.run(calls, deadline_seconds=DEADLINE_SECONDS, reason=REASON) if calls else []

    async def _ask(self, commands: Sequence[Command], deadline_seconds: float) -> list[Reply]:
        replies = await self._link.exchange(commands, deadline_seconds=deadline_seconds, reason=REASON)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise StoreUnavailable(REASON, str(reply))
        return replies


def _entries(found: Sequence[Reply]) -> list[Entry]:
    """Read stream entries; one without our two fields keeps its place with an empty kind, to be set aside."""
    entries = []
    for entry_id, pairs in found:
        values = dict(zip(pairs[::2], pairs[1::2], strict=True))
        entries.append(Entry(as_text(entry_id), as_text(values.get(b"k", b"")), values.get(b"v", b"")))
    return entries

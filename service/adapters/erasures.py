"""What was asked to be forgotten: tombstones, pending erasures, receipts. Knows keys and files; the worker does it.

A customer's tombstone is a keyed hash, so neither Redis nor a receipt holds the id once the erasure is done. Receipts
are signed with the same key and lie in the lake, from where tombstones come back into an empty store.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from service.adapters import redis_keys as keys
from service.adapters.connection import Call, Command, Link, Reply, Script
from service.adapters.durable import replaced_file
from service.adapters.journal_entries import as_text
from service.adapters.seal import Seal
from service.answer import iso
from service.decision.record import PARTITIONS, partition_of
from service.ports import StoreUnavailable

REASON = "state_unavailable"
DEADLINE_SECONDS = 5.0
RECEIPTS = "erasures"


class Pending(NamedTuple):
    """An erasure that is not done.

    Attributes:
        digest: Keyed hash of the customer. after: id of the partition's last journal entry when it was asked for.
    """

    receipt_id: str
    customer_id: str
    digest: str
    asked_at: float
    asked_by: str
    after: str


class Erasures:
    """Asks for erasures and says how far they are.

    Args:
        lake: Where receipts are kept.
    """

    def __init__(self, link: Link, lake: Path, seal: Seal) -> None:
        self._link, self._lake, self.seal = link, lake, seal
        self._erase = Script.read("erase")

    async def ask(self, customer_id: str, asked_by: str, now: float) -> str:
        """Block the customer and have the worker forget them. Returns the receipt's id. Raises StoreUnavailable."""
        partition = partition_of(customer_id)
        tombstone = keys.erased(partition, self.seal.digest(customer_id))
        names = [keys.of_partition(partition, name) for name in ("erasures", "journal")]
        call = Call(
            self._erase,
            [tombstone, *names, keys.contacts(customer_id), keys.consent(customer_id)],
            [
                self.seal.digest(customer_id),
                f"{partition:02d}-{secrets.token_hex(16)}",
                customer_id,
                repr(now),
                asked_by,
            ],
        )
        [receipt_id] = await self._link.run([call], deadline_seconds=DEADLINE_SECONDS, reason=REASON)
        return as_text(receipt_id)

    async def find(self, receipt_id: str) -> dict[str, Any] | None:
        """Return what is known of an erasure, `status` pending or done, or None. Raises StoreUnavailable."""
        partition = partition_of_receipt(receipt_id)
        if partition is None:
            return None
        for pending in await self.pending([partition]):  # first: the last step of an erasure takes it off this list
            if pending.receipt_id == receipt_id:
                return _said(pending)
        return self.receipt(receipt_id)

    def receipt(self, receipt_id: str) -> dict[str, Any] | None:
        """Return the receipt of an erasure that is done, or None."""
        if partition_of_receipt(receipt_id) is None:
            return None
        try:
            found: dict[str, Any] = json.loads((self._lake / RECEIPTS / f"{receipt_id}.json").read_bytes())
        except FileNotFoundError:
            return None
        return found

    async def pending(self, partitions: list[int]) -> list[Pending]:
        """Return the erasures of some partitions that are not done. Raises StoreUnavailable."""
        asked = [("HGETALL", keys.of_partition(p, "erasures")) for p in partitions]
        found = []
        for reply in await self._ask(asked):
            for receipt_id, packed in zip(reply[::2], reply[1::2], strict=True):
                customer_id, digest, asked_at, asked_by, after = msgspec.msgpack.decode(packed, type=list[str])
                found.append(Pending(as_text(receipt_id), customer_id, digest, float(asked_at), asked_by, after))
        return sorted(found, key=lambda pending: pending.asked_at)

    def write_receipt(self, pending: Pending, removed: Mapping[str, int], now: float) -> dict[str, Any]:
        """Write down, signed, what was removed where; the customer is named by the keyed hash only."""
        receipt = self.seal.sign({**_said(pending), "status": "done", "done_at": iso(now), "removed": dict(removed)})
        folder = self._lake / RECEIPTS
        folder.mkdir(parents=True, exist_ok=True)
        with replaced_file(folder / f"{pending.receipt_id}.json") as file:
            file.write(json.dumps(receipt, sort_keys=True).encode())
        return receipt

    async def restore(self) -> int:
        """Put the tombstones of all receipts into the store, e.g. one that was lost. Returns how many were missing."""
        commands = []
        for path in (self._lake / RECEIPTS).glob("*.json"):
            receipt, partition = json.loads(path.read_bytes()), partition_of_receipt(path.stem)
            if partition is not None:
                commands.append(("SETNX", keys.erased(partition, receipt["customer"]), receipt["receipt_id"]))
        return sum(int(is_new) for is_new in await self._ask(commands))

    async def _ask(self, commands: Sequence[Command]) -> list[Reply]:
        if not commands:
            return []
        replies = await self._link.exchange(commands, deadline_seconds=DEADLINE_SECONDS, reason=REASON)
        for reply in replies:
            if isinstance(reply, Exception):
                raise StoreUnavailable(REASON, str(reply))
        return replies


def partition_of_receipt(receipt_id: str) -> int | None:
    """Return the partition that a receipt's id carries, or None where the text is no such id."""
    head, _, token = receipt_id.partition("-")
    if len(head) != 2 or not head.isdecimal() or len(token) != 32 or not set(token) <= set("0123456789abcdef"):
        return None
    return int(head) if int(head) < PARTITIONS else None


def _said(pending: Pending) -> dict[str, Any]:
    return {
        "receipt_id": pending.receipt_id,
        "customer": pending.digest,
        "status": "pending",
        "asked_at": iso(pending.asked_at),
        "asked_by": pending.asked_by,
    }

"""What a worker does beside following the journal: it forgets customers and keeps the lake in few files.

Decides when: an erasure once everything of its customer is in the lake, one at a time; compaction and retention by the
owner of partition 0, so that one worker of many does it. All runs beside the loop; whatever fails is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from service.adapters.eraser import Eraser
from service.adapters.erasures import Erasures, Pending
from service.adapters.lake_upkeep import compact, prune
from service.adapters.partition_owner import NotOwner, PartitionOwner
from service.decision.record import partition_of
from service.ports import StoreUnavailable

log = logging.getLogger("nba.worker")

UPKEEP_SECONDS = 60.0
KEEPER = 0
"""Who owns this partition keeps the lake."""


@dataclass
class Upkeep:
    """The work beside the journal.

    Args:
        retention_days: Table -> days that it keeps.
    """

    owner: PartitionOwner
    erasures: Erasures
    eraser: Eraser
    lake: Path
    retention_days: Mapping[str, int]
    clock: Callable[[], float] = time.time
    _erasing: asyncio.Task[None] | None = None
    _keeping: asyncio.Task[None] | None = None
    _keep_at: float = field(default_factory=lambda: time.monotonic() + UPKEEP_SECONDS)

    async def pending(self) -> list[Pending]:
        """Return the erasures of owned partitions that nobody works on. Raises StoreUnavailable."""
        if self._erasing is not None and not self._erasing.done():
            return []
        return await self.erasures.pending(sorted(self.owner.tokens))

    def erase(self, pending: Pending) -> None:
        """Begin to remove a customer of whom everything is in the lake; does nothing while another is removed."""
        if self._erasing is None or self._erasing.done():
            self._erasing = asyncio.create_task(self._erase(pending))

    def keep(self) -> None:
        """Begin to keep the lake when it is time to."""
        is_busy = self._keeping is not None and not self._keeping.done()
        if KEEPER in self.owner.tokens and not is_busy and time.monotonic() >= self._keep_at:
            self._keep_at = time.monotonic() + UPKEEP_SECONDS
            self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Let go of what is under way: the next worker begins it again."""
        for task in (self._erasing, self._keeping):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _erase(self, pending: Pending) -> None:
        partition = partition_of(pending.customer_id)
        try:
            removed = await self.eraser.erase(pending)
            await self.owner.check(partition)
            await asyncio.to_thread(self.erasures.write_receipt, pending, removed, self.clock())
            await self.owner.forgotten(partition, pending.receipt_id)
            log.info("erasure %s is done", pending.receipt_id)
        except (NotOwner, StoreUnavailable, OSError) as error:
            log.warning("erasure %s is tried again: %s", pending.receipt_id, error)
        except Exception:
            log.exception("erasure %s failed and is tried again", pending.receipt_id)

    async def _keep(self) -> None:
        try:
            now = self.clock()
            for done in await asyncio.to_thread(compact, self.lake, now):
                log.info("%s: %d files became %d", done.table, done.before, done.after)
            if self.retention_days:
                for table, count in (await asyncio.to_thread(prune, self.lake, self.retention_days, now)).items():
                    log.info("%s: %d files are beyond retention", table, count)
        except OSError as error:
            log.warning("the lake is kept later: %s", error)
        except Exception:
            log.exception("the lake could not be kept")

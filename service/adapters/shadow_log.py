"""`ports.ShadowLog` on the journal's Redis streams: a pipeline of scripts, of which each appends one shadow."""

from __future__ import annotations

from collections.abc import Sequence

from service.adapters import redis_keys as keys
from service.adapters.connection import Call, Link, Script
from service.adapters.journal_entries import encode
from service.adapters.seal import Seal
from service.decision.record import partition_of
from service.ports import Shadow

DEADLINE_SECONDS = 1.0


class JournalShadows:
    """Appends to the partitioned journal; neither obeys the state's breaker nor tells it, since nobody waits.

    Args:
        state: The server of the journal. seal: Under which erased customers are known.
    """

    def __init__(self, state: Link, seal: Seal) -> None:
        self._state, self._seal = state, seal
        self._shadow = Script.read("shadow")

    async def append(self, shadows: Sequence[Shadow]) -> int:
        """Append them but for customers who are to be forgotten; return how many. Raises StoreUnavailable."""
        calls = [self._call(shadow) for shadow in shadows]
        appended = await self._state.run(
            calls, deadline_seconds=DEADLINE_SECONDS, reason="log_unavailable", is_guarded=False
        )
        return sum(appended)

    def _call(self, shadow: Shadow) -> Call:
        partition = partition_of(shadow.customer_id)
        names = [keys.of_partition(partition, "journal"), keys.erased(partition, self._seal.digest(shadow.customer_id))]
        return Call(self._shadow, names, [encode(shadow)])

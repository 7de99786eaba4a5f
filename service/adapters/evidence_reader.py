"""Reads what came in of every action since its model was made, in the background, so that no decision waits for it.

Every partition has a hash of exponentially decayed sums, written by the script that takes outcomes (`redis_keys.py`
says how). They are read again only where a hash's version moved, and added up over the partitions as of the reading.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence

import hiredis
import numpy as np

from features.layout import SECONDS_PER_DAY
from service.adapters import redis_keys as keys
from service.adapters.connection import Command, Link, Reply
from service.decision.compiled import CompiledCatalogue
from service.decision.model import Evidence
from service.decision.record import PARTITIONS
from service.ports import Clock, StoreUnavailable

log = logging.getLogger("nba")
AGE_SECONDS = 60.0
"""Sums are decayed to the present at least this often, also where nothing comes in."""
EXPECTED, VERSION = "expected", "version"
Sums = dict[tuple[str, str], tuple[float, float]]
"""(action id, kind) -> (sum, the moment it is anchored at)."""


class EvidenceReader:
    """Implements `ports.EvidenceSource`.

    Args:
        state: The server of the journal. clock: As of when sums are told. deadline_seconds: For a pipeline.
    """

    def __init__(self, state: Link, clock: Clock, *, deadline_seconds: float = 1.0) -> None:
        self._state, self._clock, self._deadline_seconds = state, clock, deadline_seconds
        self._versions: list[Reply] = [None] * PARTITIONS
        self._sums: list[Sums] = [{} for _ in range(PARTITIONS)]
        self._read_at = 0.0
        self._told: tuple[CompiledCatalogue, Evidence] | None = None

    def of(self, catalogue: CompiledCatalogue) -> Evidence:
        """Return the evidence of a catalogue's actions as of the last reading."""
        if self._told is None or self._told[0] is not catalogue:
            self._told = (catalogue, self._add_up(catalogue))
        return self._told[1]

    async def look(self) -> None:
        """Read what moved. Raises StoreUnavailable: what was read before then stands."""
        hashes = [keys.of_partition(partition, "evidence") for partition in range(PARTITIONS)]
        versions = await self._ask([("HGET", name, VERSION) for name in hashes])
        moved = [p for p in range(PARTITIONS) if versions[p] != self._versions[p]]
        now = self._clock.now()
        if not moved and now - self._read_at < AGE_SECONDS:
            return
        found = await self._ask([("HGETALL", hashes[p]) for p in moved]) if moved else []
        for partition, reply in zip(moved, found, strict=True):
            self._sums[partition] = dict(_sums(reply))
            self._versions[partition] = versions[partition]
        self._read_at = now
        if self._told is not None:  # in a thread: what decides meanwhile goes on with the reading before
            self._told = (self._told[0], await asyncio.to_thread(self._add_up, self._told[0]))

    async def follow(self, every_seconds: float) -> None:
        """Look again and again; while the store is away the last reading stands."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await self.look()
            except StoreUnavailable:
                continue
            except Exception:  # evidence steers exploration alone: a defect here must not end it for good
                log.exception("evidence could not be read, the last reading stands")

    async def _ask(self, commands: Sequence[Command]) -> list[Reply]:
        replies = await self._state.exchange(
            commands, deadline_seconds=self._deadline_seconds, reason="state_unavailable", is_guarded=False
        )
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise StoreUnavailable("state_unavailable", str(reply))
        return replies

    def _add_up(self, catalogue: CompiledCatalogue) -> Evidence:
        actions = catalogue.catalogue.actions
        half_life_seconds = catalogue.catalogue.exploration.half_life_days * SECONDS_PER_DAY
        evidence = Evidence.none(len(actions))
        for i, action in enumerate(actions):
            evidence.positives[i] = self._total(action.id, action.positive, half_life_seconds)
            evidence.expected[i] = self._total(action.id, EXPECTED, half_life_seconds)
        return evidence

    def _total(self, action_id: str, kind: str, half_life_seconds: float) -> float:
        found = [sums[action_id, kind] for sums in self._sums if (action_id, kind) in sums]
        if not found:
            return 0.0
        values, anchors = np.array(found).T
        return float((values * np.exp2(-np.maximum(self._read_at - anchors, 0.0) / half_life_seconds)).sum())


def _sums(reply: Sequence[bytes]) -> Iterator[tuple[tuple[str, str], tuple[float, float]]]:
    for name, value in zip(reply[::2], reply[1::2], strict=True):
        action_id, separator, kind = name.decode().partition("|")
        if separator:
            total, anchor = value.split(b"|")
            yield (action_id, kind), (float(total), float(anchor))

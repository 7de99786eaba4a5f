"""Finds a logged decision: in the journal while it is there, in the lake afterwards; and the catalogues of then.

Decides where to look. A decision is found as long as outcomes find theirs. Knows nothing of what a decision means.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from service.adapters.redis_state import RedisState
from service.catalogue.loader import load_catalogue
from service.decision.log_columns import from_columns
from service.decision.model import Catalogue
from service.decision.record import DecisionRow, partition_of_decision

_VERSION = re.compile(r"[0-9a-f]{8,64}")


class StoredDecisions:
    """Implements `service.ports.DecisionLog` over the state store and the lake."""

    def __init__(self, state: RedisState, lake: Path) -> None:
        self._state, self._lake = state, lake

    async def find(self, decision_id: str) -> DecisionRow | None:
        """Return the row of a decision, or None. Raises StoreUnavailable."""
        partition = partition_of_decision(decision_id)
        if partition is None:
            return None
        found = await self._state.find_decision(decision_id)
        if found is None:
            return None
        entry_id, _, row = found
        return row or await asyncio.to_thread(self._in_lake, partition, entry_id, decision_id)

    def _in_lake(self, partition: int, entry_id: str, decision_id: str) -> DecisionRow | None:
        import pyarrow.parquet as pq  # time and megabytes that no decision needs

        from service.adapters.parquet_lake import ParquetLake

        path = ParquetLake(self._lake).file_with("decisions", partition, entry_id)
        if path is None:
            return None
        rows = pq.read_table(path, filters=[("decision_id", "==", decision_id)]).to_pylist()
        return from_columns(rows[0]) if rows else None


class CatalogueShelf:
    """Keeps the text of every catalogue that was served, by version, so that old decisions can be explained."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, text: bytes, version: str) -> None:
        """Keep a catalogue's text; once is enough."""
        path = self._folder / f"{version}.yaml"
        if path.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._folder / f".{version}-{os.getpid()}"
        new.write_bytes(text)
        os.replace(new, path)

    def find(self, version: str) -> Catalogue | None:
        """Load the catalogue of a version, or None where it was never kept or reads otherwise today."""
        path = self._folder / f"{version}.yaml"
        if not _VERSION.fullmatch(version) or not path.exists():
            return None
        catalogue = load_catalogue(path)
        return catalogue if catalogue.version == version else None

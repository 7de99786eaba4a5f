"""Finds a logged decision: in the journal while it is there, in the lake afterwards; and the catalogues of then.

Decides where to look. A decision is found as long as outcomes find theirs. Knows nothing of what a decision means.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

from service.adapters.redis_state import RedisState
from service.catalogue.loader import load_catalogue
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
        return row or await asyncio.to_thread(self._in_lake, partition, entry_id)

    def _in_lake(self, partition: int, entry_id: str) -> DecisionRow | None:
        import pyarrow.parquet as pq  # time and megabytes that no decision needs

        from service.adapters.parquet_lake import ParquetLake

        path = ParquetLake(self._lake).file_with("decisions", partition, entry_id)
        if path is None:
            return None
        rows = pq.read_table(path, filters=[("journal_id", "==", entry_id)]).to_pylist()
        return _row(rows[0]) if rows else None


def _row(stored: dict[str, Any]) -> DecisionRow:
    """Turn a row of the lake's table back into what was logged."""
    import numpy as np

    def placed(name: str) -> tuple[tuple[int, str, float], ...]:
        return tuple((p["candidate"], p["placement"], p["selection_probability"]) for p in stored[name])

    same: dict[str, Any] = {name: stored[name] for name in _AS_THEY_ARE}
    return DecisionRow(
        **same,
        decision_time=stored["decision_time"].timestamp(),
        treatment_ids=tuple(stored["treatment_ids"]),
        stages=np.array(stored["stages"], dtype="i1").tobytes(),
        reasons=np.array(stored["reasons"], dtype="<i4").tobytes(),
        propensities=np.array(stored["propensities"], dtype="<f8").tobytes(),
        priorities=np.array(stored["priorities"], dtype="<f8").tobytes(),
        chosen=placed("chosen"),
        withheld=placed("withheld"),
        degraded_reasons=tuple(stored["degraded_reasons"]),
    )


_AS_THEY_ARE = (
    "decision_id", "customer_id", "channel", "arm", "arm_probability", "catalogue_version", "model_version",
    "features_version", "facts", "view_times", "reselected", "dry_run",
)  # fmt: skip


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

"""Facts of any online store that Feast has, through its SDK: `push` to write, `get_online_features` to read.

The slow twin of `redis_facts`: Feast keeps the newer of two rows by event timestamp, view by view, and cannot say that
somebody else wrote meanwhile. The offline store is never written here: snapshots are backfilled. Imports Feast inside
its functions, so only a worker that is told to pays for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from features.contract import JOIN_KEY, LAYOUT
from features.facts import Floats, to_view
from service.adapters.fact_store import Change, Known
from service.adapters.redis_gather import FactSource
from service.ports import StoreUnavailable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


READ_SECONDS = 10.0


class SdkFacts:
    """`FactStore` over a Feast feature store.

    Args:
        source: Reads. push: Writes.
    """

    def __init__(self, source: FactSource, push: FeastPush) -> None:
        self._source, self._push = source, push

    async def read(self, customers: Iterable[str]) -> dict[str, Known]:
        """Read customers, each once. Raises StoreUnavailable."""
        names = list(dict.fromkeys(customers))
        rows = await self._source.fetch(names, READ_SECONDS)
        if rows is None:
            raise StoreUnavailable("features_unavailable", "Feast gives no facts")
        stamps = [
            {v.name: 0 if t != t else round(t * 1e6) for v, t in zip(LAYOUT.views, times, strict=True)}
            for times in rows.view_times.tolist()
        ]
        return {name: Known(rows.facts[i], stamps[i]) for i, name in enumerate(names)}

    async def write(self, changes: Mapping[str, Change]) -> set[str]:
        """Write customers, view by view; what somebody else wrote with a later timestamp stays and is not noticed."""
        rows: dict[str, dict[str, Floats]] = {}
        for customer, change in changes.items():
            for view in change.views:
                rows.setdefault(view, {})[customer] = change.facts
        stamps = {customer: change.stamp for customer, change in changes.items()}
        for view in sorted(rows):
            await asyncio.to_thread(self._push.push, view, rows[view], stamps)
        return set()


class FeastPush:
    """Feast's `push`, online only.

    Args:
        feature_repo: Folder of feature_store.yaml, which expands NBA_FEAST_REDIS and NBA_FEAST_REGISTRY.
    """

    def __init__(self, feature_repo: Path) -> None:
        logging.getLogger("feast").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from feast import FeatureStore

            self._store: Any = FeatureStore(repo_path=str(feature_repo))

    def push(self, view: str, rows: Mapping[str, Floats], stamps: Mapping[str, int]) -> None:
        """Write customers' facts of one view. Blocking: some milliseconds for a call and about one for ten rows.

        Args:
            rows: Customer id -> facts (LAYOUT.width,). stamps: customer id -> event timestamp in microseconds.
        """
        from feast.data_source import PushMode

        frame = frame_of(view, rows, stamps)
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            self._store.push(f"{view}_push", frame, to=PushMode.ONLINE)


def frame_of(view: str, rows: Mapping[str, Floats], stamps: Mapping[str, int]) -> Any:
    """Return the data frame that Feast takes for customers' facts of one view; arguments as of `FeastPush.push`."""
    import pandas as pd

    records = []
    for customer, row in rows.items():
        values = {name: _typed(value) for name, value in to_view(row, view).items()}
        moment = _EPOCH + timedelta(microseconds=stamps[customer])
        records.append({JOIN_KEY: customer, **values, "event_timestamp": moment, "created": moment})
    return pd.DataFrame(records)


def _typed(value: Any) -> Any:
    """Keep the type of a list: of a plain list of NaN Feast infers a list of nulls, and stores zeros without a word."""
    return np.asarray(value, dtype=np.float64) if isinstance(value, list) else value

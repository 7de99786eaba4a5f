"""Pushes facts to the online store through Feast. Imports Feast, so only the worker uses it, and only off its loop.

Feast keeps the newer of two rows by event timestamp. The offline store is never written here: snapshots are backfilled.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from features.contract import JOIN_KEY
from features.facts import Floats, to_view

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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

"""Replaying the past in memory gives what the backfill gives."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from features.contract import FEATURE_SERVICE, JOIN_KEY, LAYOUT
from features.facts import from_view, unknown
from service.adapters.embedded import EmbeddedServer
from tests.small_world import feast_environment
from training.backfill import facts_at
from training.feast_steps import apply, open_store
from training.replay import replay
from training.sources import write_history


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An empty Feast on a server of its own."""
    var = tmp_path_factory.mktemp("replay")
    with EmbeddedServer(var) as url:
        place = urlsplit(url)
        with feast_environment(var, f"{place.hostname}:{place.port},password={place.password}"):
            opened = open_store()
            apply(opened, facts_folder=var / "lake" / "facts")
            yield opened


def test_a_replay_brings_the_backfills_facts_online(store: Any, tmp_path: Path) -> None:
    """After a replay up to a moment every household's online facts are those of the backfill, within 1e-9."""
    write_history(tmp_path, customers=60)
    moment = datetime(2017, 3, 1, 5, tzinfo=UTC)
    done = replay(tmp_path, None, moment, store)
    ids, facts = facts_at(tmp_path, moment)
    assert done.customers == len(ids) > 40
    assert done.lines > 1000
    assert done.lines_per_second > 0
    rows = [{JOIN_KEY: customer} for customer in ids]
    found = store.get_online_features(store.get_feature_service(FEATURE_SERVICE), rows).to_dict()
    for i in range(len(ids)):
        row = unknown()
        for view in LAYOUT.views:
            from_view({name: values[i] for name, values in found.items()}, view.name, row)
        np.testing.assert_allclose(row, facts[:, i], rtol=1e-9, atol=0, equal_nan=True)

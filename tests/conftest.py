"""The worlds that tests share: built once a session, from real data, by the real steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.served import Served, serve
from tests.small_world import SmallWorld, build_small_world

NOW = 1_514_786_400.0
"""2018-01-01 06:00 UTC: after the last transaction of the example and the last snapshot."""


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """Some hundred households: history, snapshots, a registered champion and its bundle."""
    return build_small_world(tmp_path_factory.mktemp("world"), households=220)


@pytest.fixture(scope="session")
def served(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The small world behind a running service and worker; the clock stands at the end of the data."""
    tmp: Path = tmp_path_factory.mktemp("served")
    with serve(small_world.var, small_world.mlflow_uri, NOW, tmp) as running:
        yield running

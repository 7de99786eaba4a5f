"""The API behind a real server, once a session: open, and with keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.api.serving import Running, running


@pytest.fixture(scope="session")
def api(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An API without keys."""
    with running(redis_url, tmp_path_factory.mktemp("api")) as up:
        yield up


@pytest.fixture(scope="session")
def guarded(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An API with a key for each scope."""
    with running(redis_url, tmp_path_factory.mktemp("guarded"), with_keys=True) as up:
        yield up

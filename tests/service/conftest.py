"""Real servers and a real Feast for the tests of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.adapters.connection import Link
from service.adapters.embedded import EmbeddedServer
from service.ports import FactPlan
from tests.service.worker_world import Scenario, World

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server of our own on a free port, for the whole session."""
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def clean_url(redis_url: str) -> str:
    """The session's server, emptied."""

    async def empty() -> None:
        link = Link(redis_url)
        await link.exchange([("FLUSHALL",), ("SCRIPT", "FLUSH")], deadline_seconds=5, reason="")
        await link.close()

    asyncio.run(empty())
    return redis_url


@pytest.fixture(scope="session")
def feast_world(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, FactPlan]]:
    """A real Feast on the session's server with the project's definitions applied, and the plan resolved from it."""
    from urllib.parse import urlsplit

    from service.adapters.bundle_dir import read_plan
    from service.adapters.feast_plan import resolve_plan
    from training.feast_steps import apply, open_store

    folder = tmp_path_factory.mktemp("feast")
    url = urlsplit(redis_url)
    registry = f"sqlite:///{folder / 'registry.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBA_FEAST_REDIS", f"{url.hostname}:{url.port},password={url.password}")
        patch.setenv("NBA_FEAST_REGISTRY", registry)
        store = open_store(REPO / "features")
        apply(store, facts_folder=folder / "facts")
        yield store, read_plan(resolve_plan(REPO / "features", registry))


@pytest.fixture
def on(clean_url: str, tmp_path: Path, feast_world: tuple[Any, FactPlan]) -> Scenario:
    """Run a scenario in a fresh world."""

    def run_it(scenario: Callable[[World], Awaitable[None]]) -> None:
        async def whole() -> None:
            world = World(clean_url, tmp_path / "lake", feast_world[1])
            try:
                await scenario(world)
            finally:
                await world.link.close()
                await world.journal.close()

        asyncio.run(whole())

    return run_it

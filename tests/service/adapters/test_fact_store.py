"""One contract for the stores of facts: Feast's Redis layout written directly, and Feast's SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from features.contract import LAYOUT
from service.adapters.connection import Link
from service.adapters.fact_store import Change, FactStore, Known
from service.adapters.feast_push import FeastPush, SdkFacts
from service.adapters.feast_reader import FactReader
from service.adapters.redis_facts import RedisFacts
from service.ports import FactPlan
from tests.service.adapters.test_fact_readers import open_sdk, variables
from tests.service.adapters.test_feast_reader import a_row, hash_of
from tests.service.conftest import REPO

AT = 1_770_000_000_000_000
ALL = frozenset(view.name for view in LAYOUT.views)
Scenario = Callable[[FactStore], Awaitable[None]]


@pytest.fixture(scope="module")
def push(feast_world: tuple[Any, FactPlan]) -> FeastPush:
    """Feast's push."""
    return FeastPush(REPO / "features")


@pytest.fixture(params=["redis", "sdk"])
def on(
    request: pytest.FixtureRequest, clean_url: str, feast_world: tuple[Any, FactPlan], push: FeastPush
) -> Callable[[Scenario], None]:
    """Run a scenario on either store."""

    async def run(scenario: Scenario) -> None:
        if request.param == "redis":
            link = Link(clean_url)
            await scenario(RedisFacts(link, feast_world[1], LAYOUT))
            await link.close()
        else:
            source = await open_sdk(variables(feast_world[0]))
            await scenario(SdkFacts(source, push))
            await source.close()

    return lambda scenario: asyncio.run(run(scenario))


def change(known: Known, seed: int, stamp: int = AT, views: frozenset[str] = ALL) -> Change:
    """Return a change to a made-up row."""
    return Change(known, a_row(seed), views, stamp)


def test_what_was_written_is_read(on: Callable[[Scenario], None]) -> None:
    """Facts and stamps of several customers come back bit for bit; of a stranger nothing is known."""

    async def scenario(store: FactStore) -> None:
        known = await store.read(["a", "b"])
        assert await store.write({c: change(known[c], i) for i, c in enumerate("ab")}) == set()
        found = await store.read(["b", "a", "stranger", "a"])
        for i, customer in enumerate("ab"):
            np.testing.assert_array_equal(found[customer].facts, a_row(i))
            assert set(found[customer].stamps.values()) == {AT}
        assert np.isnan(found["stranger"].facts).all()
        assert set(found["stranger"].stamps.values()) == {0}

    on(scenario)


def test_views_that_did_not_change_stay(on: Callable[[Scenario], None]) -> None:
    """Only the named views are written; the others keep facts and stamp."""

    async def scenario(store: FactStore) -> None:
        await store.write({"a": change((await store.read(["a"]))["a"], 1)})
        await store.write({"a": change((await store.read(["a"]))["a"], 2, AT + 7, frozenset(("prices",)))})
        found = (await store.read(["a"]))["a"]
        assert found.stamps == {view.name: AT + 7 * (view.name == "prices") for view in LAYOUT.views}
        for view in LAYOUT.views:
            for fact in view.facts:
                place = LAYOUT.slices[fact.name]
                np.testing.assert_array_equal(found.facts[place], a_row(2 if view.name == "prices" else 1)[place])

    on(scenario)


def test_both_stores_leave_the_same_bytes(clean_url: str, feast_world: tuple[Any, FactPlan], push: FeastPush) -> None:
    """For the same facts and stamp, field by field, the direct store writes what Feast itself writes."""
    rows = {f"c{i}": a_row(i) for i in range(20)}
    rows["nothing"] = np.full(LAYOUT.width, np.nan)
    rows["zero"] = np.where(np.isnan(a_row()), np.nan, 0.0)
    stamps = dict(zip(rows, (1, 1_000_000, *(AT + i * 999_999 for i in range(len(rows)))), strict=False))
    for view in LAYOUT.views:
        push.push(view.name, rows, stamps)
    key = FactReader(feast_world[1], LAYOUT).key
    by_feast = {customer: hash_of(clean_url, key(customer)) for customer in rows}

    async def write() -> None:
        link = Link(clean_url)
        await link.exchange([("FLUSHALL",)], deadline_seconds=5, reason="")
        store = RedisFacts(link, feast_world[1], LAYOUT)
        known = await store.read(rows)
        changes = {c: Change(known[c], row, ALL, stamps[c]) for c, row in rows.items()}
        assert await store.write(changes) == set()
        await link.close()

    asyncio.run(write())
    for customer in rows:
        assert hash_of(clean_url, key(customer)) == by_feast[customer]
        assert len(by_feast[customer]) == len(LAYOUT.facts) + len(LAYOUT.views)


def test_a_customer_that_somebody_else_wrote_is_refused_whole(
    clean_url: str, feast_world: tuple[Any, FactPlan]
) -> None:
    """Of two writers that read the same, the second writes nothing of that customer and all of the others."""

    async def scenario() -> None:
        link = Link(clean_url)
        store = RedisFacts(link, feast_world[1], LAYOUT)
        known = await store.read(["a", "b"])
        assert await store.write({"a": change(known["a"], 1, views=frozenset(("prices",)))}) == set()
        assert await store.write({c: change(known[c], 2, AT + 1) for c in "ab"}) == {"a"}
        found = await store.read(["a", "b"])
        assert np.isnan(found["a"].facts[LAYOUT.slices["spend_total"]]).all()
        np.testing.assert_array_equal(found["b"].facts, a_row(2))
        await link.close()

    asyncio.run(scenario())

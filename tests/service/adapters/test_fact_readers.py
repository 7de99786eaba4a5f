"""One contract for the readers of facts: straight from Feast's Redis layout, and through Feast's SDK."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.contract import LAYOUT
from features.layout import SECONDS_PER_DAY
from features.matrix import FUTURE_SECONDS
from service.adapters.breaker import Breaker
from service.adapters.connection import Link
from service.adapters.feast_reader import FactReader
from service.adapters.feast_sdk import FeastSdk
from service.adapters.redis_state import RedisState
from service.ports import FactPlan, Gathered
from tests.fragile import OwnServer
from tests.service.adapters.fuzzed import CHUNK, NOW, write_fuzzed
from tests.service.adapters.test_feast_reader import a_row, write_all
from tests.service.conftest import REPO

READERS = ("redis", "sdk")
PATIENT_SECONDS = 20.0
Gather = Callable[[list[str], float], Gathered]


def variables(store: Any) -> dict[str, str]:
    """Return what feature_store.yaml expands for a store that is open."""
    return {
        **os.environ,
        "NBA_FEAST_REDIS": store.config.online_store.connection_string,
        "NBA_FEAST_REGISTRY": store.config.registry.path,
    }


async def open_sdk(of: dict[str, str]) -> FeastSdk:
    """Open the reader and wait until Feast is there."""
    sdk = FeastSdk(REPO / "features", of, LAYOUT, Breaker())
    end = time.monotonic() + 60
    while await sdk.fetch(["nobody"], PATIENT_SECONDS) is None:
        if time.monotonic() > end:
            raise AssertionError("Feast did not open")
        await asyncio.sleep(0.05)
    return sdk


class Readers:
    """Gathers through either reader, on one loop."""

    def __init__(self, url: str, plan: FactPlan, of: dict[str, str]) -> None:
        self._loop = asyncio.new_event_loop()
        self._plan = plan
        sdk = self._loop.run_until_complete(open_sdk(of))
        self._states = {
            "redis": RedisState(link := Link(url), link, LAYOUT),
            "sdk": RedisState(link, link, LAYOUT, facts=sdk),
        }

    def gather(self, reader: str, customers: list[str], now: float, deadline: float = PATIENT_SECONDS) -> Gathered:
        """Gather facts of customers."""
        return self._loop.run_until_complete(self._states[reader].gather(self._plan, customers, "app", now, deadline))

    def close(self) -> None:
        """Take both down."""
        for state in self._states.values():
            self._loop.run_until_complete(state.close())
        self._loop.close()


@pytest.fixture(scope="module")
def readers(feast_world: tuple[Any, FactPlan], redis_url: str) -> Iterator[Readers]:
    both = Readers(redis_url, feast_world[1], variables(feast_world[0]))
    yield both
    both.close()


@pytest.fixture(params=READERS)
def gather(request: pytest.FixtureRequest, readers: Readers) -> Gather:
    """Gather through one of the readers."""
    return lambda customers, now: readers.gather(request.param, customers, now)


@pytest.fixture
def store(feast_world: tuple[Any, FactPlan], clean_url: str) -> Any:
    """Feast, on a server without any customer."""
    return feast_world[0]


def test_what_feast_wrote_is_read_bit_for_bit(gather: Gather, store: Any) -> None:
    """Facts, missing values and event timestamps come back as written, by name, for each of several customers."""
    for seed, customer in enumerate(("b", "a", "ü 1")):
        write_all(store, customer, a_row(seed))
    found = gather(["a", "ü 1", "b", "a"], NOW.timestamp())
    for i, seed in enumerate((1, 2, 0, 1)):
        np.testing.assert_array_equal(found.batch.facts[:, i], a_row(seed))
    np.testing.assert_array_equal(found.batch.view_times, NOW.timestamp())
    assert found.batch.is_known.all()
    assert found.degraded_reasons == ()


def test_an_unknown_customer_is_unknown_not_zero(gather: Gather, store: Any) -> None:
    """A customer whom nobody wrote is not known and has no fact, beside one who is; Feast calls both present."""
    write_all(store, "known", a_row())
    found = gather(["unknown", "known"], NOW.timestamp())
    assert found.batch.is_known.tolist() == [False, True]
    assert np.isnan(found.batch.facts[:, 0]).all()
    assert np.isnan(found.batch.view_times[:, 0]).all()
    assert found.degraded_reasons == ()


def test_what_is_older_than_its_view_may_be_is_missing(gather: Gather, store: Any) -> None:
    """A view past its maximum age is masked and flagged; its age stays visible."""
    write_all(store, "old", a_row())
    limit = next(view.max_age_days for view in LAYOUT.views if view.name == "purchases")
    found = gather(["old"], NOW.timestamp() + (limit + 1) * SECONDS_PER_DAY)
    assert found.degraded_reasons == ("features_stale",)
    assert np.isnan(found.batch.facts[LAYOUT.slices["spend_total"]]).all()
    assert not np.isnan(found.batch.facts[LAYOUT.slices["age_band"]]).all()  # the profile may be older
    np.testing.assert_array_equal(found.batch.view_times, NOW.timestamp())


@pytest.mark.parametrize(("ahead", "is_believed"), [(FUTURE_SECONDS - 1, True), (FUTURE_SECONDS + 1, False)])
def test_what_is_stamped_ahead_is_not_believed(gather: Gather, store: Any, ahead: float, is_believed: bool) -> None:
    """A view stamped more than five minutes ahead counts as stale; the customer is known, the stamp stays visible."""
    write_all(store, "early", a_row())
    found = gather(["early"], NOW.timestamp() - ahead)
    assert found.batch.is_known.all()
    assert found.degraded_reasons == (() if is_believed else ("features_stale",))
    assert np.isnan(found.batch.facts).all() != is_believed
    np.testing.assert_array_equal(found.batch.view_times, NOW.timestamp())


def check_equal(readers: Readers, n: int, store: Any, seed: int) -> dict[str, int]:
    """Write n fuzzed customers and compare the readers bit for bit; return how often what was met."""
    customers = [f"fuzz-{seed}-{i}" for i in range(n)]
    write_fuzzed(store, customers, seed)
    met = {"unknown": 0, "never written": 0, "missing": 0, "ahead or stale": 0}
    now = NOW.timestamp()
    for start in range(0, n, CHUNK):
        chunk = customers[start : start + CHUNK]
        direct, sdk = (readers.gather(reader, chunk, now) for reader in READERS)
        assert direct.degraded_reasons == sdk.degraded_reasons == ("features_partial", "features_stale")
        for name in ("facts", "view_times", "is_known"):
            one, other = getattr(direct.batch, name), getattr(sdk.batch, name)
            assert one.tobytes() == other.tobytes(), name
        met["unknown"] += int((~direct.batch.is_known).sum())
        met["never written"] += int(np.isnan(direct.batch.view_times).sum())
        met["missing"] += int(np.isnan(direct.batch.facts).sum())
    for customer in customers[: n // 10]:
        direct, sdk = (readers.gather(reader, [customer], now) for reader in READERS)
        assert direct.degraded_reasons == sdk.degraded_reasons, customer
        met["ahead or stale"] += bool(direct.degraded_reasons)
    print(f"{n} fuzzed customers read alike, bit for bit; met: {met}")
    return met


def test_both_readers_agree_on_fuzzed_customers(readers: Readers, store: Any) -> None:
    """Values of all types, missing, stale, ahead, wrong and unknown: both readers give the same bits and flags."""
    met = check_equal(readers, 2_000, store, seed=1)
    assert all(met.values())


@pytest.mark.prove
def test_both_readers_agree_on_20000_fuzzed_customers(readers: Readers, store: Any) -> None:
    """The same, for 20,000 customers."""
    check_equal(readers, 20_000, store, seed=2)


def test_a_lost_value_is_missing_for_both_and_only_the_direct_reader_can_tell(
    readers: Readers, store: Any, clean_url: str
) -> None:
    """A field that vanished from the hash is NaN in both; Feast's SDK cannot tell it from null, so flags nothing."""
    write_all(store, "holed", np.ones(LAYOUT.width))
    plan = readers._plan
    field = next(field for field, name in plan.fields.items() if name == "spend_total")

    async def lose() -> None:
        link = Link(clean_url)
        await link.exchange([("HDEL", FactReader(plan, LAYOUT).key("holed"), field)], deadline_seconds=5, reason="")
        await link.close()

    asyncio.run(lose())
    direct, sdk = (readers.gather(reader, ["holed"], NOW.timestamp()) for reader in READERS)
    assert direct.batch.facts.tobytes() == sdk.batch.facts.tobytes()
    assert np.isnan(direct.batch.facts[LAYOUT.slices["spend_total"]]).all()
    assert direct.degraded_reasons == ("features_partial",)
    assert sdk.degraded_reasons == ()


@pytest.mark.parametrize("reader", READERS)
def test_a_store_that_freezes_or_dies_costs_the_deadline(
    reader: str, feast_world: tuple[Any, FactPlan], redis_url: str, tmp_path: Path
) -> None:
    """While the store is frozen or gone no gather outlasts its deadline by much, or raises; then facts are back."""
    store, plan = feast_world
    write_all(store, "kept", a_row())
    own = OwnServer(tmp_path / "store")
    own.start()
    own.copy_hashes(redis_url)
    of = {**variables(store), "NBA_FEAST_REDIS": f"127.0.0.1:{own.port}"}

    async def scenario() -> None:
        sdk = await open_sdk(of) if reader == "sdk" else None
        state_link = Link(redis_url)
        state = RedisState(Link(own.url, breaker=Breaker()), state_link, LAYOUT, facts=sdk)

        async def ask(deadline: float = 0.02) -> tuple[float, Gathered]:
            started = time.monotonic()
            found = await state.gather(plan, ["kept"], "app", NOW.timestamp(), deadline)
            return time.monotonic() - started, found

        async def until_whole() -> Gathered:
            for _ in range(600):
                _, found = await ask(1.0)
                if "features_unavailable" not in found.degraded_reasons:
                    return found
                await asyncio.sleep(0.01)
            raise AssertionError("no facts after six seconds")

        for breaks, heals in (
            (lambda: own.send(signal.SIGSTOP), lambda: own.send(signal.SIGCONT)),
            (own.kill, own.start),
        ):
            before = await until_whole()
            np.testing.assert_array_equal(before.batch.facts[:, 0], a_row())
            breaks()
            asked = [await ask() for _ in range(40)]
            assert state.breakers["features"].state != "closed"
            heals()
            assert all("features_unavailable" in found.degraded_reasons for _, found in asked)
            assert not any(found.batch.is_known.any() for _, found in asked)
            assert max(seconds for seconds, _ in asked) < 0.5
        after = await until_whole()
        np.testing.assert_array_equal(after.batch.facts[:, 0], a_row())
        await state.close()

    try:
        asyncio.run(scenario())
    finally:
        own.kill()


def test_a_late_answer_is_thrown_away(readers: Readers, store: Any) -> None:
    """A call that missed its deadline leaves nothing behind: the next one gets its own customer's facts."""
    for seed in range(6):
        write_all(store, f"late {seed}", a_row(seed))
    missed = 0
    for turn in range(60):
        early = readers.gather("sdk", [f"late {turn % 6}"], NOW.timestamp(), 0.0005)
        missed += "features_unavailable" in early.degraded_reasons
        time.sleep(0.02)
    found = None
    for _ in range(200):
        found = readers.gather("sdk", ["late 3"], NOW.timestamp())
        if not found.degraded_reasons:
            break
        time.sleep(0.01)
    assert found is not None
    assert missed > 0
    np.testing.assert_array_equal(found.batch.facts[:, 0], a_row(3))


def test_the_registry_may_go_once_it_was_read(feast_world: tuple[Any, FactPlan], tmp_path: Path) -> None:
    """A registry that vanishes while the reader runs changes nothing."""
    store, _ = feast_world
    write_all(store, "kept", a_row())
    copy = tmp_path / "registry.db"
    copy.write_bytes(Path(store.config.registry.path.removeprefix("sqlite:///")).read_bytes())

    async def scenario() -> None:
        sdk = await open_sdk({**variables(store), "NBA_FEAST_REGISTRY": f"sqlite:///{copy}"})
        copy.write_bytes(b"")
        for _ in range(3):
            rows = await sdk.fetch(["kept"], PATIENT_SECONDS)
            assert rows is not None
            np.testing.assert_array_equal(rows.facts[0], a_row())
        await sdk.close()

    asyncio.run(scenario())


def test_a_registry_that_comes_late_is_read_then(feast_world: tuple[Any, FactPlan], tmp_path: Path) -> None:
    """An empty registry at the start gives no facts and no error; once it is there, so are the facts."""
    store, _ = feast_world
    write_all(store, "kept", a_row())
    late = tmp_path / "registry.db"
    whole = Path(store.config.registry.path.removeprefix("sqlite:///")).read_bytes()

    async def scenario() -> None:
        sdk = FeastSdk(
            REPO / "features", {**variables(store), "NBA_FEAST_REGISTRY": f"sqlite:///{late}"}, LAYOUT, Breaker()
        )
        for _ in range(20):
            assert await sdk.fetch(["kept"], PATIENT_SECONDS) is None
            await asyncio.sleep(0.02)
        late.write_bytes(whole)
        rows = None
        end = time.monotonic() + 30
        while rows is None and time.monotonic() < end:
            rows = await sdk.fetch(["kept"], PATIENT_SECONDS)
            await asyncio.sleep(0.02)
        assert rows is not None
        np.testing.assert_array_equal(rows.facts[0], a_row())
        await sdk.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("reader", READERS)
def test_feast_is_imported_only_where_it_is_asked(reader: str, tmp_path: Path) -> None:
    """A serving process that reads Redis directly never imports Feast; one that reads through the SDK does."""
    code = (
        "import asyncio, json, sys, time\n"
        "from pathlib import Path\n"
        "from service.bootstrap import open_runtime\n"
        "from service.settings import Settings\n"
        "async def main():\n"
        f"    var = Path({str(tmp_path)!r})\n"
        f"    settings = Settings(var=var, redis_url='redis://127.0.0.1:1', fact_reader={reader!r})\n"
        "    async with open_runtime(settings, follow=False):\n"
        f"        end = time.monotonic() + {30 if reader == 'sdk' else 0}\n"
        "        while 'feast' not in sys.modules and time.monotonic() < end:\n"
        "            await asyncio.sleep(0.05)\n"
        "    print(json.dumps('feast' in sys.modules))\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=90)
    assert json.loads(done.stdout.splitlines()[-1]) == (reader == "sdk")

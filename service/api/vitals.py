"""How the parts that decisions lean on are doing: time of each step, breakers, ages of facts and bundle.

Measures; decides nothing. No label ever holds a customer.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from time import perf_counter

import numpy as np
from prometheus_client import CollectorRegistry, Gauge, Histogram

from features.contract import LAYOUT
from features.layout import SECONDS_PER_DAY
from service.api.tally import Tally, Times
from service.bootstrap import Runtime
from service.online import Decided, Tell
from service.ports import Backlog, StoreUnavailable
from service.tracing import Tracing, reasons_attribute

LOOK_SECONDS = 1.0
JOURNAL_EVERY = 10
"""Of so many looks one is at the journal."""
AGES_OF_EVERY = 16
"""Of so many decisions one tells the ages of its facts."""
BREAKER_STATES = {"closed": 0, "probing": 1, "open": 2}
SECONDS_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
DAYS_BUCKETS = (1 / 24, 1, 7, 28, 91, 120, 182, 364)


class _Timed:
    """Stands around a step and takes note of its time; a generator would cost three times as much."""

    __slots__ = ("_started", "_times")

    def __init__(self, times: Times) -> None:
        self._times = times

    def __enter__(self) -> Tell:
        self._started = perf_counter()
        return _say_nothing

    def __exit__(self, *_: object) -> None:
        self._times.observe(perf_counter() - self._started)


class Vitals:
    """The measurements of one process.

    Args:
        tally: Adds up the times of the steps. tracing: Makes the spans of the steps; None where traces are off.
    """

    def __init__(self, registry: CollectorRegistry, tally: Tally, tracing: Tracing | None = None) -> None:
        self._tracing = tracing
        self._n_decided = 0
        dependency = Histogram(
            "nba_dependency_seconds",
            "Time that a step waited for a store",
            ["dep", "op"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        decide = Histogram("nba_decide_seconds", "Time in the pure core", buckets=SECONDS_BUCKETS, registry=registry)
        steps = {
            "gather": dependency.labels("state", "gather"),
            "decide": decide,
            "record": dependency.labels("state", "record"),
            "append": dependency.labels("journal", "append"),
        }
        self._times = {name: tally.times(histogram, SECONDS_BUCKETS) for name, histogram in steps.items()}
        ages = Histogram(
            "nba_feature_age_seconds",
            f"Age of a customer's facts when a decision used them, of one decision in {AGES_OF_EVERY}",
            ["view"],
            buckets=[days * SECONDS_PER_DAY for days in DAYS_BUCKETS],
            registry=registry,
        )
        self._ages = [ages.labels(view.name) for view in LAYOUT.views]
        self._breakers = Gauge(
            "nba_breaker_state",
            "0 closed, 1 probing, 2 open: the store is not asked",
            ["dep"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._bundle_age = Gauge(
            "nba_bundle_age_seconds",
            "Time since the bundle that serves was made",
            registry=registry,
            multiprocess_mode="livemax",
        )

        self._lag, self._bytes, self._free = (
            Gauge(name, words, registry=registry, multiprocess_mode="livemostrecent")
            for name, words in (
                ("nba_journal_lag_records", "Entries of the journal that are not in the lake yet"),
                ("nba_journal_bytes", "What the state store holds for them"),
                ("nba_journal_bytes_free", "Room on the disk of the lake"),
            )
        )
        self.backlog: Backlog | None = None

    def step(self, name: str) -> AbstractContextManager[Tell]:
        """Time a step, and trace it where that is on."""
        timed = _Timed(self._times[name])
        return timed if self._tracing is None else self._traced(self._tracing, name, timed)

    @contextmanager
    def _traced(self, tracing: Tracing, name: str, timed: _Timed) -> Iterator[Tell]:
        with timed, tracing.step(name) as span:
            yield lambda reasons: span.set_attributes(reasons_attribute(reasons))

    def decided(self, decided: Decided) -> None:
        """Tell the ages of the facts of some decisions."""
        self._n_decided += 1
        if self._n_decided % AGES_OF_EVERY != 1:
            return
        ages = decided.decisions.now - decided.batch.view_times[:, decided.customer]
        for age, observed in zip(ages, self._ages, strict=True):
            if np.isfinite(age) and age < decided.decisions.now:
                observed.observe(max(float(age), 0.0))

    def look(self, runtime: Runtime) -> None:
        """Say how the breakers stand and how old the bundle is."""
        for name, breaker in runtime.breakers.items():
            self._breakers.labels(name).set(BREAKER_STATES[breaker.state])
        serving = runtime.reloader.serving
        if serving is not None:
            manifest = runtime.settings.var / "models" / serving.bundle.digest / "manifest.json"
            if manifest.exists():
                self._bundle_age.set(max(time.time() - manifest.stat().st_mtime, 0.0))

    async def follow(self, runtime: Runtime) -> None:
        """Look again and again, so that the counts of many processes are right whichever of them is asked."""
        for n in itertools.count():
            self.look(runtime)
            if n % JOURNAL_EVERY == 0:
                await self.look_at_journal(runtime)
            await asyncio.sleep(LOOK_SECONDS)

    async def look_at_journal(self, runtime: Runtime) -> None:
        """Say how much the worker has still to do, and how much room the lake has."""
        with suppress(OSError):
            self._free.set(shutil.disk_usage(runtime.settings.var).free)
        try:
            self.backlog = await runtime.journal.backlog()
        except StoreUnavailable:
            self.backlog = None
            return
        self._lag.set(self.backlog.records)
        self._bytes.set(self.backlog.bytes)


def _say_nothing(reasons: Sequence[str]) -> None:
    """Drop the reasons: no span takes them."""

"""Reads facts through Feast's own SDK, from any online store that Feast has: the slow twin of `feast_reader`.

Decides what an answer of `FeatureStore.get_online_features` means in the contract's terms, exactly as `feast_reader`
does for Redis. Feast says PRESENT for customers that nobody knows and for values that have expired: only the event
timestamps are believed. A call runs in a thread of its own and is left behind at its deadline; Feast offers no way to
end it. Imports Feast inside its functions: serving processes that read Redis directly must not pay for it.

Two things that `feast_reader` sees are hidden here: a value that was lost looks like one that was null, so it does not
make a row partial; and bytes that are no protobuf at all make the whole answer unavailable.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from features.contract import FEATURE_SERVICE, JOIN_KEY
from features.layout import Fact, Layout
from service.adapters.breaker import LATE_SECONDS, Breaker
from service.adapters.deadline import Deadline
from service.adapters.feast_plan import load_config
from service.adapters.feast_reader import NEVER, FactRows, Floats, is_null

THREADS = 4
"""Calls under way at once. Those that are stuck are abandoned by their callers and hold their thread until they end."""
SOCKET_SECONDS = 0.25
"""Feast sets no limit for Redis: without this a thread would hang as long as a frozen server does."""

log = logging.getLogger("nba")


class FeastSdk:
    """Implements `redis_state.FactSource` over a Feast feature store.

    Args:
        feature_repo: Folder of feature_store.yaml. variables: What it expands.
        layout: Of the facts. breaker: Says when the store is not to be asked.
    """

    def __init__(self, feature_repo: Path, variables: Mapping[str, str], layout: Layout, breaker: Breaker) -> None:
        self.breaker = breaker
        self._repo, self._variables, self._layout = feature_repo, variables, layout
        self._threads = ThreadPoolExecutor(THREADS, "feast")
        self._opener = ThreadPoolExecutor(1, "feast-open")
        self._store: Any = None
        self._opening = self._opener.submit(self._open)

    async def fetch(self, customer_ids: Sequence[str], deadline_seconds: float) -> FactRows | None:
        """Return the customers' facts, or None where they did not come in time. Never raises."""
        if self._store is None and not self._is_opened():
            return None
        began = self.breaker.admit()
        if began is None:
            return None
        call = self._threads.submit(self._read, tuple(customer_ids))
        limit = Deadline(deadline_seconds)
        try:
            async with limit:
                rows = await asyncio.wrap_future(call)  # at the deadline: not begun is cancelled, late is thrown away
        except Exception as error:
            if limit.is_expired and limit.late_seconds > LATE_SECONDS:
                self.breaker.gave_up(began)
                return None
            if not limit.is_expired:
                log.warning("Feast gives no facts: %s", type(error).__name__)
            self.breaker.failed(began)
            return None
        except BaseException:
            self.breaker.gave_up(began)
            raise
        self.breaker.succeeded(began)
        return rows

    async def close(self) -> None:
        """Let go of the threads; what is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._opener.shutdown(wait=False, cancel_futures=True)

    def _is_opened(self) -> bool:
        """Say whether Feast is open; where it could not be opened, try again, at the pace of the breaker's probes."""
        if not self._opening.done():
            return False
        error = self._opening.exception()
        if error is None:
            self._store = self._opening.result()
            return True
        began = self.breaker.admit()
        if began is not None:
            log.warning("Feast cannot be opened: %s", error)
            self.breaker.failed(began)
            self._opening = self._opener.submit(self._open)
        return False

    def _open(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from feast import FeatureStore

            logging.getLogger("feast").setLevel(logging.ERROR)
            store = FeatureStore(config=load_config(self._repo, self._variables))
            service = store.get_feature_service(FEATURE_SERVICE)
        found = {f.name for projection in service.feature_view_projections for f in projection.features}
        lacking = sorted(self._layout.facts.keys() - found)
        if lacking:
            raise ValueError(f"the registry's feature service lacks {', '.join(lacking)}: run `nba apply`")
        _limit_redis(store)
        return store, service

    def _read(self, customer_ids: tuple[str, ...]) -> FactRows:
        store, service = self._store
        rows = [{JOIN_KEY: customer_id} for customer_id in customer_ids]
        return decode_response(store.get_online_features(service, rows).proto, len(rows), self._layout)


def decode_response(response: Any, n: int, layout: Layout) -> FactRows:
    """Turn Feast's answer for n customers into rows of facts.

    Args:
        response: A `GetOnlineFeaturesResponse`: a vector of values, and of event timestamps, for each feature name.
    """
    found = FactRows.empty(layout, n)
    position = {name: i for i, name in enumerate(response.metadata.feature_names.val)}  # its order is arbitrary
    for v, view in enumerate(layout.views):
        stamps = response.results[position[view.facts[0].name]].event_timestamps
        moments = np.array([stamp.seconds + stamp.nanos / 1e9 for stamp in stamps])
        is_written = moments != NEVER
        found.is_known[is_written] = True
        found.view_times[is_written, v] = moments[is_written]
        for fact in view.facts:
            values = response.results[position[fact.name]].values
            for i, value in enumerate(values):
                number = number_of(value, fact)
                if number is None:
                    found.is_partial[i] = True
                elif is_written[i]:
                    found.facts[i, layout.slices[fact.name]] = number
    return found


def number_of(value: Any, fact: Fact) -> float | Floats | None:
    """Return a `Value` of Feast as the fact's number or numbers, NaN for null, or None where it is of a wrong type."""
    plain = plain_of(value)
    if is_null(plain):
        return float("nan")
    if fact.length > 1:
        return plain if isinstance(plain, np.ndarray) and len(plain) == fact.length else None
    if fact.vocabulary:
        is_known = isinstance(plain, str) and plain in fact.vocabulary
        return float(fact.vocabulary.index(str(plain))) if is_known else None
    return plain if isinstance(plain, float) else None


def plain_of(value: Any) -> float | str | Floats | None:
    """Return what a `Value` of Feast holds: a number, a text, numbers, NaN for null; None for anything else."""
    kind = value.WhichOneof("val")
    if kind is None or kind == "null_val":
        return float("nan")
    if kind in _NUMBERS:
        return float(getattr(value, kind))
    if kind == "string_val":
        return str(value.string_val)
    if kind in _LISTS:
        return np.array(getattr(value, kind).val, dtype=np.float64)
    return None


_NUMBERS = frozenset(("double_val", "float_val", "int32_val", "int64_val", "bool_val", "unix_timestamp_val"))
_LISTS = frozenset(("double_list_val", "float_list_val", "int32_list_val", "int64_list_val", "bool_list_val"))


def _limit_redis(store: Any) -> None:
    """Set a limit and no retries on Feast's Redis client, where the store is Redis; other stores have their own."""
    online = store._get_provider().online_store
    if type(online).__name__ != "RedisOnlineStore":
        return
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    client = online._get_client(store.config.online_store)
    client.set_retry(Retry(NoBackoff(), 0))
    pool = getattr(client, "connection_pool", None)
    if pool is not None:
        pool.connection_kwargs.update(socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS)

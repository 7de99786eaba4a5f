"""100,000 customers: households drawn anew with replacement, copied inside the server byte for byte.

Each copy has the household's facts as Feast wrote them and its consent as the API stored it, under keys of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import redis

from service.adapters import redis_keys
from service.adapters.feast_reader import FactReader

ZIPF = 0.7
"""Exponent of how often a customer asks: the k-th asks in proportion to k^-ZIPF."""
AT_ONCE = 1_000


def crowd_of(n: int) -> list[str]:
    """Return the ids of n customers."""
    return [f"crowd-{i}" for i in range(n)]


def settle(url: str, reader: FactReader, households: Sequence[str], crowd: Sequence[str], seed: int) -> None:
    """Copy households' facts and consents into the crowd.

    Args:
        households: Ids of customers who have facts and gave consent.
    """
    drawn = np.random.default_rng(seed).integers(0, len(households), len(crowd))
    with redis.Redis.from_url(url) as server:
        facts = _dumped(server, [reader.key(household) for household in households])
        consents = _dumped(server, [redis_keys.consent(household) for household in households])
        for start in range(0, len(crowd), AT_ONCE):
            with server.pipeline(transaction=False) as pipe:
                for customer, household in zip(crowd[start : start + AT_ONCE], drawn[start:], strict=False):
                    pipe.restore(reader.key(customer), 0, facts[household], replace=True)
                    pipe.restore(redis_keys.consent(customer), 0, consents[household], replace=True)
                pipe.execute()


def _dumped(server: redis.Redis, keys: Sequence[str | bytes]) -> list[bytes]:
    with server.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.dump(key)
        return list(pipe.execute())


def askers(crowd: Sequence[str], n: int, seed: int) -> list[str]:
    """Draw who asks, n times."""
    weights = np.arange(1, len(crowd) + 1, dtype=np.float64) ** -ZIPF
    drawn = np.random.default_rng(seed).choice(len(crowd), n, p=weights / weights.sum())
    return [crowd[i] for i in drawn]

"""Which arm of the experiment a customer is in: sticky, by salted hash, independent of a decision's random key."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from service.decision.model import Experiment

NBA, HOLDOUT, RANDOM, PROPENSITY_ONLY = "nba", "holdout", "random", "propensity_only"
ARMS = (NBA, HOLDOUT, RANDOM, PROPENSITY_ONLY)


def fraction(salt: str, customer_id: str) -> float:
    """Map a customer to [0, 1) with 53 bits of blake2b keyed by the salt (at most 64 bytes of UTF-8)."""
    digest = hashlib.blake2b(customer_id.encode(), digest_size=8, key=salt.encode()).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def assign_arms(experiment: Experiment, customer_ids: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Assign arms by cumulative shares.

    Returns:
        (n_customers,) names of arms, and (n_customers,) their shares.
    """
    # The last arm takes what rounding leaves, so that no fraction falls off the end.
    bounds = list(accumulate(share for _, share in experiment.arms))[:-1]
    drawn = [experiment.arms[bisect_right(bounds, fraction(experiment.salt, i))] for i in customer_ids]
    return tuple(name for name, _ in drawn), np.array([share for _, share in drawn], dtype=np.float64)

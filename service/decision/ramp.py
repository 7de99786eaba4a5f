"""Which customers may see a new action yet: a share that grows with its positives, the same customers every time."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from service.decision.exploration import mix
from service.decision.model import Ramp

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Keys = NDArray[np.uint64]


def keys_of(texts: Sequence[str], salt: str = "") -> Keys:
    """Hash texts to 64 bits each."""
    digests = [blake2b(text.encode(), digest_size=8, key=salt.encode()).digest() for text in texts]
    return np.array([int.from_bytes(digest, "big") for digest in digests], dtype=np.uint64)


def within_reach(
    ramp: Ramp, salt: str, customer_ids: Sequence[str], action_keys: Keys, is_ramped: Bools, positives: Floats
) -> Bools:
    """Say which actions have come as far as which customers.

    Each pair of customer and action has a fixed place in [0, 1); within reach is who lies below the share.

    Args:
        salt: Of the experiment. customer_ids: (n_customers,).
        action_keys: (m,) `keys_of` the candidates' actions. is_ramped: (m,) for which a ramp holds.
        positives: (n_customers or 1, m) how many positives stand behind each.

    Returns:
        (n_customers, m), or (1, m) where all are within reach.
    """
    shares = ramp.least_reach + (1.0 - ramp.least_reach) * np.minimum(positives / ramp.full_positives, 1.0)
    is_short = is_ramped & (shares < 1.0)
    if not is_short.any():
        return ~is_short
    places = mix(keys_of(customer_ids, salt)[:, None] ^ action_keys)
    reached: Bools = ~is_short | (places < shares)
    return reached

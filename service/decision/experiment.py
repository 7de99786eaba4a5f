"""Which arm of each layer a customer is in: sticky, by salted hash, independent of a decision's random key.

Every layer hashes the customer with its own name, so that layers are independent of each other. Within a layer each
arm draws its own exponential clock -ln(u) / share from the hash and the first to ring has the customer (weighted
rendezvous hashing, Thaler and Ravishankar 1998): arm j is taken with probability share_j whatever the others' order,
a customer moves only into an arm whose share grew or out of one whose share shrank, and who is new moves nobody.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.model import Experiment

NBA, HOLDOUT, RANDOM, PROPENSITY_ONLY = "nba", "holdout", "random", "propensity_only"
NO_LEVERS, CHALLENGER = "no_levers", "challenger"
ARMS = (NBA, HOLDOUT, RANDOM, PROPENSITY_ONLY, NO_LEVERS, CHALLENGER)
"""Arms of the first layer; a name's place here is its place in the hash, so the order is fixed for good."""
CATALOGUED, UNEXPLORED = "catalogued", "none"
EXPLORATION_ARMS = (CATALOGUED, UNEXPLORED)
TREATED, HELD = "treated", "held_out"
_HOLDOUT_ARMS = (TREATED, HELD)

Bools = NDArray[np.bool_]
Layer = tuple[str, str, float]
"""Name of the layer, arm, share of the arm."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """The arms of n customers.

    Attributes:
        arms: (n,) of the first layer.
        layers: (n,) every layer of a customer, the first one first.
        probabilities: (n,) products of the shares.
    """

    arms: tuple[str, ...]
    layers: tuple[tuple[Layer, ...], ...]
    probabilities: NDArray[np.float64]


def uniforms(salt: str, name: str, customer_id: str) -> list[float]:
    """Map a customer to eight numbers in (0, 1), odd multiples of 2^-54, by blake2b keyed with the salt."""
    digest = hashlib.blake2b(f"{name}\0{customer_id}".encode(), digest_size=64, key=salt.encode()).digest()
    return [((int.from_bytes(digest[k : k + 8], "big") >> 11) + 0.5) * 2.0**-53 for k in range(0, 64, 8)]


def assign(experiment: Experiment, customer_ids: Sequence[str], *, has_challenger: bool = False) -> Assigned:
    """Assign the arms of all layers.

    Args:
        has_challenger: Without one, the challenger's customers are in `nba`, which then has the share of both.
    """
    merged = {} if has_challenger else {CHALLENGER: NBA}
    layers = [_Layer("arms", ARMS, dict(experiment.arms), merged)]
    if experiment.exploration:
        layers.append(_Layer("exploration", EXPLORATION_ARMS, dict(experiment.exploration), {}))
    for issue, share in experiment.holdouts:
        layers.append(_Layer(f"holdout.{issue}", _HOLDOUT_ARMS, {TREATED: 1.0 - share, HELD: share}, {}))
    assigned = tuple(tuple(layer.assign(experiment.salt, customer) for layer in layers) for customer in customer_ids)
    probabilities = np.array([math.prod(share for _, _, share in of) for of in assigned], dtype=np.float64)
    return Assigned(tuple(of[0][1] for of in assigned), assigned, probabilities)


class _Layer:
    def __init__(self, name: str, arms: tuple[str, ...], shares: dict[str, float], merged: dict[str, str]) -> None:
        self.name = name
        self.clocks = [(arms.index(arm), shares[arm], arm) for arm in shares if shares[arm] > 0]
        told = {arm: merged.get(arm, arm) for arm in shares}
        total = {name: sum(share for arm, share in shares.items() if told[arm] == name) for name in told.values()}
        self.found = {arm: (name, told[arm], total[told[arm]]) for arm in shares}

    def assign(self, salt: str, customer_id: str) -> Layer:
        drawn = uniforms(salt, self.name, customer_id)
        _, arm = min((-math.log(drawn[k]) / share, arm) for k, share, arm in self.clocks)
        return self.found[arm]


def is_exploring(layers: Sequence[Sequence[Layer]]) -> Bools:
    """Say for whom the catalogue's exploration holds, (n_customers,)."""
    unexplored = [any(name == "exploration" and arm == UNEXPLORED for name, arm, _ in of) for of in layers]
    return ~np.array(unexplored, dtype=np.bool_)


def held_issues(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the issues whose marketing a customer is not shown."""
    return tuple(name.removeprefix("holdout.") for name, arm, _ in layers if arm == HELD)

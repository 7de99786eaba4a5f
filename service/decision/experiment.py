"""Which arm of each layer a customer is in: sticky, by salted hash, independent of a decision's random key.

Every layer hashes the customer with its own name, so that layers are independent of each other. Within a layer each
arm draws its own exponential clock -ln(u) / share from the hash and the first to ring has the customer (weighted
rendezvous hashing, Thaler and Ravishankar 1998): arm j is taken with probability share_j whatever the others' order,
a customer moves only into an arm whose share grew or out of one whose share shrank, and who is new moves nobody.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.decision.model import Experiment

NBA, HOLDOUT, RANDOM, PROPENSITY_ONLY = "nba", "holdout", "random", "propensity_only"
NO_LEVERS, CHALLENGER = "no_levers", "challenger"
ARMS = (NBA, HOLDOUT, RANDOM, PROPENSITY_ONLY, NO_LEVERS, CHALLENGER)
"""Arms of the first layer; a name's place here is its place in the hash, so the order is fixed for good."""
CATALOGUED, UNEXPLORED = "catalogued", "none"
EXPLORATION_ARMS = (CATALOGUED, UNEXPLORED)
_NOT_EXPLORING = ("exploration", UNEXPLORED)
TREATED, HELD = "treated", "held_out"
_HOLDOUT_ARMS = (TREATED, HELD)

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


def uniform(digest: bytes, place: int) -> float:
    """Return the number at one of the eight places of a digest, in (0, 1], by 53 bits."""
    return ((int.from_bytes(digest[8 * place : 8 * place + 8], "big") >> 11) + 0.5) * 2.0**-53


def digest_of(salt: str, layer: str, customer_id: str) -> bytes:
    """Hash a customer for a layer: 64 bytes of blake2b keyed with the salt, of at most 64 bytes itself."""
    return hashlib.blake2b(f"{layer}\0{customer_id}".encode(), digest_size=64, key=salt.encode()).digest()


@dataclass(frozen=True)
class Layers:
    """The layers of an experiment, ready to assign."""

    salt: str
    layers: tuple[_Layer, ...]

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, experiment: Experiment, *, has_challenger: bool) -> Layers:
        """Prepare the layers; without a challenger its customers are in `nba`, which then has the share of both."""
        merged = {} if has_challenger else {CHALLENGER: NBA}
        layers = [_Layer.of("arms", ARMS, dict(experiment.arms), merged)]
        if experiment.exploration:
            layers.append(_Layer.of("exploration", EXPLORATION_ARMS, dict(experiment.exploration), {}))
        for issue, share in experiment.holdouts:
            layers.append(_Layer.of(f"holdout.{issue}", _HOLDOUT_ARMS, {TREATED: 1.0 - share, HELD: share}, {}))
        return cls(experiment.salt, tuple(layers))

    def assign(self, customer_ids: Sequence[str]) -> Assigned:
        """Assign the arms of all layers."""
        assigned = tuple([tuple([layer.assign(self.salt, i) for layer in self.layers]) for i in customer_ids])
        probabilities = np.array([math.prod([share for _, _, share in of]) for of in assigned], dtype=np.float64)
        return Assigned(tuple([of[0][1] for of in assigned]), assigned, probabilities)


@dataclass(frozen=True)
class _Layer:
    """One layer: the place in the hash and the share of each arm, and what is told of who is in it."""

    name: str
    clocks: tuple[tuple[int, float, Layer], ...]

    @classmethod
    def of(cls, name: str, arms: Sequence[str], shares: Mapping[str, float], merged: Mapping[str, str]) -> _Layer:
        told = {arm: merged.get(arm, arm) for arm in shares}
        total = {to: sum(share for arm, share in shares.items() if told[arm] == to) for to in told.values()}
        clocks = [
            (arms.index(arm), share, (name, told[arm], total[told[arm]])) for arm, share in shares.items() if share > 0
        ]
        return cls(name, tuple(clocks))

    def assign(self, salt: str, customer_id: str) -> Layer:
        if len(self.clocks) == 1:
            return self.clocks[0][2]
        digest = digest_of(salt, self.name, customer_id)
        return min([(-math.log(uniform(digest, place)) / share, layer) for place, share, layer in self.clocks])[1]


def assign(experiment: Experiment, customer_ids: Sequence[str], *, has_challenger: bool = False) -> Assigned:
    """Assign the arms of all layers; see `Layers.of`."""
    return Layers.of(experiment, has_challenger=has_challenger).assign(customer_ids)


def is_exploring(layers: Sequence[Layer]) -> bool:
    """Say whether the catalogue's exploration holds for a customer."""
    return _NOT_EXPLORING not in [layer[:2] for layer in layers]


def held_issues(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the issues whose marketing a customer is not shown."""
    return tuple(name.removeprefix("holdout.") for name, arm, _ in layers if arm == HELD)

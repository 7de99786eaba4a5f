"""What is written down: identities, the columns of the decision log and the layout of a bundle, as plain data.

Fixed for good, since every stored byte leans on it: the number of partitions, how a customer maps to one, how a
decision id carries it, the random key of a decision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, sha256

PARTITIONS = 64
"""Streams and state keys of a customer carry the tag of one of these; never changed after the first write."""

RESERVATION_SECONDS = 1800.0
"""A decision without an impression counts as one for this long where the catalogue does not say it for the channel."""

MOST_ROOM = 2**15 - 1
"""The most that a counter's room can be, also where its policy does not bind; no answer can use up so much."""

CONTACTS_DAYS = 92.0
"""How far back contacts are kept and counted: no cap may have a longer window."""


_DECISION_ID = re.compile("([0-9]{2})-[0-9a-f]{32}")


@lru_cache(maxsize=1024)
def _digest(customer_id: str) -> bytes:
    return blake2b(customer_id.encode(), digest_size=16).digest()


def customer_digest(customer_id: str) -> str:
    """Return the 32 hex digits that stand for the customer in keys, so that no byte of an id can shape a key."""
    return _digest(customer_id).hex()


def partition_of(customer_id: str) -> int:
    """Return the customer's partition, 0..63."""
    return int.from_bytes(_digest(customer_id)[:2], "big") % PARTITIONS


def tag(partition: int) -> str:
    """Return the hash tag that keeps all keys of a partition on one node."""
    return f"{{p{partition:02d}}}"


def decision_id_from(token: bytes, customer_id: str) -> str:
    """Make a decision id from 16 bytes: two digits of the partition, a dash, 32 hex digits."""
    return f"{partition_of(customer_id):02d}-{token.hex()}"


def derived_token(idempotency_key: str, customer_id: str) -> bytes:
    """Return the 16 bytes of the decision that an Idempotency-Key stands for, so that a retry meets its first try."""
    return blake2b(f"{idempotency_key}\0{customer_id}".encode(), digest_size=16, person=b"nba-idempotency").digest()


def partition_of_decision(decision_id: str) -> int | None:
    """Return the partition that a decision id carries, or None where the text is no decision id."""
    found = _DECISION_ID.fullmatch(decision_id)
    if found is None:
        return None
    partition = int(found[1])
    return partition if partition < PARTITIONS else None


def random_key(decision_id: str, customer_id: str) -> int:
    """Return the 64-bit key from which all draws of a decision are made."""
    return int.from_bytes(blake2b(f"{decision_id}\0{customer_id}".encode(), digest_size=8).digest(), "big")


Placed = tuple[int, str, float]
"""(candidate, placement, selection_probability) of a choice."""


@dataclass(slots=True)
class DecisionRow:
    """One row of the decision log: all that the decision was made from, beside catalogue and bundle, and what it was.

    Nobody changes a row; it is not frozen because making one of so many fields then costs several times as much.

    Candidate columns are in the order of `treatment_ids`; bytes are little-endian arrays. `replay.decide_again` makes
    the decision anew from it.

    Attributes:
        placements, context, issues, limit, locale: What was asked, as of `model.Request`.
        layers: (layer, arm, probability) of every layer of the experiment; `arm_probability` is their product.
        bundle_digest: Of the bundle that scored; "" where there was none.
        stages: int8 `Stage`. reasons: int32.
        propensities, priorities: float64, NaN where the candidate never came so far.
        uplifts: float64, what the priority was made of instead of the propensity, NaN where it was not; may be empty.
        evidence: (candidate, positives, expected) where any came in since the model was made.
        facts: float64 as served, (layout.width,), NaN where missing or stale. view_times: float64, (n_views,).
        consents: (purpose, 1 granted | 0 refused) on the channel; what is unknown is absent.
        time_zone: The customer's own; "" where none is known.
        paused: (scope, id) of the switches in force.
        room: int16, what the caps left, a counter each.
        is_known, is_loggable: As of `model.CustomerBatch`.
        chosen, withheld: In order.
        distributions: A slot each: placement, int16 candidates, float64 P(candidate in the slot) given the arm and what
            was placed before; the candidates that are absent have probability 0.
        reselected: A cap was used up by another channel and selection ran again: not for off-policy estimates.
    """

    decision_id: str
    customer_id: str
    decision_time: float
    channel: str
    placements: tuple[tuple[str, int], ...]
    context: tuple[tuple[str, float], ...]
    issues: tuple[str, ...]
    limit: int
    locale: str
    arm: str
    arm_probability: float
    layers: tuple[tuple[str, str, float], ...]
    catalogue_version: str
    model_version: str
    features_version: str
    bundle_digest: str
    treatment_ids: tuple[str, ...]
    stages: bytes
    reasons: bytes
    propensities: bytes
    priorities: bytes
    uplifts: bytes
    evidence: tuple[tuple[int, float, float], ...]
    facts: bytes
    view_times: bytes
    consents: tuple[tuple[str, int], ...]
    time_zone: str
    paused: tuple[tuple[str, str], ...]
    room: bytes
    is_known: bool
    is_loggable: bool
    chosen: tuple[Placed, ...]
    withheld: tuple[Placed, ...]
    distributions: tuple[tuple[str, bytes, bytes], ...]
    degraded_reasons: tuple[str, ...]
    reselected: bool
    dry_run: bool


DEGRADED_REASONS = (
    "cold_start",
    "features_partial",
    "features_stale",
    "features_unavailable",
    "log_unavailable",
    "model_missing",
    "state_rebuilding",
    "state_unavailable",
    "time_zone_unknown",
)
"""The closed list of why an answer is less than it could be."""

BUNDLE_FILES = (
    "model.txt",
    "calibrator.json",
    "contract.json",
    "plan.json",
    "cold_start.json",
    "evidence.json",
    "golden.json",
)
"""Files of a bundle beside manifest.json, which holds the SHA-256 of each, and the versions of model and features."""

EFFECT_FILES = ("uplift.txt", "uplift.json")
"""Files of a bundle that also knows what showing an action changes; both or neither."""

FILES_TAG = "files_sha256"
"""Tag of a model version: `files_digest` of what training wrote, kept apart from the files themselves."""


def files_digest(files: Mapping[str, bytes]) -> str:
    """Return one SHA-256 for a model's files, by the names that they have in a bundle, without the plan."""
    names = [name for name in (*BUNDLE_FILES, *EFFECT_FILES) if name in files and name != "plan.json"]
    listed = "".join(f"{sha256(files[name]).hexdigest()}  {name}\n" for name in names)
    return sha256(listed.encode()).hexdigest()

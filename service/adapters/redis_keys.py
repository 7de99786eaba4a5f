"""The keys of the state store, fixed for good: every stored byte leans on them. Knows names only, no connection.

`{pNN}` is the hash tag of the customer's partition (`decision.record.partition_of`): one script's keys lie on one node.

nba:{pNN}:contacts:<customer digest>    sorted set, a contact each: score = Unix seconds, member =
                                        kind|decision_id|action_id|issue|group|treatment_id|channel|is_marketing (1/0)|
                                        placement
nba:{pNN}:consent:<customer digest>     hash: channel|purpose -> granted (1/0)|expiry or empty|source|at, and
                                        time_zone -> IANA name|source|at
nba:{pNN}:decision:<decision_id>        msgpack [journal id, [customer_id, customer digest, time, channel,
                                        [[action_id, issue, group, treatment_id, is_marketing, placement],
                                        ...]]]
nba:{pNN}:answer:<decision_id>          request digest, newline, answer; only with an Idempotency-Key
nba:{pNN}:seen:<o or e>:<id digest>     digest of the body of an outcome or event already taken
nba:{pNN}:parked:<decision_id>          list: outcomes, msgpack, that came before their decision
nba:{pNN}:evidence                      hash: action_id|<type of outcome> -> decayed sum|moment it is anchored at;
                                        action_id|expected the same of the propensities shown; version -> count
nba:{pNN}:journal                       stream: k = decision, outcome, orphan, event, shadow or switch; v = msgpack
                                        (journal_entries.py)
nba:{pNN}:lease, nba:{pNN}:fence        owner of the partition with its fencing token; the last token given
nba:{pNN}:applied, nba:{pNN}:intent     last event whose facts are in the feature store; what is being pushed right now
nba:{pNN}:poison                        stream of entries set aside: id, k, v, error
nba:{pNN}:erased:<keyed hash>           tombstone of a customer: receipt id; nothing of theirs is taken in any more
nba:{pNN}:erasures                      hash: receipt id -> msgpack [customer_id, keyed hash, asked at, asked by,
                                        journal id]; until the worker has removed the customer
nba:{p00}:workers                       sorted set: worker -> server milliseconds until which it counts
nba:{p00}:epoch                         Unix seconds since when the state is whole; missing: it was emptied
nba:{p00}:switches                      hash: scope|id -> JSON who, why, at of a pause
"""

from __future__ import annotations

from hashlib import blake2b

from service.decision.record import PARTITIONS, customer_digest, partition_of, partition_of_decision, tag

SWITCHES = "nba:{p00}:switches"
EPOCH = "nba:{p00}:epoch"
WORKERS = "nba:{p00}:workers"
TIME_ZONE = b"time_zone"
"""The field of what a customer said that is no consent."""
_PREFIXES = tuple(f"nba:{tag(partition)}:" for partition in range(PARTITIONS))


def of_partition(partition: int, name: str) -> str:
    """Return a partition's own key: journal, evidence, lease, fence, applied, intent or poison."""
    return f"nba:{tag(partition)}:{name}"


def of_record(decision_id: str, customer_id: str, keyed_hash: str) -> list[str]:
    """Return the keys of `record.lua` in their order: contacts, decision, answer, journal, tombstone."""
    partition = partition_of_decision(decision_id)
    prefix = _PREFIXES[partition_of(decision_id) if partition is None else partition]
    safe = customer_digest(decision_id) if partition is None else decision_id
    return [
        f"{_PREFIXES[partition_of(customer_id)]}contacts:{customer_digest(customer_id)}",
        f"{prefix}decision:{safe}",
        f"{prefix}answer:{safe}",
        f"{prefix}journal",
        f"{prefix}erased:{keyed_hash}",
    ]


def contacts(customer_id: str) -> str:
    """Return the key of a customer's contacts."""
    return f"nba:{tag(partition_of(customer_id))}:contacts:{customer_digest(customer_id)}"


def consent(customer_id: str) -> str:
    """Return the key of a customer's consents."""
    return f"nba:{tag(partition_of(customer_id))}:consent:{customer_digest(customer_id)}"


def decision(decision_id: str) -> str:
    """Return the key under which outcomes find their decision."""
    return f"nba:{tag(partition_of_id(decision_id))}:decision:{_safe(decision_id)}"


def answer(decision_id: str) -> str:
    """Return the key of the answer kept for a repeat."""
    return f"nba:{tag(partition_of_id(decision_id))}:answer:{_safe(decision_id)}"


def parked(decision_id: str) -> str:
    """Return the key of the outcomes that wait for their decision."""
    return f"nba:{tag(partition_of_id(decision_id))}:parked:{_safe(decision_id)}"


def seen(partition: int, kind: str, caller_id: str) -> str:
    """Return the key that remembers a caller's id; `kind` is o (outcome) or e (event)."""
    return f"nba:{tag(partition)}:seen:{kind}:{blake2b(caller_id.encode(), digest_size=16).hexdigest()}"


def erased(partition: int, keyed_hash: str) -> str:
    """Return the key of a customer's tombstone."""
    return f"nba:{tag(partition)}:erased:{keyed_hash}"


def partition_of_id(decision_id: str) -> int:
    """Return the partition of a decision id; a text that is no decision id is given one by its hash, to park it."""
    partition = partition_of_decision(decision_id)
    return partition_of(decision_id) if partition is None else partition


def _safe(decision_id: str) -> str:
    return decision_id if partition_of_decision(decision_id) is not None else customer_digest(decision_id)

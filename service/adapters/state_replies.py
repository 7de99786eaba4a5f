"""Reads what the state keeps of a customer: contacts, consents, time zone, switches. Pure; keys: `redis_keys.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from service.adapters.connection import Reply
from service.adapters.redis_keys import TIME_ZONE
from service.decision.consent import Said, consent_codes
from service.decision.model import Contacts, Showing

_CONTACT = ("kind", "decision_id", *Showing._fields)
Stated = tuple[tuple[Mapping[str, int], ...], tuple[str, ...]]


def contacts_of_batch(replies: Sequence[Reply]) -> Contacts:
    """Turn the sorted sets of a batch, each [member, score, ...], into contacts."""
    customers: list[int] = []
    times: list[float] = []
    kinds: list[str] = []
    decision_ids: list[str] = []
    showings: list[Showing] = []
    for i, stored in enumerate(replies):
        for member in stored[::2]:
            kind, decision_id, shown = member.decode().split("|", 2)
            kinds.append(kind)
            decision_ids.append(decision_id)
            showings.append(showing_of(shown))
        times += map(float, stored[1::2])
        customers += [i] * (len(stored) // 2)
    return Contacts(
        np.array(customers, dtype=np.int64),
        np.array(times, dtype=np.float64),
        tuple(kinds),
        tuple(decision_ids),
        tuple(showings),
    )


@lru_cache(maxsize=20_000)
def showing_of(text: str) -> Showing:
    """Read what a stored contact says was shown; there are as many texts as catalogues ever had forms."""
    action_id, issue, group, treatment_id, channel, is_marketing, placement = text.split("|")
    return Showing(action_id, issue, group, treatment_id, channel, is_marketing == "1", placement)


def contacts_as_data(stored: Sequence[Reply]) -> list[dict[str, Any]]:
    """Return one customer's sorted set as plain data, oldest first."""
    contacts = []
    for member, score in zip(stored[::2], stored[1::2], strict=True):
        contact: dict[str, Any] = dict(zip(_CONTACT, member.decode().split("|"), strict=True))
        contacts.append({**contact, "is_marketing": contact["is_marketing"] == "1", "time": float(score)})
    return contacts


def stated(replies: Sequence[Reply], channel: str, now: float) -> Stated:
    """Turn what customers said, each [field, value, ...], into consents on a channel as of now, and time zones."""
    consents, time_zones = [], []
    for reply in replies:
        said, time_zone = {}, ""
        for field, value in zip(reply[::2], reply[1::2], strict=True):
            if field == TIME_ZONE:
                time_zone = value.decode().partition("|")[0]
            else:
                where, _, purpose = field.decode().partition("|")
                said[where, purpose] = _word(value.decode())
        consents.append(consent_codes(said, channel, now))
        time_zones.append(time_zone)
    return tuple(consents), tuple(time_zones)


def _word(value: str) -> Said:
    granted, expiry, rest = value.split("|", 2)
    return Said(granted == "1", float(expiry) if expiry else math.inf, float(rest.rpartition("|")[2]))


def consents_as_data(stored: Sequence[Reply]) -> list[dict[str, Any]]:
    """Return one customer's consents as plain data."""
    pairs = zip(stored[::2], stored[1::2], strict=True)
    return [consent_as_data(field.decode(), value.decode()) for field, value in pairs if field != TIME_ZONE]


def time_zone_as_data(stored: Sequence[Reply]) -> dict[str, Any] | None:
    """Return one customer's time zone as plain data, None where it is not known."""
    for field, value in zip(stored[::2], stored[1::2], strict=True):
        if field == TIME_ZONE:
            name, source, at = value.decode().split("|")
            return {"time_zone": name, "source": source, "at": float(at)}
    return None


def consent_as_data(field: str, value: str) -> dict[str, Any]:
    """Return a stored consent as plain data; times are Unix seconds."""
    channel, _, purpose = field.partition("|")
    granted, expiry, rest = value.split("|", 2)
    source, _, at = rest.rpartition("|")
    return {
        "channel": channel,
        "purpose": purpose,
        "granted": granted == "1",
        "expiry": float(expiry) if expiry else None,
        "source": source,
        "at": float(at),
    }


def switch_of(field: bytes) -> tuple[str, str]:
    """Return (scope, id) of a pause."""
    scope, _, scope_id = field.decode().partition("|")
    return scope, scope_id

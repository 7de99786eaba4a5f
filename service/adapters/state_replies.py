"""Reads what the state store keeps of a customer: contacts, consents, switches. Pure; keys are in `redis_keys.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from service.adapters.connection import Reply
from service.decision.model import Contacts
from service.decision.record import RESERVATION_SECONDS

GRANTED, REFUSED, UNKNOWN = 1, 0, -1
_CONTACT = ("kind", "decision_id", "action_id", "issue", "group", "treatment_id", "channel", "is_marketing")


def contacts_of_batch(replies: Sequence[Reply], now: float) -> Contacts:
    """Turn the sorted sets of a batch into contacts.

    A decision without an impression yet is a reservation: for RESERVATION_SECONDS it counts as an impression as well.
    """
    customers: list[int] = []
    times: list[float] = []
    kinds: list[str] = []
    action_ids: list[str] = []
    channels: list[str] = []

    def add(customer: int, time: float, kind: str, action_id: str, channel: str) -> None:
        customers.append(customer)
        times.append(time)
        kinds.append(kind)
        action_ids.append(action_id)
        channels.append(channel)

    for i, stored in enumerate(replies):
        reserved: dict[tuple[str, str], tuple[float, str]] = {}
        shown: set[tuple[str, str]] = set()
        for member, score in zip(stored[::2], stored[1::2], strict=True):
            kind, decision_id, action_id, _, _, _, channel, _ = member.decode().split("|")
            time = float(score)
            add(i, time, kind, action_id, channel)
            if kind == "impression":
                shown.add((decision_id, action_id))
            elif kind == "decision" and now - time < RESERVATION_SECONDS:
                reserved[decision_id, action_id] = (time, channel)
        for (decision_id, action_id), (time, channel) in reserved.items():
            if (decision_id, action_id) not in shown:
                add(i, time, "impression", action_id, channel)
    return Contacts(
        np.array(customers, dtype=np.int64),
        np.array(times, dtype=np.float64),
        tuple(kinds),
        tuple(action_ids),
        tuple(channels),
    )


def contacts_as_data(stored: Sequence[Reply]) -> list[dict[str, Any]]:
    """Return one customer's sorted set as plain data, oldest first."""
    contacts = []
    for member, score in zip(stored[::2], stored[1::2], strict=True):
        contact: dict[str, Any] = dict(zip(_CONTACT, member.decode().split("|"), strict=True))
        contacts.append({**contact, "is_marketing": contact["is_marketing"] == "1", "time": float(score)})
    return contacts


def consent_code(value: str, now: float) -> int:
    """Return what a stored consent says as of `now`: GRANTED, REFUSED, or UNKNOWN where the grant has expired."""
    granted, expiry, _ = value.split("|", 2)
    if granted != "1":
        return REFUSED
    return UNKNOWN if expiry and float(expiry) <= now else GRANTED


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

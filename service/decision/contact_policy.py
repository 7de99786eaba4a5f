"""Which actions the frequency caps still leave room for. Knows contacts and limits; nothing of rules, scores or slots.

A cap has one counter, or one for each issue, group or action (`scope_id` "*"). All counters of all caps stand in one
row of numbers a customer, so that counting is one `bincount` for a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.model import Action, Cap, Catalogue, Contacts

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
SHOWN = ("decision", "impression")
"""Contacts of these kinds follow from being placed; the others are the customer's."""


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter of one cap: the cap's position, and the issue, group or action it counts ("" for all)."""

    cap: int
    key: str


@dataclass(frozen=True)
class CapTable:
    """The caps of a catalogue as arrays.

    Attributes:
        caps: In catalogue order.
        counters: Every counter, in order of its cap.
        counter_of: (n_actions + 1, n_caps) which counter an action counts on, -1 for none; the last row is for an
            action that the catalogue no longer has.
        cap_of: (n_counters,) position of a counter's cap.
        limits: (n_counters,).
        is_spent: (n_counters,) whether placing an action takes room from it.
    """

    caps: tuple[Cap, ...]
    action_index: dict[str, int]
    counters: tuple[Counter, ...]
    counter_of: Ints
    cap_of: Ints
    limits: Ints
    is_spent: Bools

    @classmethod
    def of(cls, catalogue: Catalogue) -> CapTable:
        """Resolve the scopes of all caps."""
        positions: dict[Counter, int] = {}
        counter_of = np.full((len(catalogue.actions) + 1, len(catalogue.caps)), -1, dtype=np.int64)
        for c, cap in enumerate(catalogue.caps):
            for a, action in enumerate((*catalogue.actions, None)):
                key = counter_key(cap, action)
                if key is not None:
                    counter_of[a, c] = positions.setdefault(Counter(c, key), len(positions))
        counters = tuple(positions)
        return cls(
            catalogue.caps,
            dict(catalogue.index),
            counters,
            counter_of,
            np.array([k.cap for k in counters], dtype=np.int64),
            np.array([catalogue.caps[k.cap].limit for k in counters], dtype=np.int64),
            np.array([catalogue.caps[k.cap].counted in SHOWN for k in counters], dtype=np.bool_),
        )

    def room(self, contacts: Contacts, n_customers: int, channel: str, now: float) -> Ints:
        """Count contacts in their windows and say what is left of each limit.

        Args:
            contacts: Interaction history of the batch.
            n_customers: Size of the batch.
            channel: The request's channel: a cap on other channels does not bind here.
            now: Decision time, Unix seconds; a window opens after now - window.

        Returns:
            (n_customers, n_counters), 0 or less where a cap is used up.
        """
        n_counters = len(self.counters)
        room = np.broadcast_to(self.limits, (n_customers, n_counters)).copy()
        if len(contacts.times) and n_counters:
            rows, columns = self._counted(contacts, now)
            counts = np.bincount(rows * n_counters + columns, minlength=n_customers * n_counters)
            room -= counts.reshape(n_customers, n_counters)
        elsewhere = [c for c, cap in enumerate(self.caps) if cap.channels and channel not in cap.channels]
        if elsewhere:
            room[:, np.isin(self.cap_of, elsewhere)] = np.iinfo(np.int32).max
        return room

    def _counted(self, contacts: Contacts, now: float) -> tuple[Ints, Ints]:
        """Return (customer, counter) of every contact that counts on a counter."""
        gone = len(self.action_index)
        actions = np.array([self.action_index.get(a, gone) for a in contacts.action_ids], dtype=np.int64)
        ages = now - contacts.times
        rows, columns = [], []
        for c, cap in enumerate(self.caps):
            # A contact ahead of `now` is clock skew between processes: it happened, so it counts.
            is_counted = _equals(contacts.kinds, (cap.counted,)) & (ages < cap.window_seconds)
            if cap.channels:
                is_counted &= _equals(contacts.channels, cap.channels)
            counters = self.counter_of[actions, c]
            is_counted &= counters >= 0
            rows.append(contacts.customers[is_counted])
            columns.append(counters[is_counted])
        return np.concatenate(rows), np.concatenate(columns)


def _equals(texts: Sequence[str], wanted: tuple[str, ...]) -> Bools:
    return np.array([text in wanted for text in texts], dtype=np.bool_)


def counter_key(cap: Cap, action: Action | None) -> str | None:
    """Return the key of the counter on which an action counts for a cap, or None if the cap is not about it.

    Args:
        action: None for an action that the catalogue no longer has: it was shown, so it counts on the widest scopes.
    """
    if cap.scope == "all":
        return ""
    if cap.scope == "marketing":
        return "" if action is None or action.is_marketing else None
    if action is None:
        return None
    key = {"issue": action.issue, "group": action.group, "action": action.id}[cap.scope]
    return key if cap.scope_id in ("*", key) else None

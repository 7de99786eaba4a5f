"""Which actions the frequency caps still leave room for. Knows contacts and limits; nothing of rules, scores or slots.

A cap has one counter, or one for each issue, group or action (`scope_id` "*"). All counters of all caps stand in one
row of numbers a customer, so that counting is one `bincount` for a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.model import Action, Cap, Catalogue, Contacts

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
UNBOUND = 2**31
KINDS = {kind: code for code, kind in enumerate(("decision", "impression", "click", "accept", "reject", "conversion"))}
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
        limits: channel -> (n_counters,) limits, `UNBOUND` where the cap is on other channels.
        spent_together: (caps) positions of those that several actions of one answer could use up together.
        spent_counters: (k,) the counters of these caps.
    """

    caps: tuple[Cap, ...]
    counters: tuple[Counter, ...]
    counter_of: Ints
    limits: Mapping[str, Ints]
    spent_together: tuple[int, ...]
    spent_counters: Ints
    _actions: Mapping[str, int]
    _channels: Mapping[str, int]
    _kinds: Ints
    _windows: NDArray[np.float64]
    _on_channel: Bools

    @classmethod
    def of(cls, catalogue: Catalogue) -> CapTable:
        """Resolve the scopes of all caps."""
        caps = catalogue.caps
        positions: dict[Counter, int] = {}
        counter_of = np.full((len(catalogue.actions) + 1, len(caps)), -1, dtype=np.int64)
        for c, cap in enumerate(caps):
            for a, action in enumerate((*catalogue.actions, None)):
                key = counter_key(cap, action)
                if key is not None:
                    counter_of[a, c] = positions.setdefault(Counter(c, key), len(positions))
        counters = tuple(positions)
        # A counter of a single action is not among these: no action is placed twice in an answer.
        together = tuple(c for c, cap in enumerate(caps) if cap.counted in SHOWN and cap.scope != "action")
        # The last row stands for a channel that the catalogue no longer has: caps on all channels still count it.
        channels = [*catalogue.channels, None]
        on_channel = [[not cap.channels or channel in cap.channels for cap in caps] for channel in channels]
        return cls(
            caps,
            counters,
            counter_of,
            {channel: _limits(caps, counters, channel) for channel in catalogue.channels},
            together,
            np.array([k for k, counter in enumerate(counters) if counter.cap in together], dtype=np.int64),
            dict(catalogue.index),
            {channel: k for k, channel in enumerate(catalogue.channels)},
            np.array([KINDS[cap.counted] for cap in caps], dtype=np.int64),
            np.array([cap.window_seconds for cap in caps], dtype=np.float64),
            np.array(on_channel, dtype=np.bool_).reshape(len(channels), len(caps)),
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
        limits = self.limits[channel]
        n_counters = len(limits)
        if not len(contacts.times) or not n_counters:
            return np.broadcast_to(limits, (n_customers, n_counters)).copy()
        customers, counters = self._counted(contacts, now)
        counts = np.bincount(customers * n_counters + counters, minlength=n_customers * n_counters)
        return limits - counts.reshape(n_customers, n_counters)

    def _counted(self, contacts: Contacts, now: float) -> tuple[Ints, Ints]:
        """Return (customer, counter) of every contact that counts on a counter."""
        gone, elsewhere = len(self._actions), len(self._channels)
        kinds = np.array([KINDS.get(kind, -1) for kind in contacts.kinds])
        actions = np.array([self._actions.get(action, gone) for action in contacts.action_ids])
        channels = np.array([self._channels.get(channel, elsewhere) for channel in contacts.channels])
        counters = self.counter_of[actions]
        # A contact ahead of `now` is clock skew between processes: it happened, so it counts.
        is_counted = (now - contacts.times)[:, None] < self._windows
        is_counted &= kinds[:, None] == self._kinds
        is_counted &= self._on_channel[channels]
        is_counted &= counters >= 0
        rows, caps = np.nonzero(is_counted)
        return contacts.customers[rows], counters[rows, caps]


def _limits(caps: Sequence[Cap], counters: Sequence[Counter], channel: str) -> Ints:
    binding = [not caps[k.cap].channels or channel in caps[k.cap].channels for k in counters]
    limits = [caps[k.cap].limit if binds else UNBOUND for k, binds in zip(counters, binding, strict=True)]
    return np.array(limits, dtype=np.int64)


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
    # What needs no consent is always available: it is capped only where a cap names it.
    is_bound = action.is_marketing if cap.scope_id == "*" else cap.scope_id == key
    return key if is_bound else None

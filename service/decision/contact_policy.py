"""How often and when a customer may be contacted: caps, cool-offs, quiet hours. Knows contacts, limits and the time.

Knows nothing of rules, scores or slots. A policy has one counter, or one for each issue, group, action or treatment
(`scope_id` "*"). All counters of all policies stand in one row of whole numbers a customer, the *room*: how many
contacts each still allows. Whatever the policy is, 0 excludes. The atomic script of the state counts by the same words;
a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.contact_counts import KINDS, ContactRows, Windows, reserved
from service.decision.contact_scope import Counter, Policy, binds, counter_key
from service.decision.model import Action, Cap, Catalogue, Contacts, LocalTimes, QuietHours, Showing, Treatment
from service.decision.record import MOST_ROOM

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
UNBOUND = MOST_ROOM
"""Room where a policy does not bind."""
SHOWN = ("decision", "impression")
"""Contacts of these kinds follow from being placed; the others are the customer's."""


@dataclass(frozen=True)
class CapTable:
    """The contact policies of a catalogue as arrays.

    Attributes:
        policies: Caps and cool-offs in catalogue order, then quiet hours.
        counters: Every counter, in order of its policy.
        limits: channel -> (n_counters,) limits, `UNBOUND` where the policy is on other channels or is no cap.
        spent_together: Positions of caps that several actions of one answer could use up together.
        on_placements: Positions of caps on some placements only: they bind when a slot is filled.
        watched_counters: (k,) the counters of both.
    """

    policies: tuple[Policy, ...]
    counters: tuple[Counter, ...]
    limits: Mapping[str, Ints]
    spent_together: tuple[int, ...]
    on_placements: tuple[int, ...]
    watched_counters: Ints
    _positions: Mapping[Counter, int]
    _windows: Windows
    _rows: ContactRows
    _quiet: Mapping[str, tuple[tuple[QuietHours, Ints], ...]]

    @classmethod
    def of(cls, catalogue: Catalogue) -> CapTable:
        """Resolve the scopes of all policies."""
        policies: tuple[Policy, ...] = (*catalogue.caps, *catalogue.quiet_hours)
        positions: dict[Counter, int] = {}
        showings = _showings(catalogue)
        for p, policy in enumerate(policies):
            for showing in showings:
                key = counter_key(policy, showing)
                if key is not None:
                    positions.setdefault(Counter(p, key), len(positions))
        counters = tuple(positions)
        on_placements = tuple(p for p, policy in enumerate(policies) if isinstance(policy, Cap) and policy.placements)
        together = tuple(p for p, policy in enumerate(policies) if _is_spent_together(policy))
        watched = {*together, *on_placements}
        return cls(
            policies,
            counters,
            {channel: _limits(policies, counters, channel) for channel in catalogue.channels},
            together,
            on_placements,
            np.array([k for k, counter in enumerate(counters) if counter.policy in watched], dtype=np.int64),
            positions,
            Windows.of(policies),
            ContactRows(policies, positions, catalogue.reservations),
            {channel: _quiet_on(policies, counters, channel) for channel in catalogue.channels},
        )

    @property
    def placements_named(self) -> frozenset[str]:
        """Return the placements on which some cap holds alone."""
        return frozenset(p for policy in self.policies if isinstance(policy, Cap) for p in policy.placements)

    def counters_of(self, action: Action, treatment: Treatment, placement: str = "") -> list[int]:
        """Return on which counter a candidate is checked for every policy, -1 for none: (n_policies,).

        Args:
            placement: Only policies on this placement; "" for those on any placement.
        """
        showing = _showing(action, treatment)
        found = []
        for p, policy in enumerate(self.policies):
            key = counter_key(policy, showing)
            named = policy.placements if isinstance(policy, Cap) else ()
            is_bound = key is not None and (placement in named if placement else not named)
            found.append(self._positions[Counter(p, key)] if key is not None and is_bound else -1)
        return found

    def used_up(self, room: Ints) -> list[Policy]:
        """Return the policies that leave no room on some counter, for one customer's room: (n_counters,)."""
        full = sorted({self.counters[k].policy for k in np.flatnonzero(room <= 0).tolist()})
        return [self.policies[p] for p in full]

    def room(self, contacts: Contacts, channel: str, now: float, local: LocalTimes) -> Ints:
        """Count contacts in their windows, look at the clock, and say what is left of each limit.

        Args:
            contacts: Interaction history of the batch.
            channel: The request's channel: a policy on other channels does not bind here.
            now: Decision time, Unix seconds.
            local: The customers' calendars as of now.

        Returns:
            (n_customers, n_counters) from 0, where a policy excludes, to `UNBOUND`.
        """
        limits = self.limits[channel]
        n, n_counters = len(local.seconds_of_day), len(limits)
        if len(contacts.times) and n_counters:
            cells = self._counted(contacts, now, local)
            counts = np.bincount(cells, minlength=n * n_counters)
            room: Ints = np.maximum(limits - counts.reshape(n, n_counters), 0)
        else:
            room = np.broadcast_to(limits, (n, n_counters)).copy()
        for quiet, counters in self._quiet[channel]:
            room[np.ix_(is_quiet(quiet, local.seconds_of_day), counters)] = 0
        return room

    def _counted(self, contacts: Contacts, now: float, local: LocalTimes) -> Ints:
        """Return customer x n_counters + counter of every contact that counts, once each time that it counts."""
        rows = self._rows.of(contacts.showings)
        counters = self._rows.counters.take(rows, axis=0)
        kinds = np.array([KINDS.get(kind, -1) for kind in contacts.kinds])
        # A contact ahead of `now` is clock skew between processes: it happened, so it counts.
        is_counted = contacts.times[:, None] > self._windows.since(now, local).take(contacts.customers, axis=0)
        is_kind = kinds[:, None] == self._windows.kinds
        is_reserved = reserved(contacts, kinds, now - self._rows.reservations[rows])
        if np.count_nonzero(is_reserved):
            is_kind |= is_reserved[:, None] & (self._windows.kinds == KINDS["impression"])
        is_counted &= is_kind
        is_counted &= counters >= 0
        where, policies = is_counted.nonzero()
        cells: Ints = contacts.customers[where] * len(self.counters) + counters[where, policies]
        by_message = self._windows.by_message[policies]
        if not np.count_nonzero(by_message):
            return cells
        codes: dict[str, int] = {}
        messages = np.array([codes.setdefault(decision, len(codes)) for decision in contacts.decision_ids])
        once = np.unique(cells[by_message] * len(codes) + messages[where[by_message]]) // len(codes)
        return np.concatenate([cells[~by_message], once])


def _showings(catalogue: Catalogue) -> list[Showing]:
    actions = {action.id: action for action in catalogue.actions}
    return [_showing(actions[treatment.action_id], treatment) for treatment in catalogue.treatments]


def _showing(action: Action, treatment: Treatment) -> Showing:
    return Showing(action.id, action.issue, action.group, treatment.id, treatment.channel, action.is_marketing, "")


def _is_spent_together(policy: Policy) -> bool:
    # A counter of a single action is not among these: no action is placed twice in an answer.
    return (
        isinstance(policy, Cap)
        and policy.counted in SHOWN
        and policy.unit == "action"
        and policy.scope not in ("action", "treatment")
    )


def _limits(policies: Sequence[Policy], counters: Sequence[Counter], channel: str) -> Ints:
    limits = []
    for counter in counters:
        policy = policies[counter.policy]
        limits.append(policy.limit if isinstance(policy, Cap) and binds(policy, channel) else UNBOUND)
    return np.array(limits, dtype=np.int64)


def _quiet_on(
    policies: Sequence[Policy], counters: Sequence[Counter], channel: str
) -> tuple[tuple[QuietHours, Ints], ...]:
    return tuple(
        (policy, np.array([k for k, counter in enumerate(counters) if counter.policy == p], dtype=np.int64))
        for p, policy in enumerate(policies)
        if isinstance(policy, QuietHours) and binds(policy, channel)
    )


def is_quiet(quiet: QuietHours, seconds_of_day: Floats) -> Bools:
    """Return (n,) whether it is between the hours, local time; they may go over midnight."""
    after, before = seconds_of_day >= quiet.starts, seconds_of_day < quiet.ends
    return after & before if quiet.starts < quiet.ends else after | before

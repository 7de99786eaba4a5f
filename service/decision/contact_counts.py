"""Which contacts count: windows of time, kinds, reservations, and what was shown -> its counters. Knows no limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.contact_scope import Counter, Policy, counter_key, counts
from service.decision.model import CALENDAR, CONTACT_KINDS, Cap, Contacts, LocalTimes, Showing
from service.decision.record import RESERVATION_SECONDS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

KINDS = {kind: code for code, kind in enumerate(CONTACT_KINDS)}
ROWS_KEPT = 20_000


@dataclass(frozen=True)
class Windows:
    """When and what the policies count.

    Attributes:
        kinds: (n_policies,) code of the kind counted, -2 for quiet hours.
        by_message: (n_policies,) whether all actions of a decision count as one.
    """

    kinds: Ints
    by_message: Bools
    _seconds: Floats
    _calendars: tuple[tuple[int, Ints], ...]
    """(row of `LocalTimes.starts`, policies)."""

    @classmethod
    def of(cls, policies: Sequence[Policy]) -> Windows:
        """Resolve the windows."""
        caps = [policy if isinstance(policy, Cap) else None for policy in policies]
        calendars = ((row, [p for p, cap in enumerate(caps) if cap and cap.calendar == name])
                     for row, name in enumerate(CALENDAR))  # fmt: skip
        return cls(
            np.array([KINDS[cap.counted] if cap else -2 for cap in caps], dtype=np.int64),
            np.array([cap is not None and cap.unit == "message" for cap in caps], dtype=np.bool_),
            np.array([cap.window_seconds if cap else 0.0 for cap in caps], dtype=np.float64),
            tuple((row, np.array(columns)) for row, columns in calendars if columns),
        )

    def since(self, now: float, local: LocalTimes) -> Floats:
        """Return (n_customers, n_policies) the moment after which a contact is in the window."""
        since = np.empty((len(local.seconds_of_day), len(self._seconds)))
        since[:] = now - self._seconds
        for row, columns in self._calendars:
            # The first moment of a day belongs to it: "after the last moment before".
            since[:, columns] = np.nextafter(local.starts[row], -np.inf)[:, None]
        return since


class ContactRows:
    """Resolves what was shown to the counters it counts on, once for each distinct thing that was ever shown.

    Attributes:
        counters: (n_rows, n_policies) position of the counter, -1 for none.
        reservations: (n_rows,) seconds.
    """

    def __init__(
        self, policies: Sequence[Policy], positions: Mapping[Counter, int], reservations: Mapping[str, float]
    ) -> None:
        self._policies, self._positions, self._seconds = policies, positions, reservations
        self._forget()

    def _forget(self) -> None:
        self._rows: dict[Showing, int] = {}
        self.counters = np.empty((0, len(self._policies)), dtype=np.int64)
        self.reservations = np.empty(0)

    def of(self, showings: Sequence[Showing]) -> Ints:
        """Return (n,) the row of each."""
        try:
            return np.array([self._rows[showing] for showing in showings], dtype=np.int64)
        except KeyError:
            self._learn(showings)
            return self.of(showings)

    def _learn(self, showings: Sequence[Showing]) -> None:
        """Add what is new; forget all else first where there is too much, as after many catalogues."""
        if len(self._rows) > ROWS_KEPT:
            self._forget()
        new = [showing for showing in dict.fromkeys(showings) if showing not in self._rows]
        counters = [[self._counter(p, policy, s) for p, policy in enumerate(self._policies)] for s in new]
        shape = (len(new), len(self._policies))
        self.counters = np.concatenate([self.counters, np.array(counters, dtype=np.int64).reshape(shape)])
        seconds = [self._seconds.get(showing.channel, RESERVATION_SECONDS) for showing in new]
        self.reservations = np.concatenate([self.reservations, seconds])
        for showing in new:
            self._rows[showing] = len(self._rows)

    def _counter(self, p: int, policy: Policy, showing: Showing) -> int:
        if not counts(policy, showing):
            return -1
        key = counter_key(policy, showing)
        return -1 if key is None else self._positions.get(Counter(p, key), -1)


def reserved(contacts: Contacts, kinds: Ints, since: Floats) -> Bools:
    """Return (n_contacts,) which are decisions whose impression may still come: they count as one until then."""
    is_reserved: Bools = (kinds == KINDS["decision"]) & (contacts.times > since)
    if np.count_nonzero(is_reserved):
        shown = {_what(contacts, k) for k in np.flatnonzero(kinds == KINDS["impression"]).tolist()}
        for k in np.flatnonzero(is_reserved).tolist():
            is_reserved[k] = _what(contacts, k) not in shown
    return is_reserved


def _what(contacts: Contacts, k: int) -> tuple[int, str, str]:
    return int(contacts.customers[k]), contacts.decision_ids[k], contacts.showings[k].action_id

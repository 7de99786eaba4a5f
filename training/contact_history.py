"""The contacts of simulated households, as the core reads them, and how tired each household is of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain, compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.layout import SECONDS_PER_DAY
from service.decision.model import Cap, Catalogue, Choice, Contacts, Decisions, Showing
from service.decision.record import CONTACTS_DAYS
from training.traffic import Touch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_LONGEST_MONTH = 32 * SECONDS_PER_DAY
"""A month and the hours by which its start may be earlier in the customer's time zone."""


class Tiredness:
    """How many contacts n households have seen lately.

    Attributes:
        contacts: (n,) faded with the half-life, as of the last `fade`.
    """

    def __init__(self, n: int, fade_days: float) -> None:
        self.contacts: Floats = np.zeros(n)
        self._fade_days, self._at = fade_days, -np.inf

    def fade(self, now: float) -> None:
        """Bring the sums to `now`, Unix seconds."""
        if now > self._at:
            self.contacts *= np.exp2(-(now - self._at) / SECONDS_PER_DAY / self._fade_days)
            self._at = now

    def add(self, households: Ints) -> None:
        """Count one contact for each household named, as often as it is named."""
        np.add.at(self.contacts, households, 1.0)


def longest_window(caps: Iterable[Cap]) -> float:
    """Return for how many seconds a contact of the simulation, a decision or an impression, can count at most."""
    counted = [cap for cap in caps if cap.counted in ("decision", "impression")]
    return max((_LONGEST_MONTH if cap.calendar else cap.window_seconds for cap in counted), default=0.0)


def within(contacts: Contacts, since: float) -> Contacts:
    """Return the contacts from a moment on, Unix seconds: what no cap counts need not be counted."""
    is_kept = contacts.times >= since
    kept = is_kept.tolist()
    return Contacts(
        contacts.customers[is_kept],
        contacts.times[is_kept],
        tuple(compress(contacts.kinds, kept)),
        tuple(compress(contacts.decision_ids, kept)),
        tuple(compress(contacts.showings, kept)),
    )


class ContactHistory:
    """Contacts of n households, a list for each of moments, kinds, decisions and what was shown, oldest first."""

    def __init__(self, n: int) -> None:
        self._times: list[list[float]] = [[] for _ in range(n)]
        self._kinds: list[list[str]] = [[] for _ in range(n)]
        self._decision_ids: list[list[str]] = [[] for _ in range(n)]
        self._showings: list[list[Showing]] = [[] for _ in range(n)]

    def show(
        self, household: int, touch: Touch, decision_id: str, decisions: Decisions, terms: Catalogue, choice: Choice,
        *, is_seen: bool,
    ) -> None:  # fmt: skip
        """Write down that an action was placed, and that it was seen."""
        treatment = terms.treatments[decisions.candidates[choice.candidate]]
        action = terms.actions[decisions.actions[choice.candidate]]
        showing = Showing(
            action.id, action.issue, action.group, treatment.id, touch.channel, action.is_marketing, choice.placement
        )
        for kind in ("decision", "impression") if is_seen else ("decision",):
            self._times[household].append(touch.moment)
            self._kinds[household].append(kind)
            self._decision_ids[household].append(decision_id)
            self._showings[household].append(showing)

    def of(self, households: Ints, now: float) -> Contacts:
        """Return the contacts of some households; forgets what no cap can count any more."""
        oldest, chosen = now - CONTACTS_DAYS * SECONDS_PER_DAY, households.tolist()
        for household in chosen:
            if self._times[household] and self._times[household][0] < oldest:
                self._forget(household, oldest)

        def joined(column: list[list[Any]]) -> Iterator[Any]:
            return chain.from_iterable(column[household] for household in chosen)

        counts = [len(self._times[household]) for household in chosen]
        return Contacts(
            np.repeat(np.arange(len(chosen), dtype=np.int64), counts),
            np.fromiter(joined(self._times), np.float64, sum(counts)),
            tuple(joined(self._kinds)),
            tuple(joined(self._decision_ids)),
            tuple(joined(self._showings)),
        )

    def _forget(self, household: int, oldest: float) -> None:
        stale = bisect_left(self._times[household], oldest)
        columns: tuple[list[list[Any]], ...] = (self._times, self._kinds, self._decision_ids, self._showings)
        for column in columns:
            del column[household][:stale]

    def reached(self, since: float) -> int:
        """Count the households with a contact since a moment, Unix seconds."""
        return sum(bool(times) and times[-1] >= since for times in self._times)

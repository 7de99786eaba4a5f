"""The contacts of simulated households, as the core reads them, and how tired each household is of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.layout import SECONDS_PER_DAY
from service.decision.model import Catalogue, Choice, Contacts, Decisions, Showing
from service.decision.record import CONTACTS_DAYS
from training.traffic import Touch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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


class ContactHistory:
    """Contacts of n households."""

    def __init__(self, n: int) -> None:
        self._past: list[list[tuple[float, str, str, Showing]]] = [[] for _ in range(n)]

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
        past = self._past[household]
        past.append((touch.moment, "decision", decision_id, showing))
        if is_seen:
            past.append((touch.moment, "impression", decision_id, showing))

    def of(self, households: Ints, now: float) -> Contacts:
        """Return the contacts of some households; forgets what no cap can count any more."""
        oldest = now - CONTACTS_DAYS * SECONDS_PER_DAY
        found: list[tuple[int, float, str, str, Showing]] = []
        for row, household in enumerate(households.tolist()):
            past = self._past[household]
            if past and past[0][0] < oldest:
                past[:] = [contact for contact in past if contact[0] >= oldest]
            found.extend((row, *contact) for contact in past)
        rows, times, kinds, decision_ids, showings = zip(*found, strict=True) if found else ((), (), (), (), ())
        return Contacts(
            np.array(rows, dtype=np.int64), np.array(times, dtype=np.float64), kinds, decision_ids, showings
        )

    def reached(self, since: float) -> int:
        """Count the households with a contact since a moment, Unix seconds."""
        return sum(bool(past) and past[-1][0] >= since for past in self._past)

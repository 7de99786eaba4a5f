"""When households can be reached in the simulated world: their real shopping days, and a calendar of mailings.

The same for every policy, drawn from the seed alone, so that two policies meet the same households on the same days.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.contract import UTC_OFFSET_HOURS
from features.layout import SECONDS_PER_DAY
from training.sources import connect

Ints = NDArray[np.int64]

APP_ON_SHOPPING_DAYS, APP_ON_OTHER_DAYS = 0.5, 0.04
MAILING_HOURS: Mapping[str, float] = {"email": 7.0, "mailer": 9.0, "app": 12.0, "till": 18.0}
"""Local hour at which a channel's decisions of a day are made, in this order."""
EMAIL_WEEKDAY, MAILER_DAY = 1, 1
"""E-mail goes out on Tuesdays, the mailer on the first of a month."""


@dataclass(frozen=True, slots=True)
class Touch:
    """All households that one channel reaches at one moment.

    Attributes:
        day: Days since the start. moment: Unix seconds. households: positions, ascending.
    """

    day: int
    moment: float
    channel: str
    households: Ints


class Traffic:
    """Who can be reached when."""

    def __init__(self, history: Path, customer_ids: NDArray[np.str_], start: datetime, days: int, seed: int) -> None:
        """Read the shopping days of the customers.

        Args:
            history: Folder of the tidy tables.
            customer_ids: (n,) in the order of their positions.
            start: First local midnight; aware. days: How many days. seed: Of app visits.
        """
        self.start, self.days, self.seed, self.n = start.timestamp(), days, seed, len(customer_ids)
        first = int((self.start + UTC_OFFSET_HOURS * 3600) // SECONDS_PER_DAY)
        position = {str(customer): i for i, customer in enumerate(customer_ids)}
        with connect() as con:
            found = con.execute(
                "SELECT DISTINCT customer_id, local_day FROM read_parquet(?) WHERE local_day >= ? AND local_day < ?",
                [f"{history}/lines.parquet", first, first + days],
            ).fetchall()
        self._shops = np.zeros((days, self.n), dtype=np.bool_)
        for customer, local_day in found:
            if customer in position:
                self._shops[local_day - first, position[customer]] = True
        self._first = np.datetime64("1970-01-01") + np.timedelta64(first, "D")

    def of_day(self, day: int) -> Iterator[Touch]:
        """Yield the touches of a day in the order of their hours."""
        date = (self._first + np.timedelta64(day, "D")).astype(datetime)
        for channel, hour in MAILING_HOURS.items():
            reached = self._reached(channel, day, date.weekday(), date.day)
            if len(reached):
                yield Touch(day, self.start + day * SECONDS_PER_DAY + hour * 3600, channel, reached)

    def _reached(self, channel: str, day: int, weekday: int, of_month: int) -> Ints:
        if channel == "till":
            return np.flatnonzero(self._shops[day])
        if channel == "app":
            chance = np.where(self._shops[day], APP_ON_SHOPPING_DAYS, APP_ON_OTHER_DAYS)
            return np.flatnonzero(np.random.default_rng((self.seed, day)).random(self.n) < chance)
        is_due = weekday == EMAIL_WEEKDAY if channel == "email" else of_month == MAILER_DAY
        return np.arange(self.n) if is_due else np.empty(0, dtype=np.int64)

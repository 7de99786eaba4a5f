"""Local calendars: a moment and an IANA zone -> where the customer's day, week and month began, and the time of day.

The only place that reads the time zone database (zoneinfo), once a zone and calendar day. A day begins at the first
moment of its date: where clocks skip midnight, at the moment after the gap; where they repeat it, at the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from service.decision.model import CALENDAR, LocalTimes


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time with one local date and one offset: [opens, closes), Unix seconds."""

    opens: float
    closes: float
    offset: float
    starts: tuple[float, float, float]
    """Where the day, the week (Monday) and the month began."""


class LocalClock:
    """The local calendar of one zone."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._span = Span(0.0, 0.0, 0.0, (0.0, 0.0, 0.0))

    def at(self, now: float) -> Span:
        """Return the span of a moment; the one of the call before is at hand."""
        span = self._span
        if not span.opens <= now < span.closes:
            span = self._span = self._span_from(now)
        return span

    def _span_from(self, now: float) -> Span:
        local = datetime.fromtimestamp(now, self._zone)
        today = local.date()
        starts = [today, today - timedelta(days=today.weekday()), today.replace(day=1)]
        closes = first_moment(today + timedelta(days=1), self._zone)
        offset = self._offset(now)
        # After a clock is set back over midnight, the next date may have begun before; the day is then a moment long.
        closes = max(closes, now + 1.0)
        if self._offset(closes) != offset:
            closes = _change(self._zone, now, closes)
        day, week, month = (first_moment(first, self._zone) for first in starts)
        return Span(now, closes, offset, (day, week, month))

    def _offset(self, moment: float) -> float:
        return _offset_at(moment, self._zone)


def first_moment(day: date, zone: ZoneInfo) -> float:
    """Return the first moment at which the zone's clocks show `day` or later, Unix seconds."""
    midnight = datetime.combine(day, time(), zone)
    first = midnight.timestamp()
    if datetime.fromtimestamp(first, zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return first
    # Clocks skip this midnight: the gap is entered between these two readings of it (PEP 495).
    return _change(zone, midnight.replace(fold=1).timestamp(), first)


def _change(zone: ZoneInfo, before: float, after: float) -> float:
    """Return the first whole second in (before, after] with another offset than `before`."""
    low, high = int(before // 1), int(-(-after // 1))
    offset = _offset_at(before, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset_at(middle, zone) == offset:
            low = middle
        else:
            high = middle
    return float(high)


def _offset_at(moment: float, zone: ZoneInfo) -> float:
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    return offset.total_seconds() if offset else 0.0


@lru_cache(maxsize=1024)
def clock_of(name: str) -> LocalClock | None:
    """Return the clock of a zone by its IANA name, or None where the database has none of that name."""
    try:
        return LocalClock(ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def local_times(names: Sequence[str], default: str, now: float) -> tuple[LocalTimes, list[bool]]:
    """Return the calendars of customers as of now, and whose zone the database does not know.

    Args:
        names: A zone a customer; "" for `default`, as is a zone that is not known.
        default: The catalogue's zone; it was checked at load.
    """
    home = clock_of(default) or LocalClock(ZoneInfo("UTC"))
    clocks = [clock_of(name) if name else home for name in names]
    spans = [(clock or home).at(now) for clock in clocks]
    starts = np.array([span.starts for span in spans]).reshape(len(spans), len(CALENDAR))
    seconds = (now + np.array([span.offset for span in spans])) % 86_400.0
    return LocalTimes(np.ascontiguousarray(starts.T), seconds), [clock is None for clock in clocks]

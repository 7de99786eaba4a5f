"""A name of the IANA time zone database -> `decision.local_time.Zone`, for as long as a catalogue may be in use."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from service.decision.local_time import Zone

FIRST, LAST = dt.datetime(2000, 1, 1, tzinfo=dt.UTC), dt.datetime(2060, 1, 1, tzinfo=dt.UTC)
STEP_SECONDS = 7 * 86_400
"""No zone has had a summer time shorter than this."""


def known_zones() -> list[str]:
    """Return the names of all zones, sorted."""
    return sorted(available_timezones())


@lru_cache(maxsize=16)
def zone_of(name: str) -> Zone:
    """Resolve a zone: every change of its offset from 2000 to 2060, to the second.

    Raises:
        KeyError: There is no such zone.
    """
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise KeyError(name) from None
    first, last = int(FIRST.timestamp()), int(LAST.timestamp())
    moments, offsets = [], [_offset(zone, first)]
    for start in range(first, last, STEP_SECONDS):
        end = min(start + STEP_SECONDS, last)
        if _offset(zone, end) != offsets[-1]:
            moments.append(float(_change(zone, start, end)))
            offsets.append(_offset(zone, end))
    return Zone(name, tuple(moments), tuple(offsets))


def _change(zone: ZoneInfo, start: int, end: int) -> int:
    """Return the first second with the offset of `end`."""
    after = _offset(zone, end)
    while end - start > 1:
        middle = (start + end) // 2
        if _offset(zone, middle) == after:
            end = middle
        else:
            start = middle
    return end


def _offset(zone: ZoneInfo, moment: int) -> float:
    offset = dt.datetime.fromtimestamp(moment, zone).utcoffset()
    return 0.0 if offset is None else offset.total_seconds()

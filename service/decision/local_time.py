"""Local time of a zone as plain numbers: what the clock and the calendar showed at a moment. Knows no zone database."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Zone:
    """A time zone.

    Attributes:
        name: As the IANA database has it.
        moments: Unix seconds at which the offset changes, ascending.
        offsets: Seconds east of UTC, one more than there are moments: before the first, from the first on, ...
    """

    name: str = "UTC"
    moments: tuple[float, ...] = ()
    offsets: tuple[float, ...] = (0.0,)

    def local(self, now: float) -> float:
        """Return the local time as seconds since 1970-01-01 00:00 local."""
        return now + self.offsets[bisect_right(self.moments, now)]


def part_of(part: str, local: float) -> float:
    """Return a part of a local moment, as DuckDB's function of that name does.

    Args:
        part: One of `expression.MOMENT_PARTS`.
        local: Seconds since 1970-01-01 00:00 local.
    """
    days, second = divmod(local, SECONDS_PER_DAY)
    if part == "hour":
        return second // 3600
    if part == "dayofweek":  # 1970-01-01 was a Thursday
        return (days + 4) % 7
    if part == "isodow":
        return (days + 3) % 7 + 1
    year, month, day = civil_from_days(int(days))
    return float({"year": year, "month": month, "day": day}[part])


def civil_from_days(days: int) -> tuple[int, int, int]:
    """Return year, month and day of a day counted from 1970-01-01 (H. Hinnant, chrono-compatible date algorithms)."""
    era, day_of_era = divmod(days + 719_468, 146_097)
    year = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)  # from 1 March
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    return year + era * 400 + (month >= 10), month + 3 if month < 10 else month - 9, day

"""Local time in the core, where no zone database is, is that of the zone database."""

from __future__ import annotations

import datetime as dt
import random
from zoneinfo import ZoneInfo

import pytest

from service.catalogue.zones import zone_of
from service.decision.expression import MOMENT_PARTS
from service.decision.local_time import civil_from_days, part_of

ZONES = ("UTC", "Europe/Lisbon", "America/Santiago", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca")


@pytest.mark.parametrize("name", ZONES)
def test_local_time_is_the_zone_databases(name: str) -> None:
    """Every part of 2,000 random moments, and of the seconds around every change of the offset, is the local one."""
    zone, told, rng = zone_of(name), ZoneInfo(name), random.Random(name)
    drawn = [float(rng.randrange(946_684_800, 2_840_140_800)) for _ in range(2_000)]
    for moment in (*drawn, *(change + d for change in zone.moments for d in (-1, 0, 1))):
        local = dt.datetime.fromtimestamp(moment, told)
        expected = (local.hour, local.day, local.month, local.year, local.isoweekday() % 7, local.isoweekday())
        assert tuple(part_of(part, zone.local(moment)) for part in MOMENT_PARTS) == expected


def test_days_of_four_centuries() -> None:
    """Year, month and day of every day from 1800 to 2200 are the calendar's."""
    start = dt.date(1800, 1, 1)
    for n in range(146_097):
        day = start + dt.timedelta(days=n)
        assert civil_from_days((day - dt.date(1970, 1, 1)).days) == (day.year, day.month, day.day)


def test_an_unknown_zone() -> None:
    """A zone that the database does not have is refused, whatever its name tries."""
    for name in ("Europe/Lisboa", "../../etc/passwd", "", "a" * 999):
        with pytest.raises(KeyError):
            zone_of(name)

"""Local calendars against an oracle that walks minute by minute."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from service.catalogue.time_zones import clock_of, first_moment, local_times
from service.decision.model import LocalTimes

ZONES = (
    "America/Santiago", "Europe/Lisbon", "Atlantic/Azores", "America/Havana", "Asia/Beirut", "Africa/Casablanca",
    "America/St_Johns", "Australia/Lord_Howe", "Pacific/Chatham", "America/Nuuk", "Asia/Kathmandu", "Europe/Bucharest",
)  # fmt: skip
MARGIN_DAYS = 40
"""A month before the first instant, so that its start is walked over too."""


def moment(*when: int) -> float:
    """Return a UTC date and time as Unix seconds."""
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


class Walk:
    """Walks a year of a zone minute by minute and remembers when each day, week and month was first seen."""

    def __init__(self, zone: str, year: int) -> None:
        info = ZoneInfo(zone)
        self.opens = moment(year, 1, 1)
        self.first: list[dict[object, int]] = [{}, {}, {}]
        begin = int(self.opens) - MARGIN_DAYS * 86_400
        for at in range(begin, int(moment(year + 1, 1, 1)), 60):
            day = datetime.fromtimestamp(at, info).date()
            if day not in self.first[0]:
                for seen, key in zip(self.first, self.keys(day), strict=True):
                    seen.setdefault(key, at)

    @staticmethod
    def keys(day: date) -> tuple[object, object, object]:
        """Return what names the day, its week and its month."""
        return day, day.isocalendar()[:2], (day.year, day.month)

    def starts(self, now: float, zone: str) -> list[float]:
        """Return where the day, week and month of a moment were first seen."""
        day = datetime.fromtimestamp(now, ZoneInfo(zone)).date()
        return [float(seen[key]) for seen, key in zip(self.first, self.keys(day), strict=True)]


def mismatches(zone: str, year: int, instants: int, chance: random.Random) -> int:
    """Count the random instants of a year at which calendar and walk differ; half of them lie near a day's edge."""
    walk, clock, wrong = Walk(zone, year), clock_of(zone), 0
    assert clock is not None
    edges = [at for at in walk.first[0].values() if at > walk.opens]
    for k in range(instants):
        near = chance.choice(edges) + chance.randint(-5400, 5400)
        now = min(near, moment(year + 1, 1, 1) - 60) if k % 2 else walk.opens + chance.randint(0, 364 * 86_400)
        local = datetime.fromtimestamp(now, ZoneInfo(zone))
        seconds = local.hour * 3600 + local.minute * 60 + local.second
        span = clock.at(now)
        told = (now + span.offset) % 86_400
        wrong += list(span.starts) != walk.starts(now, zone) or abs(told - seconds) > 1e-3
    return wrong


@pytest.mark.parametrize(("zone", "year"), [("America/Santiago", 2026), ("Europe/Lisbon", 2026)])
def test_calendar_is_what_a_minute_walk_sees(zone: str, year: int) -> None:
    """At 2,000 instants of a year with skipped and repeated hours, day, week and month began where a walk saw them."""
    assert mismatches(zone, year, 2_000, random.Random(7)) == 0


@pytest.mark.prove
def test_calendar_is_what_a_minute_walk_sees_in_twelve_zones() -> None:
    """At 108,000 instants of 12 zones and 3 years no start and no time of day differs from a walk's."""
    chance = random.Random(8)
    found = {(zone, year): mismatches(zone, year, 3_000, chance) for zone in ZONES for year in (2017, 2026, 2027)}
    print(f"{3_000 * len(found):,} instants, {len(ZONES)} zones, {sum(found.values())} differences")
    assert set(found.values()) == {0}


def test_a_day_without_midnight_begins_after_the_gap() -> None:
    """In Santiago, 6 September 2026 begins at 01:00 local time: 04:00 UTC."""
    assert first_moment(date(2026, 9, 6), ZoneInfo("America/Santiago")) == moment(2026, 9, 6, 4)


def test_a_midnight_that_comes_twice_begins_the_day_the_first_time() -> None:
    """In the Azores clocks go back from 01:00 to 00:00 on 25 October 2026: the day begins before that."""
    assert first_moment(date(2026, 10, 25), ZoneInfo("Atlantic/Azores")) == moment(2026, 10, 25, 0)


def test_a_date_that_was_skipped_begins_with_the_next() -> None:
    """Samoa had no 30 December 2011: it begins where the 31st does."""
    apia = ZoneInfo("Pacific/Apia")
    assert first_moment(date(2011, 12, 30), apia) == first_moment(date(2011, 12, 31), apia) == moment(2011, 12, 30, 10)


def test_customers_live_by_their_own_zone_or_the_default() -> None:
    """A zone of one's own counts; none is the default; one that is not known is the default and is said."""
    now = moment(2026, 6, 3, 2, 30)
    local, is_unknown = local_times(["Asia/Tokyo", "", "Mars/Olympus"], "America/New_York", now)
    assert is_unknown == [False, False, True]
    assert local.seconds_of_day.tolist() == [11.5 * 3600, 22.5 * 3600, 22.5 * 3600]
    assert local.starts[0].tolist() == [moment(2026, 6, 2, 15), moment(2026, 6, 2, 4), moment(2026, 6, 2, 4)]
    assert local.starts[1].tolist() == [moment(2026, 5, 31, 15), moment(2026, 6, 1, 4), moment(2026, 6, 1, 4)]


@pytest.mark.parametrize("name", ["../etc/passwd", "/etc/localtime", "", "Europe", "Europe/Lisboa", "a\0b"])
def test_what_is_no_zone_has_no_clock(name: str) -> None:
    """Paths, folders and misspelt names are no zones."""
    assert clock_of(name) is None


def test_utc_of_the_core_is_the_database_s() -> None:
    """Customers whose zone nobody asked for live by the UTC that the database has."""
    for now in np.random.default_rng(1).uniform(0, 4e9, 200).tolist():
        ours, theirs = LocalTimes.utc(now, 1), local_times([""], "UTC", now)[0]
        assert ours.starts.tolist() == theirs.starts.tolist()
        assert ours.seconds_of_day[0] == pytest.approx(theirs.seconds_of_day[0])

"""The clocks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from service.adapters.clock import (
    ClockFileError,
    OffsetClock,
    SimulatedClock,
    WallClock,
    open_clock,
    write_clock,
)


def test_without_a_file_the_wall_clock_holds(tmp_path: Path) -> None:
    """No clock file means the machine's time."""
    clock = open_clock(tmp_path / "clock.json")
    assert isinstance(clock, WallClock)
    assert time.time() - 1 <= clock.now() <= time.time() + 1


def test_an_offset_moves_the_wall_clock_by_its_seconds(tmp_path: Path) -> None:
    """An offset clock runs as the wall clock does, moved by the offset."""
    write_clock(tmp_path / "clock.json", mode="offset", offset_seconds=-1e6)
    clock = open_clock(tmp_path / "clock.json")
    assert isinstance(clock, OffsetClock)
    before = time.time()
    assert before - 1e6 <= clock.now() <= time.time() - 1e6


def test_a_simulated_clock_stands_until_its_file_is_rewritten(tmp_path: Path) -> None:
    """A simulated clock gives the file's time, follows a rewrite, and keeps the last time when the file goes."""
    path = tmp_path / "clock.json"
    write_clock(path, mode="simulated", now=1000.0)
    clock = open_clock(path)
    assert isinstance(clock, SimulatedClock)
    assert [clock.now(), clock.now()] == [1000.0, 1000.0]
    write_clock(path, mode="simulated", now=2000.5)
    assert clock.now() == 2000.5
    path.unlink()
    assert clock.now() == 2000.5


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not readable as JSON"),
        ("[]", "JSON object"),
        ('{"mode": "fast"}', "mode is 'fast'"),
        ('{"mode": "offset"}', "'offset_seconds' must be a number"),
        ('{"mode": "simulated", "now": "noon"}', "'now' must be a number"),
        ('{"mode": "offset", "offset_seconds": true}', "must be a number"),
        ('{"mode": "simulated", "now": NaN}', "must be a number"),
    ],
)
def test_a_damaged_clock_file_is_refused_by_name(tmp_path: Path, content: str, complaint: str) -> None:
    """A clock file that cannot be understood is an error naming the file and the field, never the wall clock."""
    path = tmp_path / "clock.json"
    path.write_text(content)
    with pytest.raises(ClockFileError, match=complaint) as error:
        open_clock(path)
    assert str(path) in str(error.value)

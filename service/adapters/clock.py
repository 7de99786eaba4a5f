"""The three clocks: wall, offset by a fixed time, simulated. Decides what `now` is; nothing else may read the time.

`var/clock.json` says which one holds, for all processes on the same folder: `{"mode": "offset", "offset_seconds": x}`
or `{"mode": "simulated", "now": x}`; no file means the wall clock.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from service.ports import Clock


class ClockFileError(ValueError):
    """The clock file cannot be read; it must not be ignored, since processes would disagree about `now`."""


class WallClock:
    """The machine's time."""

    def now(self) -> float:
        """Return Unix seconds UTC."""
        return time.time()


class OffsetClock:
    """The machine's time moved by a fixed number of seconds: the demo's "now" follows the last day of the data."""

    def __init__(self, offset_seconds: float) -> None:
        self.offset_seconds = offset_seconds

    def now(self) -> float:
        """Return Unix seconds UTC."""
        return time.time() + self.offset_seconds


class SimulatedClock:
    """A time that stands still until the file is rewritten. One `stat` a call; read only when it changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._now = math.nan
        self.now()

    def now(self) -> float:
        """Return Unix seconds UTC. While the file is gone the last time read stands."""
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            if self._seen is None:
                raise
            return self._now
        seen = (stat.st_mtime_ns, stat.st_ino)
        if seen != self._seen:
            self._now = _number(self._path, _read(self._path), "now")
            self._seen = seen
        return self._now


def open_clock(path: Path) -> Clock:
    """Return the clock that the file at `path` asks for, the wall clock where there is none.

    Raises:
        ClockFileError: The file is there and cannot be understood.
    """
    if not path.exists():
        return WallClock()
    content = _read(path)
    match content.get("mode"):
        case "offset":
            return OffsetClock(_number(path, content, "offset_seconds"))
        case "simulated":
            return SimulatedClock(path)
        case other:
            raise ClockFileError(f'{path}: mode is {other!r}; write "offset" or "simulated", or remove the file')


def write_clock(path: Path, **content: Any) -> None:
    """Write a clock file in one step, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ClockFileError(f"{path}: not readable as JSON ({error}); rewrite or remove it") from error
    if not isinstance(content, dict):
        raise ClockFileError(f'{path}: expected a JSON object with a field "mode"; rewrite or remove it')
    return content


def _number(path: Path, content: dict[str, Any], field: str) -> float:
    value = content.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ClockFileError(f"{path}: field {field!r} must be a number of seconds, found {value!r}")
    return float(value)

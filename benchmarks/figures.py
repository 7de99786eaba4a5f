"""Arithmetic of the yardstick: percentiles of a window, medians over rounds, ratios. Pure; measures nothing itself."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Window:
    """What one load of one kind gave.

    Attributes:
        requests: Answers that came within the window. seconds: Its length.
        p50_ms, p95_ms, p99_ms, p999_ms: Of the time to an answer.
        failures: Answers other than 200, broken connections and timeouts.
    """

    requests: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    failures: int = 0

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds

    @classmethod
    def of_latencies(cls, latencies: Sequence[float], seconds: float, failures: int = 0) -> Window:
        """Make a window of single latencies in seconds."""
        if not latencies:
            return cls(0, seconds, math.nan, math.nan, math.nan, math.nan, failures)
        ordered = sorted(latencies)
        p50, p95, p99, p999 = (percentile(ordered, percent) * 1000 for percent in (50, 95, 99, 99.9))
        return cls(len(ordered), seconds, p50, p95, p99, p999, failures)


@dataclass(frozen=True)
class Round:
    """What one contestant gave in one round; None where a figure has no meaning for it.

    Attributes:
        one, many: At one connection and at `connections` of them, closed loop.
        half: Open loop at half the rate of `many`.
        cpu_ms: CPU milliseconds of the contestant's processes a request, in the window of many connections.
        cpu_share: Share of its core that the process used in that window.
        waited_share: Share of that window in which its main thread was ready and the core ran something else.
        rss_mb: Resident memory after the load. start_seconds: From the start of the process to its first answer.
        degraded: Answers of both windows with the most frequent degraded reason; there may be some with others alone.
        logged: Decisions found in the log after both windows, less the answers counted; negative if any is missing.
        candidates, eligible, scored: Means a decision, of the log: treatments weighed, those that reached arbitration,
            and distinct actions among these that the model scored.
    """

    one: Window
    many: Window
    cpu_ms: float
    cpu_share: float
    half: Window | None = None
    waited_share: float | None = None
    rss_mb: float | None = None
    start_seconds: float | None = None
    degraded: int | None = None
    logged: int | None = None
    candidates: float | None = None
    eligible: float | None = None
    scored: float | None = None

    def flat(self) -> dict[str, float | None]:
        """Return all figures by one name each."""
        flat: dict[str, float | None] = {}
        windows = {"one": self.one, "many": self.many, "half": self.half}
        for name, window in windows.items():
            if window is not None:
                flat |= {f"{name}_{key}": value for key, value in asdict(window).items()}
                flat[f"{name}_per_second"] = window.per_second
        rest: dict[str, Any] = {key: value for key, value in asdict(self).items() if key not in windows}
        return {**flat, **rest}


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: the least value that at least `percent` of all values do not exceed.

    Args:
        ordered: At least one value, ascending.
        percent: Above 0, at most 100.
    """
    if not ordered:
        raise ValueError("a percentile needs at least one value")
    if not 0 < percent <= 100:
        raise ValueError(f"a percentile lies above 0 and at most at 100, not at {percent}")
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def medians(rounds: Iterable[Round]) -> dict[str, float | None]:
    """Return each figure's median over the rounds, None where no round has it; failures and degraded are summed."""
    flats = [one.flat() for one in rounds]
    if not flats:
        raise ValueError("medians need at least one round")
    result: dict[str, float | None] = {}
    for name in flats[0]:
        values = [value for flat in flats if (value := flat[name]) is not None]
        summed = name.endswith("failures") or name == "degraded"
        result[name] = None if not values else float(sum(values)) if summed else statistics.median(values)
    return result


def ratio(over: float | None, under: float | None) -> float | None:
    """Return over / under, or None where that says nothing."""
    if over is None or under is None or not under or math.isnan(over) or math.isnan(under):
        return None
    return over / under

"""What the figures are held against. Pure; a target that is missed is printed like one that is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.contestants import EXPERT, NOOP, OURS, OURS_ALWAYS, SERVICES, STOCK
from benchmarks.figures import ratio

AT_MOST, AT_LEAST = "at most", "at least"


@dataclass(frozen=True)
class Target:
    """One figure with its bound; `measured` is None where it was not measured."""

    words: str
    bound: str
    limit: float
    measured: float | None

    @property
    def asked(self) -> str:
        """The bound in words."""
        return f"{self.bound} {self.limit:,g}"

    @property
    def is_reached(self) -> bool:
        """Whether the figure keeps its bound."""
        if self.measured is None:
            return False
        return self.measured <= self.limit if self.bound == AT_MOST else self.measured >= self.limit


def targets(means: Mapping[str, Mapping[str, float | None]], studies: Mapping[str, Any]) -> list[Target]:
    """Return all targets with what was measured."""

    def figure(name: str, of: str) -> float | None:
        return means.get(name, {}).get(of)

    def times_cpu(other: str) -> float | None:
        return ratio(figure(other, "cpu_ms"), figure(OURS, "cpu_ms"))

    reads, swaps = studies.get("reads", {}), studies.get("swaps", {})
    swapped = ratio(swaps.get("swapped", {}).get("p99_ms"), swaps.get("steady", {}).get("p99_ms"))
    rate = "decisions a second on one worker, everything on"
    return [
        Target("p50 ms at one connection, AOF everysec", AT_MOST, 0.70, figure(OURS, "one_p50_ms")),
        Target("p99 ms at one connection, AOF everysec", AT_MOST, 2.0, figure(OURS, "one_p99_ms")),
        Target("p50 ms at one connection, AOF always", AT_MOST, 1.0, figure(OURS_ALWAYS, "one_p50_ms")),
        Target("p99 ms at one connection, AOF always", AT_MOST, 3.0, figure(OURS_ALWAYS, "one_p99_ms")),
        Target(rate, AT_LEAST, 2_200, figure(OURS, "many_per_second")),
        Target(f"{rate} (stretch)", AT_LEAST, 3_500, figure(OURS, "many_per_second")),
        Target("decisions a CPU-second, times A", AT_LEAST, 12, times_cpu(STOCK)),
        Target("decisions a CPU-second, times B", AT_LEAST, 18, times_cpu(SERVICES)),
        Target("decisions a CPU-second, times D", AT_LEAST, 4, times_cpu(EXPERT)),
        Target("decisions a CPU-second, of the no-op route", AT_LEAST, 0.25, times_cpu(NOOP)),
        Target("decisions a second at many connections, times A", AT_LEAST, 6,
               ratio(figure(OURS_ALWAYS, "many_per_second"), figure(STOCK, "many_per_second"))),
        Target("feature read, times the SDK's to_dict", AT_LEAST, 6, ratio(reads.get("sdk_ms"), reads.get("ours_ms"))),
        Target("p99 while models change, times the steady one", AT_MOST, 2, swapped),
    ]  # fmt: skip

"""Latency against load, as an SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.figures import Window


def draw(over_load: Mapping[str, Sequence[tuple[float, Window]]], titles: Mapping[str, str], path: Path) -> None:
    """Draw p50 and p99 of each contestant over the rate asked, both axes logarithmic."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "nba"
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for colour, (name, found) in zip(
        ("tab:blue", "tab:orange", "tab:green", "tab:red"), over_load.items(), strict=False
    ):
        rates = [rate for rate, _ in found]
        axes.plot(rates, [w.p50_ms for _, w in found], "o-", color=colour, label=f"{titles[name]}, p50")
        axes.plot(rates, [w.p99_ms for _, w in found], "o:", color=colour, label=f"{titles[name]}, p99")
    axes.set(xscale="log", yscale="log", xlabel="decisions a second, open loop", ylabel="ms from due to answered")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)

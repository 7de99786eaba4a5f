"""Tables and plots of simulated policies, side by side. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from training.books import Day

Runs = Mapping[str, Sequence[Day]]
"""Policy -> its days."""
NOTE = "Simulated response on real households: what is known of the world here is made up, and known because of that."


def table(runs: Runs, last_days: int = 60) -> Table:
    """Put the policies side by side.

    Args:
        last_days: The end of the run that `late gain` is taken from, when what was to be learned has been.
    """
    shown = Table(title="What each policy gained", caption=NOTE, caption_justify="left")
    for name in ("policy", "gain", "late gain", "per decision", "regret", "shown", "no action", "reach", "tired",
                 "sleeping dogs"):  # fmt: skip
        shown.add_column(name, justify="left" if name == "policy" else "right")
    best = max((sum(day.gain for day in days) for name, days in runs.items() if name == "oracle"), default=np.nan)
    for name, days in runs.items():
        gain, decisions = sum(day.gain for day in days), sum(day.decisions for day in days)
        placed = sum(day.shown for day in days)
        shown.add_row(
            name,
            f"{gain:,.0f}",
            f"{late_gain(days, last_days):,.0f}",
            f"{gain / decisions:.4f}",
            f"{best - gain:,.0f}",
            f"{placed:,}",
            f"{sum(day.empty for day in days) / decisions:.0%}",
            f"{days[-1].reached:,}",
            f"{days[-1].tired:.2f}",
            f"{sleeping_dogs(days):.1%}",
        )
    return shown


def late_gain(days: Sequence[Day], last_days: int) -> float:
    """Return the gain of the last days."""
    return sum(day.gain for day in days[-last_days:])


def sleeping_dogs(days: Sequence[Day]) -> float:
    """Return the share of what was shown that did harm."""
    placed = sum(day.shown for day in days)
    return sum(day.by_segment.get("sleeping dog", (0, 0.0))[0] for day in days) / max(placed, 1)


def way_to_the_best(runs: Runs, policy: str, last_days: int) -> float:
    """Return how far a policy gets from random (0) to the best that sees the same facts (1), over the last days."""
    low, high = late_gain(runs["random"], last_days), late_gain(runs["oracle"], last_days)
    return (late_gain(runs[policy], last_days) - low) / (high - low)


def write(runs: Runs, folder: Path, about: Mapping[str, Any]) -> list[Path]:
    """Write `days.json` and the plots into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    days = folder / "days.json"
    content = {"note": NOTE, **about, "runs": {name: [asdict(day) for day in run] for name, run in runs.items()}}
    days.write_text(json.dumps(content))
    return [days, *_plots(runs, folder)]


def _plots(runs: Runs, folder: Path) -> list[Path]:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    style = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "font.size": 9,
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots(2, 2, figsize=(13, 9), layout="constrained")
        for name, days in runs.items():
            _line(axes[0, 0], name, np.cumsum([day.gain for day in days]))
            _line(axes[1, 0], name, [day.reached for day in days])
            _line(axes[1, 1], name, [day.tired for day in days])
            if "oracle" in runs and not name.startswith("oracle"):
                lost = [best.gain - day.gain for best, day in zip(runs["oracle"], days, strict=True)]
                _line(axes[0, 1], name, np.cumsum(lost))
        for axis, title in zip(
            axes.ravel(),
            ("Cumulative gain over showing nothing", "Cumulative regret against the best on the same facts",
             "Households contacted in the last 30 days", "Mean faded contacts of a household"),
            strict=True,
        ):  # fmt: skip
            axis.set_title(title, loc="left")
            axis.set_xlabel("day")
        axes[0, 0].legend(frameon=False)
        paths = [folder / "policies.png"]
        figure.savefig(paths[0], dpi=110)
        plt.close(figure)
        for name in ("issue", "stage", "segment"):
            paths.append(folder / f"share_by_{name}.png")
            _shares(plt, runs, f"by_{name}", paths[-1])
    return paths


def _line(axis: Any, name: str, values: Any) -> None:
    axis.plot(values, label=name, linewidth=2.2 if name == "nba" else 1.2)


def _shares(plt: Any, runs: Runs, part: str, path: Path) -> None:
    names = sorted({name for days in runs.values() for day in days for name in getattr(day, part)})
    figure, axis = plt.subplots(figsize=(9, 0.6 * len(runs) + 1.8), layout="constrained")
    left = np.zeros(len(runs))
    for name in names:
        counts = [sum(getattr(day, part).get(name, (0, 0.0))[0] for day in days) for days in runs.values()]
        shares = np.array(counts) / np.maximum([sum(day.shown for day in days) for days in runs.values()], 1)
        axis.barh(list(runs), shares, left=left, label=name)
        left += shares
    axis.set_title(f"What was shown, {part.replace('_', ' ')}", loc="left")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axis.grid(visible=False)
    axis.invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)

"""Tables and plots of simulated policies, side by side. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from scipy.special import stdtrit

from training.books import Day

COLOURS = {
    "nba": "#0b5394", "nba_retention_propensity": "#6fa8dc", "propensity": "#e07b00", "random": "#7f7f7f",
    "best_single": "#8e63b5", "oracle": "#2e8540", "oracle_full": "#a3c9a8", "service": "#0b5394",
    "persuadable": "#2e8540", "sure thing": "#a3c9a8", "lost cause": "#b8b8b8", "sleeping dog": "#c0392b",
}  # fmt: skip
"""One colour a policy or segment in every plot."""

Runs = Mapping[str, Sequence[Day]]
"""Policy -> its days."""
NOTE = "Simulated response on real households: what is known of the world here is made up, and known because of that."


LATE_DAYS = 30
"""The end of a run that a policy is judged on: what was to be learned has been."""


def table(seeds: Sequence[Runs]) -> Table:
    """Put the policies side by side: means over seeds of the whole run, and of its last days."""
    shown = Table(title="What each policy gained", caption=NOTE, caption_justify="left")
    names = ("policy", "gain", "late gain", "way to the best", "regret", "shown", "no action", "reach", "tired", "dogs")
    for name in names:
        shown.add_column(name, justify="left" if name == "policy" else "right")
    for name in seeds[0]:
        runs = [seed[name] for seed in seeds]
        decisions = sum(day.decisions for days in runs for day in days)
        shown.add_row(
            name,
            f"{_mean(gain(days) for days in runs):,.0f}",
            f"{_mean(late_gain(days) for days in runs):,.0f}",
            _interval([way_to_the_best(seed, name) for seed in seeds], "{:.0%}") if _has_ends(seeds[0]) else "",
            f"{_mean(gain(s['oracle']) - gain(s[name]) for s in seeds):,.0f}" if "oracle" in seeds[0] else "",
            f"{_mean(sum(day.shown for day in days) for days in runs):,.0f}",
            f"{sum(day.empty for days in runs for day in days) / decisions:.0%}",
            f"{_mean(days[-1].reached for days in runs):,.0f}",
            f"{_mean(days[-1].tired for days in runs):.2f}",
            f"{_mean(sleeping_dogs(days) for days in runs):.1%}",
        )
    return shown


def verdicts(seeds: Sequence[Runs]) -> list[str]:
    """Say what the engine is judged on, each with a 95 % interval over the seeds, paired within a seed."""
    said = []
    if "nba" in seeds[0] and _has_ends(seeds[0]):
        alone = [way_of_the_arm(seed, "nba") for seed in seeds]
        said.append(
            f"way to the best in the arm nba, a decision, hold-out and random part aside: {_interval(alone, '{:.0%}')}"
        )
    if "nba" in seeds[0]:
        for other in ("best_single", "propensity", "random"):
            if other in seeds[0]:
                apart = [late_gain(seed["nba"]) - late_gain(seed[other]) for seed in seeds]
                said.append(f"late gain of nba over {other}: {_interval(apart, '{:,.0f}')}")
        if "random" in seeds[0]:
            apart = [sleeping_dogs(seed["nba"]) - sleeping_dogs(seed["random"]) for seed in seeds]
            said.append(f"share of sleeping dogs, nba less random: {_interval(apart, '{:+.1%}')}")
        if "nba_retention_propensity" in seeds[0]:
            apart = [_of_retention(seed["nba"]) - _of_retention(seed["nba_retention_propensity"]) for seed in seeds]
            said.append(f"late gain of retention on uplift over retention on propensity: {_interval(apart, '{:,.0f}')}")
    return said


def gain(days: Sequence[Day]) -> float:
    """Return the gain of all days."""
    return sum(day.gain for day in days)


def _of_retention(days: Sequence[Day]) -> float:
    return sum(day.by_issue.get("retention", (0, 0.0))[1] for day in days[-LATE_DAYS:])


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _has_ends(runs: Runs) -> bool:
    return "random" in runs and "oracle" in runs


def _interval(values: Sequence[float], form: str) -> str:
    """Return the mean and its 95 % interval by Student's t, or the value alone of one seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return form.format(mean)
    half = float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return f"{form.format(mean)} ({form.format(mean - half)} to {form.format(mean + half)})"


def late_gain(days: Sequence[Day]) -> float:
    """Return the gain of the last `LATE_DAYS`."""
    return gain(days[-LATE_DAYS:])


def sleeping_dogs(days: Sequence[Day]) -> float:
    """Return the share of what was shown that did harm."""
    placed = sum(day.shown for day in days)
    return sum(day.by_segment.get("sleeping dog", (0, 0.0))[0] for day in days) / max(placed, 1)


def way_to_the_best(runs: Runs, policy: str) -> float:
    """Return how far a policy gets from random (0) to the best that sees the same facts (1), over the last days."""
    low, high = late_gain(runs["random"]), late_gain(runs["oracle"])
    return (late_gain(runs[policy]) - low) / (high - low)


def way_of_the_arm(runs: Runs, policy: str) -> float:
    """Return the same for a decision of the policy's arm nba: without what its hold-out and its random part cost."""
    mine, low, high = (
        _per_decision(runs[name], arm) for name, arm in ((policy, "nba"), ("random", "random"), ("oracle", "nba"))
    )
    return (mine - low) / (high - low)


def _per_decision(days: Sequence[Day], arm: str) -> float:
    late = [day.by_arm.get(arm, (0, 0.0)) for day in days[-LATE_DAYS:]]
    return sum(gained for _, gained in late) / max(sum(n for n, _ in late), 1)


def write_days(seeds: Sequence[Runs], folder: Path, about: Mapping[str, Any]) -> Path:
    """Write `days.json` of all seeds into a folder; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    days = folder / "days.json"
    runs = [{name: [asdict(day) for day in run] for name, run in seed.items()} for seed in seeds]
    days.write_text(json.dumps({"note": NOTE, **about, "runs": runs}))
    return days


def plots(runs: Runs, folder: Path) -> list[Path]:
    """Draw one seed's runs into a folder; return the pictures' paths."""
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
    axis.plot(values, label=name, color=COLOURS[name], linewidth=2.2 if name == "nba" else 1.2)


def _shares(plt: Any, runs: Runs, part: str, path: Path) -> None:
    names = sorted({name for days in runs.values() for day in days for name in getattr(day, part)})
    figure, axis = plt.subplots(figsize=(9, 0.6 * len(runs) + 1.8), layout="constrained")
    left = np.zeros(len(runs))
    for name in names:
        counts = [sum(getattr(day, part).get(name, (0, 0.0))[0] for day in days) for days in runs.values()]
        shares = np.array(counts) / np.maximum([sum(day.shown for day in days) for days in runs.values()], 1)
        axis.barh(list(runs), shares, left=left, label=name, color=COLOURS.get(name))
        left += shares
    axis.set_title(f"What was shown, {part.replace('_', ' ')}", loc="left")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axis.grid(visible=False)
    axis.invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)

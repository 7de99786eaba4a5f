"""docs/performance.md and performance.json, written from one run: every figure comes from it, none from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Round, medians, ratio
from benchmarks.online import REDIS_TITLES, Plan

COMPARED = (
    ("many_per_second", "decisions a second", True),
    ("one_p50_ms", "p50 at one connection", False),
    ("one_p99_ms", "p99 at one connection", False),
    ("many_p50_ms", "p50 at many connections", False),
    ("many_p99_ms", "p99 at many connections", False),
    ("cpu_ms", "CPU a decision", False),
    ("rss_mb", "memory", False),
    ("start_seconds", "start to first decision", False),
)
"""Figure, words, whether more is better."""
SPOILED = 0.1
"""Share of a core that others may take before a run is worth nothing."""
OURS, STOCK, NOOP = "ours", "stock", "noop"


@dataclass(frozen=True)
class Run:
    """All that a report needs.

    Attributes:
        titles: Name of a contestant -> its title, in the order of the table.
        environment: What machine, versions and data the figures hold for.
        core: Output of `benchmarks.core`.
    """

    plan: Plan
    titles: Mapping[str, str]
    rounds: Mapping[str, Sequence[Round]]
    environment: Mapping[str, Any]
    core: str


def write_report(run: Run, folder: Path) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    means = {name: medians(rounds) for name, rounds in run.rounds.items()}
    document = {
        "environment": run.environment,
        "plan": asdict(run.plan),
        "medians": means,
        "rounds": {name: [one.flat() for one in rounds] for name, rounds in run.rounds.items()},
        "ours_over_stock": compare(means, OURS, STOCK),
    }
    (folder / "performance.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "performance.md").write_text(as_markdown(run, means))


def compare(means: Mapping[str, Mapping[str, float | None]], ours: str, theirs: str) -> dict[str, float | None]:
    """Return how many times better ours is, figure by figure; below 1 it loses."""
    return {
        figure: ratio(means[ours][figure], means[theirs][figure])
        if more_is_better
        else ratio(means[theirs][figure], means[ours][figure])
        for figure, _, more_is_better in COMPARED
    }


def as_markdown(run: Run, means: Mapping[str, Mapping[str, float | None]]) -> str:
    """Return the page."""
    environment, plan = run.environment, run.plan
    parts = [
        "# Performance",
        "Written by `make bench`; every figure is of that run. " + _when(environment),
        *_disturbed(environment, means),
        "## The yardstick",
        _table(run, means),
        f"Medians of {plan.rounds} rounds, contestants interleaved and started afresh in each. Latency at one "
        f"connection and throughput at {plan.connections}, closed loop, by {environment['generator']}. CPU is user and "
        "system time of the contestant's process a request, at many connections. The range behind a rate is the least "
        "and the greatest round. " + ", ".join(REDIS_TITLES[name] for name in REDIS_TITLES) + ": by the engine's own "
        "client.",
        "## Ours against A",
        _ratios(means),
        *_losses(means),
        "## What was asked",
        _asked(run, means),
        "## The core alone",
        "One process, nothing pinned, no scoring and no input or output (`python -m benchmarks.core`):",
        f"```\n{run.core.strip()}\n```" if run.core else "Not run.",
        "## How to run",
        "`make train` once, then `make bench`, on a machine that does nothing else. `python -m benchmarks --help` has "
        "shorter rounds and another folder to write to. With `wrk` on PATH (a Debian package) it makes the load.",
    ]
    return "\n\n".join(parts) + "\n"


def _when(environment: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in environment["packages"].items())
    return (
        f"{environment['date']}, commit {environment['commit']}; {environment['processor']}, "
        f"{environment['cores']} cores, {environment['memory_gb']} GB, {environment['system']}; "
        f"Python {environment['python']}, {environment['server']}, {packages}."
    )


def _disturbed(environment: Mapping[str, Any], means: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """Say how far other programs were in the way; a run that they spoiled says so on top."""
    waited = max(means[name]["waited_share"] or 0.0 for name in (OURS, NOOP))
    said = (
        f"Other programs used {environment['others_before']:.0%} of all cores before the run and "
        f"{environment['others_after']:.0%} after it; under load `nba serve` and the no-op, of one busy thread each, "
        f"waited up to {waited:.0%} of the time for their core."
    )
    spoiled = max(environment["others_before"], environment["others_after"], waited) > SPOILED
    return [f"**The machine was busy: do not cite these figures, run it again alone.** {said}" if spoiled else said]


def _table(run: Run, means: Mapping[str, Mapping[str, float | None]]) -> str:
    n = run.plan.connections
    head = (
        "contestant", "p50 ms, 1 conn.", "p99 ms, 1 conn.", f"a second, {n} conn.", f"p50 ms, {n}", f"p99 ms, {n}",
        "CPU ms each", "RSS MB", "start s",
    )  # fmt: skip
    lines = [_row(head), _row(("---", *("---:",) * (len(head) - 1)))]
    for name, title in run.titles.items():
        mean = means[name]
        rates = [one.many.per_second for one in run.rounds[name]]
        rate = f"{_number(mean['many_per_second'])} ({min(rates):,.0f}-{max(rates):,.0f})"
        figures = ("one_p50_ms", "one_p99_ms", None, "many_p50_ms", "many_p99_ms", "cpu_ms", "rss_mb", "start_seconds")
        lines.append(_row((title, *(rate if figure is None else _number(mean[figure]) for figure in figures))))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratios(means: Mapping[str, Mapping[str, float | None]]) -> str:
    found = compare(means, OURS, STOCK)
    lines = [_row(("", "A", "ours, fsync always", "times better")), _row(("---", "---:", "---:", "---:"))]
    for figure, words, _ in COMPARED:
        times = found[figure]
        lines.append(_row((words, _number(means[STOCK][figure]), _number(means[OURS][figure]), _number(times))))
    return "\n".join(lines)


def _losses(means: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """Say where ours is not the better one, and what the ceilings leave."""
    lost = [words for figure, words, _ in COMPARED if (compare(means, OURS, STOCK)[figure] or 1) < 1]
    said = f"Ours loses to A in: {', '.join(lost)}." if lost else "In this run ours loses to A in none of these."
    of_noop = ratio(means[OURS]["many_per_second"], means[NOOP]["many_per_second"])
    cpu_of_noop = ratio(means[OURS]["cpu_ms"], means[NOOP]["cpu_ms"])
    trips = ratio(means[OURS]["one_p50_ms"], means["redis_hgetall"]["one_p50_ms"])
    ceilings = (
        f"Ceilings: ours makes {_number(of_noop)} of the no-op route's rate at {_number(cpu_of_noop)} times its CPU a "
        f"request, and takes {_number(trips)} times a bare HGETALL at one connection. A machine whose cores fall idle "
        "between requests adds .05 to .25 ms at one connection to every contestant alike."
    )
    return [said, ceilings]


def _asked(run: Run, means: Mapping[str, Mapping[str, float | None]]) -> str:
    environment, ours = run.environment, means[OURS]
    return "\n".join(
        (
            f"- {environment['customers']:,} households in a seeded order, one after the other (uniform, not Zipf); "
            f"{environment['slots']} slots of `{environment['placement']}` on the channel `{environment['channel']}`, "
            "answers with reasons. All gave consent through `/v1/events`.",
            f"- Ours, with everything on: a decision weighs {_number(ours['candidates'])} treatments, of which "
            f"{_number(ours['eligible'])} reach arbitration and {_number(ours['scored'])} actions are scored by the "
            f"model ({environment['model']}, {environment['trees']} trees, {environment['inputs']} inputs): means over "
            "rows of the log of these very loads. Rules, consent, caps, experiment, exploration, reservation and log "
            "are on; the caps of the catalogue's copy are counted and never full. The worker is not running: it is off "
            "the path.",
            "- A scores the same actions with the same model from the same store; it is told which they are. It has no "
            "rules, consent, caps, experiment, exploration, reasons or log and ranks by propensity x value: all of "
            "which favours A.",
            f"- No-op: the same question read, {environment['answer_bytes']} bytes returned.",
            f"- {environment['cores_used']} State log: {environment['server']} with AOF, fsync as in the table; A "
            "writes nothing.",
            "- Deadlines of the store are one second in the rows of `nba serve`, so that every decision counted is a "
            "whole one; in the last of them they are as shipped, and what misses them is answered degraded.",
            f"- Failures: {_sum(means, 'one_failures', 'many_failures')} of all requests. Degraded decisions, by "
            f"the most frequent reason: {_degraded(run)}.",
            "- Decisions that were answered and are not in the log (a degraded decision may not be): "
            f"{_unlogged(run)}.",
        )
    )


def _degraded(run: Run) -> str:
    """Say how many of the answers were degraded, contestant by contestant."""
    parts = []
    for name, rounds in run.rounds.items():
        counts = [one.degraded for one in rounds if one.degraded is not None]
        if counts:
            asked = sum(one.one.requests + one.many.requests for one in rounds)
            parts.append(f"{run.titles[name]}: {sum(counts):,} of {asked:,}")
    return "; ".join(parts)


def _unlogged(run: Run) -> str:
    """Count them; what was in flight when a load stopped is logged and not counted, so more rows are right."""
    parts = []
    for name, rounds in run.rounds.items():
        found = [one.logged for one in rounds if one.logged is not None]
        if found:
            parts.append(f"{run.titles[name]}: {sum(max(-extra, 0) for extra in found):,}")
    return "; ".join(parts)


def _sum(means: Mapping[str, Mapping[str, float | None]], *figures: str) -> str:
    return f"{sum(mean[figure] or 0 for mean in means.values() for figure in figures):.0f}"

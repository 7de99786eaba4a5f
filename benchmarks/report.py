"""docs/performance.md, .json and .svg, written from one run: every figure comes from it, none from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contestants import BARE, EXPERT, FULL, NOOP, OURS, OURS_ALWAYS, REDIS_TITLES, SERVICES, STOCK
from benchmarks.figures import Round, Window, medians, ratio
from benchmarks.online import Plan
from benchmarks.targets import Target, targets
from benchmarks.words import method, what_was_asked

COMPARED = (
    ("many_per_second", "decisions a second", True),
    ("one_p50_ms", "p50 at one connection", False),
    ("one_p99_ms", "p99 at one connection", False),
    ("half_p50_ms", "p50 at half load", False),
    ("half_p99_ms", "p99 at half load", False),
    ("cpu_ms", "CPU a decision", False),
    ("rss_mb", "memory", False),
    ("start_seconds", "start to first decision", False),
)
"""Figure, words, whether more is better."""
SPOILED = 0.1
"""Share of a core that others may take before a run is worth nothing."""
PICTURE = "performance.svg"
PROFILE_READING = (
    "Shares of the event loop's thread while it is not waiting, sampled a thousand times a second, and the CPU "
    "that each stands for. At one connection every decision pays for a pass of gather and core alone: there the "
    "count of NumPy calls is what costs, not the numbers in them. At many connections requests of one turn of the "
    "loop share a pass, so the core's share falls, and what is left is paid once a request: HTTP, decoding a "
    "customer's facts, the log's row and the answer."
)

Means = Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Run:
    """All that a report needs.

    Attributes:
        titles: Name of a contestant -> its title, in the order of the table.
        environment: What machine, versions and data the figures hold for.
        core: Output of `benchmarks.core`.
        studies: swaps, generator, reads, weights, workers, profile, as `benchmarks.studies` gives them.
        over_load: Name of a contestant -> (rate asked, what came back), ascending.
    """

    plan: Plan
    titles: Mapping[str, str]
    rounds: Mapping[str, Sequence[Round]]
    environment: Mapping[str, Any]
    core: str = ""
    studies: Mapping[str, Any] = field(default_factory=dict)
    over_load: Mapping[str, Sequence[tuple[float, Window]]] = field(default_factory=dict)


def write_report(run: Run, folder: Path) -> None:
    """Write the page and the JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    means = {name: medians(rounds) for name, rounds in run.rounds.items()}
    reached = targets(means, run.studies)
    document = {
        "environment": run.environment,
        "plan": asdict(run.plan),
        "medians": means,
        "rounds": {name: [one.flat() for one in rounds] for name, rounds in run.rounds.items()},
        "ours_over": {name: compare(means, OURS, name) for name in (STOCK, SERVICES, EXPERT) if name in means},
        "targets": [asdict(target) for target in reached],
        "studies": {name: study for name, study in run.studies.items() if name != "profile"},
        "over_load": {
            name: [{"rate": rate, **asdict(window)} for rate, window in found] for name, found in run.over_load.items()
        },
    }
    (folder / "performance.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "performance.md").write_text(as_markdown(run, means, reached))


def compare(means: Means, ours: str, theirs: str) -> dict[str, float | None]:
    """Return how many times better ours is, figure by figure; below 1 it loses."""
    found = {}
    for figure, _, more_is_better in COMPARED:
        mine, other = means[ours].get(figure), means[theirs].get(figure)
        found[figure] = ratio(mine, other) if more_is_better else ratio(other, mine)
    return found


def as_markdown(run: Run, means: Means, reached: Sequence[Target]) -> str:
    """Return the page."""
    environment = run.environment
    parts = [
        "# Performance",
        "Written by `make bench`; every figure is of that run. " + _when(environment),
        *_disturbed(environment, means),
        "## Targets",
        _targets(reached),
        "## Everything on",
        _table(run, means, FULL),
        method(run.plan, environment),
        *_picture(run),
        "## Without log and caps",
        _table(run, means, BARE),
        "The same questions as dry runs with a catalogue without caps: no reservation, no log.",
        "## Ours against the others",
        _ratios(means),
        *_losses(means),
        "## Other figures",
        _other(run, means),
        "## What was asked",
        what_was_asked(environment, means),
        f"- Degraded decisions, by the most frequent reason: {_degraded(run)}. Decisions that were answered and "
        f"are not in the log: {_unlogged(run)}. Failures: {_failures(means)}.",
        *(["## Where the time goes", PROFILE_READING, f"```\n{run.studies['profile']}\n```"] if run.studies else []),
        "## The core alone",
        "One process, nothing pinned, no scoring and no input or output (`python -m benchmarks.core`):",
        f"```\n{run.core.strip()}\n```" if run.core else "Not run.",
        "## How to run",
        "`make demo ONCE=1` once, then `make bench`, on a machine that does nothing else. `python -m benchmarks "
        "--help` has shorter rounds and another folder to write to. With `wrk` on PATH (a Debian package) it makes the "
        "closed-loop load; without, a bundled generator does.",
    ]
    return "\n\n".join(parts) + "\n"


def _when(environment: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in environment["packages"].items())
    return (
        f"{environment['date']}, commit {environment['commit']}; {environment['processor']}, "
        f"{environment['cores']} cores, {environment['memory_gb']} GB, {environment['system']}; Python "
        f"{environment['python']}, {environment['server']}, {packages}."
    )


def _disturbed(environment: Mapping[str, Any], means: Means) -> list[str]:
    """Say how far other programs were in the way; a run that they spoiled says so on top."""
    waited = max(means[name]["waited_share"] or 0.0 for name in (OURS, NOOP))
    said = (
        f"Other programs used {environment['others_before']:.0%} of all cores before the run and "
        f"{environment['others_after']:.0%} after it; under load `nba serve` and the no-op, of one busy thread "
        f"each, waited up to {waited:.0%} of the time for their core."
    )
    spoiled = max(environment["others_before"], environment["others_after"], waited) > SPOILED
    return [f"**The machine was busy: do not cite these figures, run it again alone.** {said}" if spoiled else said]


def _targets(reached: Sequence[Target]) -> str:
    lines = [_row(("target", "asked", "measured", "")), _row(("---", "---:", "---:", "---"))]
    for target in reached:
        verdict = "not measured" if target.measured is None else "reached" if target.is_reached else "**missed**"
        lines.append(_row((target.words, target.asked, _number(target.measured), verdict)))
    return "\n".join(lines)


def _table(run: Run, means: Means, names: Sequence[str]) -> str:
    n = run.plan.connections
    head = (
        "contestant", "p50 ms", "p95", "p99", "p99.9", f"a second, {n} conn.", "p50 ms, half load", "p95", "p99",
        "p99.9", "CPU ms each", "RSS MB", "start s",
    )  # fmt: skip
    figures = (
        *(f"one_p{p}_ms" for p in (50, 95, 99, 999)), None, *(f"half_p{p}_ms" for p in (50, 95, 99, 999)), "cpu_ms",
        "rss_mb", "start_seconds",
    )  # fmt: skip
    lines = [_row(head), _row(("---", *("---:",) * (len(head) - 1)))]
    for name in (*names, *(REDIS_TITLES if names is FULL else ())):
        if name not in means:
            continue
        mean, rates = means[name], [one.many.per_second for one in run.rounds[name]]
        rate = f"{_number(mean['many_per_second'])} ({min(rates):,.0f}-{max(rates):,.0f})"
        cells = (rate if figure is None else _number(mean.get(figure)) for figure in figures)
        lines.append(_row(({**run.titles, **REDIS_TITLES}[name], *cells)))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _picture(run: Run) -> list[str]:
    said = f"![Latency against load, open loop]({PICTURE})\n\nLatency against load, open loop: p50 and p99."
    return [said] if run.over_load else []


def _ratios(means: Means) -> str:
    others = [name for name in (STOCK, SERVICES, EXPERT) if name in means]
    letters = {STOCK: "A", SERVICES: "B", EXPERT: "D"}
    head = ("", "ours, everysec", *(f"{letters[name]}; times better" for name in others))
    lines = [_row(head), _row(("---", *("---:",) * (len(head) - 1)))]
    for figure, words, _ in COMPARED:
        cells = [
            f"{_number(means[name].get(figure))}; {_number(compare(means, OURS, name)[figure])}" for name in others
        ]
        lines.append(_row((words, _number(means[OURS].get(figure)), *cells)))
    return "\n".join(lines)


def _losses(means: Means) -> list[str]:
    """Say where ours is not the better one, and what the ceilings leave."""
    letters = {STOCK: "A", SERVICES: "B", EXPERT: "D"}
    lost = [
        f"{words} to {letters[name]}"
        for name in letters
        if name in means
        for figure, words, _ in COMPARED
        if (compare(means, OURS, name)[figure] or 1) < 1
    ]
    said = f"Ours loses in: {', '.join(lost)}." if lost else "In this run ours loses to none of them in any of these."
    of_noop = ratio(means[OURS]["many_per_second"], means[NOOP]["many_per_second"])
    ceilings = (
        f"Ceilings: ours makes {_number(of_noop)} of the no-op route's rate. A machine whose cores fall idle "
        "between requests adds .05 to .25 ms at one connection to every contestant alike."
    )
    return [said, ceilings]


def _other(run: Run, means: Means) -> str:
    studies, lines = run.studies, []
    if "swaps" in studies:
        steady, swapped, rate = (studies["swaps"][key] for key in ("steady", "swapped", "rate"))
        lines.append(
            f"- The model changes every second under {rate:,.0f} decisions a second, open loop: p99 "
            f"{_number(swapped['p99_ms'])} ms, without changes {_number(steady['p99_ms'])} ms; failures "
            f"{swapped['failures']} and {steady['failures']}."
        )
    if "reads" in studies:
        reads = studies["reads"]
        lines.append(
            f"- Features of one customer: {_number(reads['ours_ms'])} ms by the direct reader, "
            f"{_number(reads['sdk_ms'])} ms by the SDK's `get_online_features(...).to_dict()`."
        )
    if "generator" in studies:
        made = studies["generator"]
        lines.append(
            f"- The open-loop generator, asked for {made['rate']:,.0f} a second against the no-op (three times the "
            f"greatest rate above), made {made['reached']:,.0f} with p50 {_number(made['p50_ms'])} ms."
        )
    always, everysec = means.get(OURS_ALWAYS, {}).get("many_per_second"), means[OURS]["many_per_second"]
    lines.append(f"- fsync always instead of everysec leaves {_number(ratio(always, everysec))} of the rate.")
    return "\n".join(lines)


def _degraded(run: Run) -> str:
    """Say how many of the answers were degraded, contestant by contestant."""
    parts = []
    for name, rounds in run.rounds.items():
        counts = [one.degraded for one in rounds if one.degraded is not None]
        if counts:
            asked = sum(w.requests for one in rounds for w in (one.one, one.many, one.half) if w is not None)
            parts.append(f"{run.titles[name]}: {sum(counts):,} of {asked:,}")
    return "; ".join(parts) or "none"


def _unlogged(run: Run) -> str:
    """Count them; what was in flight when a load stopped is logged and not counted, so more rows are right."""
    parts = []
    for name, rounds in run.rounds.items():
        found = [one.logged for one in rounds if one.logged is not None]
        if found:
            parts.append(f"{run.titles[name]}: {sum(max(-extra, 0) for extra in found):,}")
    return "; ".join(parts) or "none"


def _failures(means: Means) -> str:
    figures = ("one_failures", "many_failures", "half_failures")
    return f"{sum(mean.get(figure) or 0 for mean in means.values() for figure in figures):.0f} of all requests"

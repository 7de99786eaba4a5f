"""What a log of decisions says of its own health: lift by arm, funnel, choice, ranking and calibration, drift.

Decides what is counted and how; knows no picture. Health is judged by the limits that Pega publishes for its decision
engine: AUC .55 to .80, at least 200 positives, no action in at most 10 % of inbound decisions, and an optionality, the
mean number of actions left to choose from, of at least 7.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.matrix import Columns
from service.decision.experiment import HOLDOUT
from service.decision.model import Stage
from service.decision.record import DecisionRow
from service.lake_files import files
from training.arm_lift import WEEK, ArmLift, arm_lifts, purchases
from training.drift import drift, reading
from training.evaluate import auc, auc_interval, measure

Floats = NDArray[np.float64]

AUC_LIMITS, LEAST_POSITIVES, MOST_EMPTY, LEAST_OPTIONS = (0.55, 0.80), 200, 0.10, 7.0
ARBITRATED = (Stage.RANKED, Stage.NOT_SELECTED, Stage.HELD_OUT)


@dataclass(frozen=True)
class Week:
    """Responses of the treatments shown in one week of one issue."""

    issue: str
    start: float
    responses: int
    positives: int
    auc: float
    predicted: float
    observed: float


@dataclass(frozen=True)
class Health:
    """One limit, and whether it is kept."""

    what: str
    found: str
    limit: str
    verdict: str


@dataclass(frozen=True)
class LogFigures:
    """All that a report shows.

    Attributes:
        since, until: First and last decision time, Unix seconds.
        funnel: (action, placed, impressions, clicks, accepts, rejects, positives) a row.
        empty: Channel -> (decisions, share without any action). options: Channel -> mean number of actions to choose.
        weeks: By issue and week. models: Issue -> measures, with `auc_low` and `auc_high` where there is an AUC.
        moved: Column -> PSI of the newest third of the decisions against the oldest.
    """

    since: float
    until: float
    decisions: int
    customers: int
    catalogues: tuple[str, ...]
    degraded: Mapping[str, int]
    arms: tuple[ArmLift, ...]
    funnel: tuple[tuple[str, int, int, int, int, int, int], ...]
    empty: Mapping[str, tuple[int, float]]
    options: Mapping[str, float]
    weeks: tuple[Week, ...]
    models: Mapping[str, Mapping[str, float]]
    moved: Mapping[str, float]
    health: tuple[Health, ...]


def log_figures(
    lake: Path, rows: Sequence[DecisionRow], table: pa.Table, action_of: Mapping[str, str], inbound: Collection[str]
) -> LogFigures:
    """Count a log.

    Args:
        rows: Its decisions, dry runs left out, at least one. table: Their responses, of `training.responses`.
        action_of: Treatment id -> action id.
        inbound: Channels in which the customer comes to us; the limit on no action is about these.
    """
    times = np.array([row.decision_time for row in rows])
    empty, options = _choice(rows)
    answered = [r for r in table.to_pylist() if r["response"] is not None and r["propensity"] is not None]
    models = _models(answered)
    moved = _drift(rows, times)
    return LogFigures(
        float(times.min()), float(times.max()), len(rows), len({row.customer_id for row in rows}),
        tuple(sorted({row.catalogue_version for row in rows})),
        dict(Tally(reason for row in rows for reason in row.degraded_reasons)),
        arm_lifts(rows, purchases(lake), float(times.max())), _funnel(lake, rows, table, action_of), empty, options,
        _weeks(answered), models, moved, tuple(_health(models, empty, options, moved, inbound)),
    )  # fmt: skip


def _choice(rows: Sequence[DecisionRow]) -> tuple[dict[str, tuple[int, float]], dict[str, float]]:
    shown, options = defaultdict(list), defaultdict(list)
    for row in rows:
        if row.arm != HOLDOUT:
            shown[row.channel].append(not row.chosen)
            actions = np.isin(np.frombuffer(row.stages, np.int8), ARBITRATED)
            options[row.channel].append(int(actions.sum()))
    return (
        {channel: (len(found), float(np.mean(found))) for channel, found in sorted(shown.items())},
        {channel: float(np.mean(found)) for channel, found in sorted(options.items())},
    )


def _funnel(
    lake: Path, rows: Sequence[DecisionRow], table: pa.Table, action_of: Mapping[str, str]
) -> tuple[tuple[str, int, int, int, int, int, int], ...]:
    known = {row.decision_id for row in rows}
    placed = Tally(action_of[row.treatment_ids[c]] for row in rows for c, _, _ in row.chosen)
    told: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for name in files(lake, "outcomes"):
        for outcome in pq.read_table(name, columns=["decision_id", "action_id", "type"]).to_pylist():
            if outcome["decision_id"] in known:
                told[outcome["type"]].add((outcome["decision_id"], outcome["action_id"]))
    by_type = {kind: Tally(action for _, action in pairs) for kind, pairs in told.items()}
    positives = Tally(
        action
        for action, response in zip(table["action_id"].to_pylist(), table["response"].to_pylist(), strict=True)
        if response
    )
    none: Tally[str] = Tally()
    kinds = [by_type.get(kind, none) for kind in ("impression", "click", "accept", "reject")]
    return tuple(
        (action, count, kinds[0][action], kinds[1][action], kinds[2][action], kinds[3][action], positives[action])
        for action, count in placed.most_common()
    )


def _weeks(answered: Sequence[Mapping[str, object]]) -> tuple[Week, ...]:
    return tuple(
        Week(
            issue, start, len(y), int(y.sum()), auc(y, p) if 0 < y.sum() < len(y) else float("nan"),
            float(p.mean()), float(y.mean()),
        )
        for (issue, start), (y, p, _) in sorted(_grouped(answered, lambda r: _week_of(r["shown_at"])).items())
    )  # fmt: skip


def _week_of(moment: object) -> float:
    seconds = float(moment.timestamp())  # type: ignore[attr-defined]
    return seconds // WEEK * WEEK


def _grouped(
    answered: Sequence[Mapping[str, object]], key: Callable[[Mapping[str, object]], float]
) -> dict[tuple[str, float], tuple[Floats, Floats, NDArray[np.str_]]]:
    groups: dict[tuple[str, float], list[Mapping[str, object]]] = defaultdict(list)
    for response in answered:
        groups[str(response["issue"]), key(response)].append(response)
    return {
        name: (
            np.array([r["response"] for r in found], dtype=np.float64),
            np.array([r["propensity"] for r in found], dtype=np.float64),
            np.array([r["customer_id"] for r in found], dtype=np.str_),
        )
        for name, found in groups.items()
    }


def _models(answered: Sequence[Mapping[str, object]]) -> dict[str, dict[str, float]]:
    found = {}
    for (issue, _), (y, p, customers) in sorted(_grouped(answered, lambda r: 0.0).items()):
        measured = measure(y, p)
        if "auc" in measured:
            low, high = auc_interval(y, p, np.unique(customers, return_inverse=True)[1])
            measured |= {"auc_low": low, "auc_high": high}
        found[issue] = measured
    return found


def _drift(rows: Sequence[DecisionRow], times: Floats) -> dict[str, float]:
    columns = Columns()
    old, new = np.quantile(times, [1 / 3, 2 / 3])
    parts = []
    for wanted in (times <= old, times >= new):
        chosen = [row for row, is_in in zip(rows, wanted, strict=True) if is_in]
        usable = [row for row in chosen if len(row.facts) == 8 * columns.layout.width]
        if not usable or old >= new:
            return {}
        facts = np.column_stack([np.frombuffer(row.facts, "<f8") for row in usable])
        values = columns.as_of(facts, np.array([row.decision_time for row in usable]))
        best = [_best(row) for row in usable]
        parts.append(
            {**{name: values[columns.index[name]] for name in columns.names}, "best propensity": np.array(best)}
        )
    return drift(parts[0], parts[1])


def _best(row: DecisionRow) -> float:
    p = np.frombuffer(row.propensities, "<f8")
    known = p[~np.isnan(p)]
    return float(known.max()) if len(known) else float("nan")


def _health(
    models: Mapping[str, Mapping[str, float]],
    empty: Mapping[str, tuple[int, float]],
    options: Mapping[str, float],
    moved: Mapping[str, float],
    inbound: Collection[str],
) -> list[Health]:
    found = []
    low, high = AUC_LIMITS
    for issue, measured in models.items():
        if "auc" in measured:
            area = measured["auc"]
            verdict = "kept" if low <= area <= high else ("too good: look for a leak" if area > high else "missed")
            shown = f"{area:.3f} [{measured['auc_low']:.3f}, {measured['auc_high']:.3f}]"
            found.append(Health(f"AUC, {issue}", shown, f"{low:.2f} to {high:.2f}", verdict))
        positives = measured["positives"]
        enough = "kept" if positives >= LEAST_POSITIVES else "missed"
        found.append(Health(f"positives, {issue}", f"{positives:,.0f}", f"at least {LEAST_POSITIVES}", enough))
    for channel, (_, share) in empty.items():
        if channel in inbound:
            kept = "kept" if share <= MOST_EMPTY else "missed"
            found.append(Health(f"no action, {channel}", f"{share:.1%}", f"at most {MOST_EMPTY:.0%}", kept))
    for channel, mean in options.items():
        kept = "kept" if mean >= LEAST_OPTIONS else "missed"
        found.append(Health(f"optionality, {channel}", f"{mean:.1f}", f"at least {LEAST_OPTIONS:g}", kept))
    shifted = [name for name, psi in moved.items() if reading(psi) == "shifted"]
    listed = f"{len(shifted)} of {len(moved)} columns" + (f", first {shifted[0]}" if shifted else "")
    found.append(Health("drift, PSI above .25", listed, "none", "alarm" if shifted else "kept"))
    return found

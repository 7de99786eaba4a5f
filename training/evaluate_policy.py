"""What a catalogue with a model would have earned on the log, by issue, before it goes live.

Decides what is read of the lake and what a placement earns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.matrix import Columns
from service.decision.engine import CompiledCatalogue, compile_catalogue
from service.decision.log_columns import from_columns
from service.decision.model import ISSUES, Catalogue, Scorer
from service.decision.record import DecisionRow
from service.lake_files import files
from training.bootstrap import RESAMPLES
from training.judged_log import Earned, JudgedLog, Player, alone, play
from training.log_rounds import prepare
from training.off_policy import CannotAnswer, Evaluation, evaluate
from training.responses import CatalogueOf, responses

ALL = "all"
BATCH_ROWS = 512
FAR = 4_000_000_000.0
"""A moment after every decision, Unix seconds."""


@dataclass(frozen=True)
class PolicyEvaluation:
    """What the log says of a policy.

    Attributes:
        catalogue, model: What was judged. reward: conversion | value. slots: all | first.
        rows: Of the log. arms: Arm -> usable decisions.
        by_issue: `all` and each issue -> what it would have earned a decision.
        unknown_caps: Caps that the log kept no room for; they bound nothing here.
    """

    catalogue: str
    model: str
    reward: str
    slots: str
    rows: int
    arms: Mapping[str, int]
    by_issue: Mapping[str, Evaluation]
    unknown_caps: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {**asdict(self), "by_issue": {name: asdict(found) for name, found in self.by_issue.items()}}


def evaluate_policy(
    lake: Path,
    catalogue: Catalogue,
    make_scorer: Callable[[CompiledCatalogue], Scorer] | None,
    catalogue_of: CatalogueOf,
    *,
    reward: str = "conversion",
    since: float = 0.0,
    until: float = FAR,
    as_of: float | None = None,
    first_slot: bool = False,
    resamples: int = RESAMPLES,
    model: str = "none",
    arms: Collection[str] = (),
) -> PolicyEvaluation:
    """Play a catalogue with a model against the log of a time and estimate what it would have earned.

    Args:
        make_scorer: Binds the model to the catalogue; None to decide by the catalogue's priors.
        catalogue_of: Catalogue version of the log -> catalogue.
        reward: conversion: 1 a positive; value: the value that the new catalogue gives the action, else the log's.
        since, until: Decision times, Unix seconds. as_of: Response windows that end later are open; by default, the
            newest decision of the log.
        arms: Use only decisions of these; empty for all.

    Raises:
        CannotAnswer: where the log cannot answer.
    """
    rows = [row for row in read_decisions(lake, since, until) if not arms or row.arm in arms]
    if not rows:
        raise CannotAnswer("the log has no decision of that time; let the worker write the lake, or widen the time")
    now = max(row.decision_time for row in rows) if as_of is None else as_of
    versions = {row.catalogue_version for row in rows}
    logged = {version: catalogue_of(version) for version in versions}
    earned = earnings(responses(lake, since, until, catalogue_of, as_of=now), [catalogue, *logged.values()], reward)
    compiled_of = _compiling(logged)
    compiled = compile_catalogue(alone(catalogue), Columns())
    player = Player(compiled, None if make_scorer is None else make_scorer(compiled), compiled_of)
    log = play(rows, player, earned, closing_times(logged), now)
    issues = _issues_of([catalogue, *logged.values()])
    prepared = prepare(log, earned, issues, first_slot=first_slot)
    found = {ALL: evaluate(prepared.of_issue(), resamples=resamples)}
    for issue in ISSUES:
        if (prepared.issues == issue).any() or (prepared.pair_issues == issue).any():
            found[issue] = evaluate(prepared.of_issue(issue), resamples=resamples)
    slots = "first" if first_slot else "all"
    return PolicyEvaluation(
        catalogue.version, model, reward, slots, len(rows), _by_arm(log), found, log.unknown_caps
    )  # fmt: skip


def read_decisions(lake: Path, since: float, until: float) -> Iterator[DecisionRow]:
    """Yield the logged decisions of a time, in the order of the lake's files.

    Raises:
        CannotAnswer: A file was written before decisions were logged with all that they were made from.
    """
    for name in files(lake, "decisions"):
        if "decision_seconds" not in pq.read_schema(name).names:
            raise CannotAnswer(
                f"{Path(name).name} was written by an older version that did not log all that a decision is made "
                "from; move such files out of the lake"
            )
        for batch in pq.ParquetFile(name).iter_batches(BATCH_ROWS):
            for columns in batch.to_pylist():
                if since <= columns["decision_seconds"] < until:
                    yield from_columns(columns)


def earnings(table: pa.Table, known: list[Catalogue], reward: str) -> Earned:
    """Return what each shown treatment earned; None where its response window is still open.

    Args:
        table: Of `training.responses`. known: Catalogues; the first that has the action says its value.
    """
    values = {action.id: action.value for catalogue in reversed(known) for action in catalogue.actions}
    found: dict[tuple[str, str], float | None] = {}
    names = ("decision_id", "treatment_id", "action_id", "response", "is_open")
    for row in table.select(names).to_pylist():
        worth = values[row["action_id"]] if reward == "value" else 1.0
        is_positive = (row["response"] or 0.0) > 0
        # Positive or not: to keep the positives of open windows alone would make every policy look better.
        found[row["decision_id"], row["treatment_id"]] = None if row["is_open"] else worth * is_positive
    return found


def closing_times(logged: Mapping[str, Catalogue]) -> Callable[[DecisionRow], float]:
    """Return the moment from which on all that a decision placed has had its response window, Unix seconds."""
    windows = {
        (version, treatment.id): catalogue.actions[catalogue.index[treatment.action_id]].window_days * 86_400.0
        for version, catalogue in logged.items()
        for treatment in catalogue.treatments
    }

    def closes_at(row: DecisionRow) -> float:
        placed = [row.treatment_ids[candidate] for candidate, _, _ in row.chosen]
        return row.decision_time + max((windows[row.catalogue_version, t] for t in placed), default=0.0)

    return closes_at


def _issues_of(known: list[Catalogue]) -> dict[str, str]:
    return {t.id: c.actions[c.index[t.action_id]].issue for c in reversed(known) for t in c.treatments}


def _compiling(logged: Mapping[str, Catalogue]) -> Callable[[str], CompiledCatalogue]:
    compiled: dict[str, CompiledCatalogue] = {}

    def compiled_of(version: str) -> CompiledCatalogue:
        if version not in compiled:
            compiled[version] = compile_catalogue(logged[version], Columns())
        return compiled[version]

    return compiled_of


def _by_arm(log: JudgedLog) -> dict[str, int]:
    arms = [decision.arm for decision in log.decisions]
    return {arm: arms.count(arm) for arm in sorted(set(arms))}

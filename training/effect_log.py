"""Rows for the effect models from the decision log: what was placed for customers in nba, against what was withheld.

Decides what is compared. Treated are the marketing placements of decisions in the arm nba from which nothing was
withheld; control are the placements that the hold-outs, of all marketing or of one issue, took away. Both were chosen
by the same policy, and chance alone, by customer, decided which of them was made. The outcome is the success rule of
the action fulfilled by an event within its response window from the decision on, credited to nobody and so counted
alike in both groups; what callers told of shown treatments is not used, since nobody tells of what was not shown.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.events import successes
from features.layout import SECONDS_PER_DAY
from features.matrix import Columns, ModelInput
from service.decision.bundle_scorer import Domain
from service.decision.engine import compile_catalogue
from service.decision.experiment import HELD, HOLDOUT, NBA
from service.decision.model import Action, Catalogue
from service.decision.record import DecisionRow
from service.lake_files import files
from training.attributable import attributable_shares, document_of_shares
from training.responses import CatalogueOf
from training.uplift import CannotLearn, EffectRows

Floats = NDArray[np.float64]
Moments = Mapping[tuple[str, str], list[float]]
"""(customer, success rule) -> moments of success, in order."""


@dataclass(frozen=True, slots=True)
class _Placement:
    row: DecisionRow
    action: Action
    is_treated: bool
    share: float


def effect_rows(
    rows: Iterable[DecisionRow], moments: Moments, catalogue: Catalogue, catalogue_of: CatalogueOf, domain: Domain,
    as_of: float,
) -> EffectRows:  # fmt: skip
    """Lay out treated and control placements as rows of the model's inputs.

    Args:
        rows: The log's decisions. moments: Of `success_moments`.
        catalogue: What the rows' actions mean for the model; actions it does not have are left out.
        catalogue_of: Catalogue version of the log -> catalogue, for windows, rules and shares.
        domain: Of the model version that the effect model joins.
        as_of: Placements whose window ends later are left out, Unix seconds.

    Raises:
        CannotLearn: where no placement is left.
    """
    columns = Columns()
    kept = [
        p
        for p in _placements(rows, catalogue_of)
        if p.action.id in catalogue.index and p.row.decision_time + p.action.window_days * SECONDS_PER_DAY <= as_of
        and len(p.row.facts) == 8 * columns.layout.width
    ]  # fmt: skip
    if not kept:
        raise CannotLearn(
            "the log has no placement of a known customer whose response window is over and whose action has a success "
            "rule; give actions a success rule, keep a hold-out running and collect more"
        )
    facts = np.column_stack([np.frombuffer(p.row.facts, "<f8") for p in kept])
    as_of_columns = columns.as_of(facts, np.array([p.row.decision_time for p in kept]))
    table = domain.restrict(compile_catalogue(catalogue, columns).action_table, catalogue.actions)
    model_input = ModelInput(columns)
    positions = np.array([catalogue.index[p.action.id] for p in kept], dtype=np.int64)
    channels, inputs = np.array([p.row.channel for p in kept]), np.empty((len(kept), len(model_input.names)))
    for channel in np.unique(channels):
        own = np.flatnonzero(channels == channel)
        inputs[own] = model_input.rows(as_of_columns, own, positions[own], domain.shown_in(table, str(channel)))
    return EffectRows(
        inputs,
        np.array([p.is_treated for p in kept], dtype=np.bool_),
        np.array([_has_success(p, moments) for p in kept], dtype=np.float64),
        np.array([p.share for p in kept], dtype=np.float64),
        np.unique([p.row.customer_id for p in kept], return_inverse=True)[1].astype(np.int64),
        np.array([p.action.id for p in kept], dtype=np.str_),
        tuple(model_input.names.index(name) for name in model_input.categoricals),
        model_input.names,
    )


def success_moments(lake: Path) -> Moments:
    """Read from the lake's events when each customer fulfilled which success rule."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    columns = ["customer_id", "type", "occurred_at", "properties"]
    for name in files(lake, "events"):
        for event in pq.read_table(name, columns=columns).to_pylist():
            for rule in successes(event["type"], json.loads(event["properties"])):
                found[event["customer_id"], rule].append(event["occurred_at"].timestamp())
    return {key: sorted(moments) for key, moments in found.items()}


def _placements(rows: Iterable[DecisionRow], catalogue_of: CatalogueOf) -> Iterator[_Placement]:
    actions_of: dict[str, dict[str, Action]] = {}
    for row in rows:
        if row.dry_run or row.reselected or not row.is_known or row.arm not in (NBA, HOLDOUT):
            continue
        catalogue = catalogue_of(row.catalogue_version)
        if row.catalogue_version not in actions_of:
            actions = {action.id: action for action in catalogue.actions}
            actions_of[row.catalogue_version] = {t.id: actions[t.action_id] for t in catalogue.treatments}
        is_treated = row.arm == NBA and not row.withheld and not any(arm == HELD for _, arm, _ in row.layers)
        for candidate, _, _ in row.chosen if is_treated else row.withheld:
            action = actions_of[row.catalogue_version][row.treatment_ids[candidate]]
            share = treated_share(catalogue, action.issue)
            if action.is_marketing and action.success_rule and 0.0 < share < 1.0:
                yield _Placement(row, action, is_treated, share)


def treated_share(catalogue: Catalogue, issue: str) -> float:
    """Return P(treated) among placements of an issue that are treated or control.

    With p of nba, q of the hold-out and h_i held out of issue i: treated are p x product of (1 - h_j), control are q
    and p x h_i.
    """
    arms, held = dict(catalogue.experiment.arms), dict(catalogue.experiment.holdouts)
    nba = arms.get(NBA, 0.0)
    treated = nba * float(np.prod([1.0 - share for share in held.values()]))
    control = arms.get(HOLDOUT, 0.0) + nba * held.get(issue, 0.0)
    return treated / (treated + control) if treated + control else 0.0


def _has_success(placement: _Placement, moments: Moments) -> bool:
    found = moments.get((placement.row.customer_id, placement.action.success_rule), [])
    start = placement.row.decision_time
    first = bisect_left(found, start)
    return first < len(found) and found[first] < start + placement.action.window_days * SECONDS_PER_DAY


def document_of(effect: Any, rows: EffectRows, issue_of: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return uplift.json: the learner, its measures, the line of each action, and golden rows.

    Args:
        issue_of: Action id -> issue, for the shares of responses that showing makes; None for none.
    """
    raw = np.asarray(effect.booster.predict(rows.inputs, raw_score=True, num_threads=1))
    places = np.argsort(raw, kind="stable")[np.unique(np.linspace(0, len(raw) - 1, 40).astype(int))]
    scores = raw[places].tolist()
    return {
        "learner": effect.learner,
        "fidelity": effect.fidelity,
        "rows": len(raw),
        "qini": {name: vars_of(gain) for name, gain in effect.qini.items()},
        "auuc": {name: vars_of(gain) for name, gain in effect.auuc.items()},
        "actions": {
            name: {
                "is_significant": found.is_significant, "intercept": found.intercept, "slope": found.slope_used,
                "effect": vars_of(found.effect), "p": found.p, "rows": found.rows, "treated": found.treated,
            }
            for name, found in effect.actions.items()
        },
        "attributable": document_of_shares(attributable_shares(rows, effect.robust, issue_of or {})),
        "golden": {
            "rows": [[None if v != v else v for v in row] for row in rows.inputs[places].tolist()],
            "raw": scores,
            "probabilities": scores,
        },
    }  # fmt: skip


def vars_of(found: Any) -> dict[str, float]:
    """Return an interval as JSON-able data."""
    return {"value": found.value, "low": found.low, "high": found.high}

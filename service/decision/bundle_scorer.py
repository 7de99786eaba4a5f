"""Scores from a bundle's parts: rows for the model, calibration, effects, and the unknown customer. Pure.

What walks the trees is handed in. Must not know where bundles lie or how they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from features.contract import LAYOUT, UTC_OFFSET_HOURS
from features.layout import SECONDS_PER_DAY, Kind
from features.matrix import ACTION_COLUMNS, OFFER_COLUMNS, ActionTable, Columns, ModelInput
from service.decision.calibration import Calibrator
from service.decision.model import CAMPAIGN_TYPES, ISSUES, Catalogue, CustomerBatch, Floats, Ints, Scoring

Predict = Callable[[Floats], Floats]
"""Model rows (n, n_inputs), C order -> raw scores (n,), the same bits for a row alone and in company."""


class Compiled(Protocol):
    """What a scorer needs of a compiled catalogue."""

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue it was compiled from."""

    @property
    def action_table(self) -> ActionTable:
        """Its actions, in the order of `catalogue.actions`, as the model input needs them."""


@dataclass(frozen=True)
class ColdStart:
    """The facts of a typical new customer, held relative to now: who is unknown is scored as this one, never on zeros.

    Attributes:
        values: (layout.width,); seconds ago for moments and anchors, days ago for recent days, else the value.
    """

    values: Floats

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ColdStart:
        """Read fact name -> list of values, null for missing; every fact of the layout must be there."""
        values = np.full(LAYOUT.width, np.nan)
        facts = document["facts"]
        for name, rows in LAYOUT.slices.items():
            values[rows] = [np.nan if v is None else float(v) for v in facts[name]]
        return cls(values)

    def document(self) -> dict[str, Any]:
        """Return JSON-able data."""
        facts = {
            name: [None if v != v else v for v in self.values[rows].tolist()] for name, rows in LAYOUT.slices.items()
        }
        return {"facts": facts}

    def facts(self, now: float) -> Floats:
        """Return the facts as they would lie in the store at `now`, (layout.width, 1)."""
        facts = self.values.copy()
        today = np.floor((now + UTC_OFFSET_HOURS * 3600) / SECONDS_PER_DAY)
        for name, fact in LAYOUT.facts.items():
            rows = LAYOUT.slices[name]
            if fact.kind in (Kind.MOMENT, Kind.ANCHOR):
                facts[rows] = now - facts[rows]
            elif fact.kind is Kind.RECENT:
                facts[rows] = today - facts[rows]
        return facts[:, None]


@dataclass(frozen=True)
class Domain:
    """What kinds of action the model has seen, an issue: outside it a column would be read by chance.

    Attributes:
        windows: issue -> (least, greatest) response window in days. campaign_types: issue -> texts seen.
        offers: issue -> column of an offer -> (least, greatest); a column that is not there was never seen.
    """

    windows: Mapping[str, tuple[float, float]]
    campaign_types: Mapping[str, tuple[str, ...]]
    offers: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Domain:
        """Read issue -> {window_days: [least, greatest], campaign_types: [...], offers: only where it had any}."""
        windows = {issue: (float(d["window_days"][0]), float(d["window_days"][1])) for issue, d in document.items()}
        offers = {
            issue: {name: (float(least), float(most)) for name, (least, most) in d.get("offers", {}).items()}
            for issue, d in document.items()
        }
        return cls(windows, {issue: tuple(d["campaign_types"]) for issue, d in document.items()}, offers)

    def restrict(self, table: ActionTable, issues: list[str]) -> ActionTable:
        """Return the table with windows and offers clipped to, and others unset outside, what the issue's rows had."""
        statics = table.statics.copy()
        type_column, window_column = ACTION_COLUMNS.index("campaign_type"), ACTION_COLUMNS.index("window_days")
        for i, issue in enumerate(issues):
            if issue not in self.windows:
                continue
            statics[i, window_column] = np.clip(statics[i, window_column], *self.windows[issue])
            code = statics[i, type_column]
            if code == code and CAMPAIGN_TYPES[int(code)] not in self.campaign_types[issue]:
                statics[i, type_column] = np.nan
            seen = self.offers.get(issue, {})
            for name in OFFER_COLUMNS:
                place = ACTION_COLUMNS.index(name)
                statics[i, place] = np.clip(statics[i, place], *seen.get(name, (np.nan, np.nan)))
        return ActionTable(table.relative_rows, statics)


@dataclass(frozen=True)
class EffectModel:
    """What showing an action changes: a line on the effect booster's score, for actions whose effect is significant.

    Attributes:
        predict: Of uplift.txt. lines: action id -> (intercept, slope).
        attributable: issue -> share of the responses to what was shown that would not have come without; an issue of
            which that is not known has none.
    """

    predict: Predict
    lines: Mapping[str, tuple[float, float]]
    attributable: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any], predict: Predict) -> EffectModel:
        """Read uplift.json; an action that is not significant has no line."""
        lines = {
            action_id: (float(found["intercept"]), float(found["slope"]))
            for action_id, found in document["actions"].items()
            if found["is_significant"]
        }
        shares = document.get("attributable", {})  # a version of before has none
        return cls(predict, lines, {issue: float(found["used"]) for issue, found in shares.items() if found["is_used"]})


class BundleScorer:
    """Implements `service.decision.model.Scorer` for one bundle and one compiled catalogue."""

    def __init__(
        self,
        compiled: Compiled,
        *,
        version: str,
        predict: Predict,
        calibrator: Calibrator,
        cold_start: ColdStart,
        evidence: Mapping[str, float],
        domain: Domain,
        columns: Columns,
        effect: EffectModel | None = None,
    ) -> None:
        actions = compiled.catalogue.actions
        self.version = version
        self.evidence: Floats = np.array(
            [
                float(evidence.get(f"{action.issue}|{action.member or ''}", 0))
                if action.scoring is Scoring.MODEL
                else 0.0  # the response to a RISK action is assumed: no history stands behind it
                for action in actions
            ]
        )
        self._predict, self._calibrator, self._cold_start = predict, calibrator, cold_start
        self._columns, self._input = columns, ModelInput(columns)
        self._table = domain.restrict(compiled.action_table, [action.issue for action in actions])
        self._issues = np.array([float(ISSUES.index(action.issue)) for action in actions])
        self._effect = effect
        shares = effect.attributable if effect is not None else {}
        self.attributable: Floats = np.array([shares.get(action.issue, 1.0) for action in actions])
        lines = effect.lines if effect is not None else {}
        unknown = (np.nan, np.nan)
        self._lines: Floats = np.array([lines.get(action.id, unknown) for action in actions]).reshape(-1, 2)

    def score(self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float) -> Floats:
        """Score pairs of customer and action, (n_pairs,) calibrated probabilities; see `Scorer.score`."""
        if not len(actions):
            return np.empty(0)
        rows = self.rows(batch, as_of, customers, actions, now)
        return self._calibrator.apply(self._predict(rows), self._issues[actions])

    def uplift(self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float) -> Floats | None:
        """Estimate effects, (n_pairs,), NaN where the action's is not significant; None without an effect model."""
        if self._effect is None:
            return None
        intercepts, slopes = self._lines[actions].T
        uplift: Floats = intercepts.copy()
        is_scored = slopes > 0
        if is_scored.any():
            rows = self.rows(batch, as_of, customers[is_scored], actions[is_scored], now)
            uplift[is_scored] += slopes[is_scored] * self._effect.predict(rows)
        return uplift

    def rows(self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float) -> Floats:
        """Return the model's rows, (n_pairs, n_inputs); who is unknown is the typical new customer."""
        if not batch.is_known.all():
            as_of = as_of.copy()
            as_of[:, ~batch.is_known] = self._columns.as_of(self._cold_start.facts(now), now)
        return self._input.rows(as_of, customers, actions, self._table)

    def calibrated(self, contributions: Floats, actions: Ints) -> Floats:
        """Turn contributions to raw log-odds, the last of a row its base, into those to the calibrated ones."""
        return self._calibrator.contributions(contributions, self._issues[actions])

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of a model row, (n_inputs,)."""
        return self._input.names

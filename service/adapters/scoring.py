"""Serves propensities from a bundle: rows for the model, the model's raw scores, calibration, and the unknown customer.

Decides which engine walks the trees: lignum where it gives Booster's golden scores to the bit, else LightGBM's Booster
with one thread. Must not know where bundles lie or how they were made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from features.contract import LAYOUT, UTC_OFFSET_HOURS
from features.layout import SECONDS_PER_DAY, Kind
from features.matrix import ACTION_COLUMNS, ActionTable, Columns, ModelInput
from service.decision.calibration import Calibrator
from service.decision.model import CAMPAIGN_TYPES, ISSUES, Catalogue, CustomerBatch, Floats, Ints, Scoring

logger = logging.getLogger(__name__)
Predict = Callable[[Floats], Floats]
"""Model rows (n, n_inputs), C order -> raw log-odds (n,), the same bits for a row alone and in company."""


class Compiled(Protocol):
    """What a scorer needs of a compiled catalogue."""

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue it was compiled from."""

    @property
    def action_table(self) -> ActionTable:
        """Its actions, in the order of `catalogue.actions`, as the model input needs them."""


@dataclass(frozen=True)
class Golden:
    """Rows with the scores that whoever serves them must reproduce.

    Attributes:
        rows: (n, n_inputs). raw: (n,) Booster's scores, compared by bits. probabilities: (n,) calibrated.
    """

    rows: Floats
    raw: Floats
    probabilities: Floats

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Golden:
        """Read JSON-able data, in which null stands for NaN."""
        rows = np.array([[np.nan if v is None else float(v) for v in row] for row in document["rows"]], dtype=float)
        raw = np.array([float(v) for v in document["raw"]])
        probabilities = np.array([float(v) for v in document["probabilities"]])
        if rows.ndim != 2 or not len(rows) or raw.shape != (len(rows),) or probabilities.shape != raw.shape:
            raise ValueError("golden rows, raw scores and probabilities do not match in number")
        return cls(rows, raw, probabilities)

    def document(self) -> dict[str, Any]:
        """Return JSON-able data; floats survive JSON to the bit."""
        rows = [[None if v != v else v for v in row] for row in self.rows.tolist()]
        return {"rows": rows, "raw": self.raw.tolist(), "probabilities": self.probabilities.tolist()}


def open_booster(model: Path) -> Predict:
    """Return LightGBM's own predictor, one thread; the process that calls it must trust the file."""
    import lightgbm

    booster = lightgbm.Booster(model_str=model.read_text(encoding="utf-8"))
    predict: Predict = partial(booster.predict, raw_score=True, num_threads=1)
    return predict


def open_lignum(model: Path) -> Predict | None:
    """Return lignum's predictor, or None where the package is not installed."""
    try:
        import lignum
    except ImportError:
        return None
    predict: Predict = partial(lignum.load(str(model), format="lightgbm").predict, raw_score=True, n_jobs=1)
    return predict


def open_predictor(model: Path, golden: Golden) -> Predict:
    """Return the fastest predictor that gives the golden raw scores to the bit.

    Raises:
        ValueError: where even Booster's scores differ by more than 1e-9.
    """
    fast = open_lignum(model)
    if fast is not None:
        if np.array_equal(fast(golden.rows), golden.raw):
            return fast
        logger.warning("lignum's scores differ from the golden ones: scoring with LightGBM's Booster")
    slow = open_booster(model)
    worst = float(np.max(np.abs(slow(golden.rows) - golden.raw)))
    if not worst <= 1e-9:
        raise ValueError(f"the model's scores differ from its golden ones by {worst:.3g}")
    return slow


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
    """

    windows: Mapping[str, tuple[float, float]]
    campaign_types: Mapping[str, tuple[str, ...]]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Domain:
        """Read issue -> {window_days: [least, greatest], campaign_types: [...]}."""
        windows = {issue: (float(d["window_days"][0]), float(d["window_days"][1])) for issue, d in document.items()}
        return cls(windows, {issue: tuple(d["campaign_types"]) for issue, d in document.items()})

    def restrict(self, table: ActionTable, issues: list[str]) -> ActionTable:
        """Return the table with windows clipped to, and campaign types unset outside, what the issue's rows had."""
        statics = table.statics.copy()
        type_column, window_column = ACTION_COLUMNS.index("campaign_type"), ACTION_COLUMNS.index("window_days")
        for i, issue in enumerate(issues):
            if issue not in self.windows:
                continue
            statics[i, window_column] = np.clip(statics[i, window_column], *self.windows[issue])
            code = statics[i, type_column]
            if code == code and CAMPAIGN_TYPES[int(code)] not in self.campaign_types[issue]:
                statics[i, type_column] = np.nan
        return ActionTable(table.relative_rows, statics)


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

    def score(self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float) -> Floats:
        """Score pairs of customer and action, (n_pairs,) calibrated probabilities; see `Scorer.score`."""
        if not len(actions):
            return np.empty(0)
        if not batch.is_known.all():
            as_of = as_of.copy()
            as_of[:, ~batch.is_known] = self._columns.as_of(self._cold_start.facts(now), now)
        rows = self._input.rows(as_of, customers, actions, self._table)
        return self._calibrator.apply(self._predict(rows), self._issues[actions])

    def uplift(self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float) -> Floats | None:
        """Know of no effect: the bundle has no effect model."""
        return None

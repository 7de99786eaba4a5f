"""The JSON documents that travel with a model: calibrator, contract, evidence, cold start, golden rows.

Decides what a serving process may assume of the model. Knows neither MLflow nor the bundle's folder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import LAYOUT, STAGES, UTC_OFFSET_HOURS
from features.layout import SECONDS_PER_DAY, Kind
from features.matrix import ACTION_COLUMNS, OFFER_COLUMNS
from features.version import describe_contract, features_version
from service.decision.bundle_scorer import LEAST_POSITIVES, evidence_key
from service.decision.model import ISSUES
from training.dataset import Dataset
from training.train import Trained

Floats = NDArray[np.float64]

GOLDEN_ROWS = 60
LEAST_NEW = 20
"""With fewer new customers than this, the cold start is taken from those with the shortest past."""


def documents(dataset: Dataset, trained: Trained) -> dict[str, dict[str, Any]]:
    """Return file name -> document."""
    return {
        "calibrator.json": trained.calibrator.document(),
        "contract.json": contract_document(dataset, trained),
        "evidence.json": evidence(dataset, trained),
        "cold_start.json": cold_start(dataset, trained),
        "golden.json": golden(dataset, trained),
    }


def contract_document(dataset: Dataset, trained: Trained) -> dict[str, Any]:
    """Return the feature contract and, by issue, what the model has seen; and the texts behind codes of the log."""
    seen = ~trained.slices.test
    issues, kinds = dataset.column("issue")[seen], dataset.column("campaign_type")[seen]
    windows = dataset.column("window_days")[seen]
    actions = {
        issue: {
            "window_days": [float(windows[issues == issue].min()), float(windows[issues == issue].max())],
            "campaign_types": sorted({str(kind) for kind in kinds[issues == issue] if kind is not None}),
            "members": _members_seen(dataset, seen & (dataset.column("issue") == issue)),
            **_offers_seen(dataset, seen & (dataset.column("issue") == issue)),
        }
        for issue in ISSUES
        if (issues == issue).any()
    }
    texts = {name: list(texts) for name, texts in dataset.texts.items()}
    return {
        "features_version": features_version(),
        "features": describe_contract(),
        "actions": actions,
        "logged": texts,
    }


def _members_seen(dataset: Dataset, rows: NDArray[np.bool_]) -> list[str]:
    """Return the members with positives enough among the rows to be told apart from the others of their group."""
    members = [member for member in dataset.column("member")[rows & dataset.column("label").astype(bool)] if member]
    names, counts = np.unique(np.array(members, dtype=np.str_), return_counts=True)
    return [str(name) for name, count in zip(names, counts, strict=True) if count >= LEAST_POSITIVES]


def _offers_seen(dataset: Dataset, rows: NDArray[np.bool_]) -> dict[str, dict[str, list[float]]]:
    """Return least and greatest of each column of an offer among the rows; nothing where no row has an offer."""
    offers = {name: dataset.inputs[rows, dataset.names.index(name)] for name in OFFER_COLUMNS}
    known = {name: values for name, values in offers.items() if not np.isnan(values).all()}
    ranges = {name: [float(np.nanmin(values)), float(np.nanmax(values))] for name, values in known.items()}
    return {"offers": ranges} if ranges else {}


def evidence(dataset: Dataset, trained: Trained) -> dict[str, float]:
    """Count the positives behind each `evidence_key`, among the rows that the model was fitted on."""
    labels = dataset.column("label").astype(bool) & ~trained.slices.test
    kinds = zip(*(dataset.column(name)[labels] for name in ("issue", "member", "action_id")), strict=True)
    names, counts = np.unique([evidence_key(*kind) for kind in kinds], return_counts=True)
    return {str(name): float(count) for name, count in zip(names, counts, strict=True)}


def cold_start(dataset: Dataset, trained: Trained) -> dict[str, Any]:
    """Return the facts of a typical new customer relative to the moment: medians, modes for categories.

    A fact that most new customers lack is missing. Ages in seconds for moments and anchors, in days for recent days.
    """
    is_row = (dataset.column("issue") == "retention") & ~trained.slices.test
    stages = dataset.inputs[is_row, dataset.names.index("stage")]
    ages = dataset.inputs[is_row, dataset.names.index("days_since_first_seen")]
    is_new = stages == STAGES.index("new")
    if is_new.sum() < LEAST_NEW:
        is_new = ages <= np.sort(ages)[min(LEAST_NEW, len(ages)) - 1]
    facts = dataset.facts[:, dataset.pairs[is_row][is_new]]
    moments = dataset.column("moment")[is_row][is_new]
    today = np.floor((moments + UTC_OFFSET_HOURS * 3600) / SECONDS_PER_DAY)
    typical = {}
    for name, fact in LAYOUT.facts.items():
        values = facts[LAYOUT.slices[name]]
        if fact.kind in (Kind.MOMENT, Kind.ANCHOR):
            values = moments - values
        elif fact.kind is Kind.RECENT:
            values = today - values
        typical[name] = [_typical(row, is_category=bool(fact.vocabulary)) for row in values]
        if fact.kind is Kind.RECENT:
            days = sorted({round(age) for age in typical[name] if age is not None}, reverse=True)
            typical[name] = [float(age) for age in days] + [None] * (fact.length - len(days))
    return {"facts": typical}


def _typical(values: Floats, *, is_category: bool) -> float | None:
    known = values[~np.isnan(values)]
    if 2 * len(known) <= len(values):
        return None
    if is_category:
        codes, counts = np.unique(known, return_counts=True)
        return float(codes[np.argmax(counts)])
    return float(np.median(known))


def golden(dataset: Dataset, trained: Trained) -> dict[str, Any]:
    """Return rows over all issues and the whole range of scores, with raw scores and calibrated probabilities."""
    raw = trained.raw
    issues = dataset.inputs[:, dataset.names.index("issue")]
    chosen: list[int] = []
    for code in np.unique(issues):
        own = np.flatnonzero(issues == code)
        ranked = own[np.argsort(raw[own], kind="stable")]
        places = np.linspace(0, len(ranked) - 1, GOLDEN_ROWS // len(np.unique(issues))).astype(int)
        chosen.extend(ranked[places].tolist())
    blank = dataset.inputs[chosen[:3]].copy()
    blank[:, : -len(ACTION_COLUMNS)] = np.nan
    rows = np.vstack([dataset.inputs[chosen], blank])
    scores = np.asarray(trained.booster.predict(rows, raw_score=True, num_threads=1))
    probabilities = trained.calibrator.apply(scores, rows[:, dataset.names.index("issue")])
    return {
        "rows": [[None if value != value else value for value in row] for row in rows.tolist()],
        "raw": scores.tolist(),
        "probabilities": probabilities.tolist(),
    }

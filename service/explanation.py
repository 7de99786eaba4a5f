"""Why a propensity is what it is: what each fact added to its log-odds, in words a person can read.

Contributions are exact Shapley values of the trees (Lundberg et al. 2020, TreeSHAP, as LightGBM computes them). The
calibrator is a line in log-odds, so scaled by its slope they add up to the log-odds of the calibrated propensity. Knows
what is asked of an explainer and how its answer reads; not where the explainer runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from features.contract import CAMPAIGN_TYPES, DIMENSIONS, LAYOUT, STAGES
from features.words import describe
from service.decision.compiled import CompiledCatalogue
from service.decision.model import ISSUES, CustomerBatch, Decisions, Floats, Ints, Scorer, Scoring
from service.ports import Explainer, ExplanationUnavailable

Texts = Mapping[str, tuple[str, ...]]
MOST_TOLD = 12
"""So many contributions of an action are told one by one, the greatest; the others as their sum."""
LATER = "not kept with this answer; GET /v1/decisions/{decision_id}?explain=full has it"
_OF = {Scoring.MODEL: "propensity", Scoring.RISK: "risk of silence", Scoring.PRIOR: "assumption of the catalogue"}
_MEMBERS = tuple(member for dimension in DIMENSIONS.values() for member in dimension)
_ACTION_TEXTS: Texts = {"issue": ISSUES, "dimension": _MEMBERS, "campaign_type": CAMPAIGN_TYPES, "stage": STAGES}


@runtime_checkable
class Explainable(Scorer, Protocol):
    """A scorer that shows what its model reads."""

    texts: Texts
    """Column of a model row -> what its codes stand for, where the model alone says so."""

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of a model row, (n_inputs,)."""

    def rows(
        self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float, channel: str
    ) -> Floats:
        """Return the model rows of pairs, (n_pairs, n_inputs); arguments as of `score`."""

    def calibrated(self, contributions: Floats, actions: Ints) -> Floats:
        """Turn contributions to raw log-odds into those of the calibrated log-odds, (n_pairs, n_inputs + 1)."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The chosen actions of a customer that a model scored, with the rows it read.

    Attributes:
        digest: Of the bundle. actions: (n,) positions in the catalogue. rows: (n, n_inputs).
    """

    digest: str
    catalogue: CompiledCatalogue
    scorer: Explainable
    all_actions: tuple[int, ...]
    actions: Ints
    rows: Floats


def chosen_of(
    digest: str,
    catalogue: CompiledCatalogue,
    scorer: Scorer,
    batch: CustomerBatch,
    decisions: Decisions,
    customer: int = 0,
) -> Chosen:
    """Return what is to be explained of a customer's decision.

    Args:
        digest: Of the bundle that scored it.

    Raises:
        ExplanationUnavailable: The scorer does not show what its model reads.
    """
    everything = tuple(int(decisions.actions[choice.candidate]) for choice in decisions.chosen[customer])
    terms = catalogue.catalogue.actions
    assumed = [a for a in everything if terms[a].scoring is not Scoring.RISK and scorer.sources[a] == "prior"]
    scored = np.array([a for a in everything if a not in assumed], dtype=np.int64)
    customers = np.full(len(scored), customer, dtype=np.int64)
    if not isinstance(scorer, Explainable):
        raise ExplanationUnavailable("what scored it does not show what it reads")
    rows = scorer.rows(batch, decisions.as_of, customers, scored, decisions.now, decisions.request.channel)
    return Chosen(digest, catalogue, scorer, everything, scored, rows)


async def explain_decision(
    explainer: Explainer | None,
    digest: str,
    catalogue: CompiledCatalogue,
    scorer: Scorer,
    batch: CustomerBatch,
    decisions: Decisions,
    customer: int,
    deadline_seconds: float,
) -> dict[str, Any]:
    """Return the `explanation` of a customer's decision; arguments as of `chosen_of` and `explain`."""
    try:
        chosen = chosen_of(digest, catalogue, scorer, batch, decisions, customer)
    except ExplanationUnavailable as error:
        return unavailable(str(error))
    return await explain(explainer, chosen, deadline_seconds)


async def explain(explainer: Explainer | None, chosen: Chosen, deadline_seconds: float) -> dict[str, Any]:
    """Return the `explanation` of an answer: available with an entry an action, or unavailable and why."""
    try:
        if explainer is None:
            raise ExplanationUnavailable("this process explains nothing")
        found = np.empty((0, 0))
        if len(chosen.rows):
            found = await explainer.contributions(chosen.digest, chosen.rows, deadline_seconds)
    except ExplanationUnavailable as error:
        return unavailable(str(error))
    return {"status": "available", "actions": told(chosen, found)}


def unavailable(why: str) -> dict[str, Any]:
    """Return the `explanation` where there is none."""
    return {"status": "unavailable", "why": why}


def told(chosen: Chosen, contributions: Floats) -> list[dict[str, Any]]:
    """Return an entry for each chosen action, in the order of the answer.

    Args:
        contributions: (n, n_inputs + 1) raw, of `chosen.actions`.
    """
    terms = chosen.catalogue.catalogue.actions
    entries = {a: _entry_without_model(terms[a].id, terms[a].scoring, terms[a].prior) for a in chosen.all_actions}
    if len(chosen.actions):
        names = chosen.scorer.names
        for k, parts in enumerate(chosen.scorer.calibrated(contributions, chosen.actions)):
            action = int(chosen.actions[k])
            texts = {**_ACTION_TEXTS, **chosen.scorer.texts}
            entries[action] = _entry(terms[action].id, terms[action].scoring, names, texts, chosen.rows[k], parts)
    return [entries[a] for a in chosen.all_actions]


def _entry_without_model(action_id: str, scoring: Scoring, prior: float) -> dict[str, Any]:
    return {"action_id": action_id, "of": _OF[scoring], "probability": prior}


def _entry(
    action_id: str, scoring: Scoring, names: tuple[str, ...], texts: Texts, row: Floats, parts: Floats
) -> dict[str, Any]:
    order = np.argsort(-np.abs(parts[:-1]), kind="stable")
    shown = [int(i) for i in order[:MOST_TOLD] if parts[i] != 0.0]
    log_odds = float(parts.sum())
    listed = [
        {
            "column": names[i],
            "words": describe(names[i]),
            "value": _readable(names[i], float(row[i]), texts),
            "log_odds": float(parts[i]),
        }
        for i in shown
    ]
    rest = log_odds - float(parts[-1]) - sum(float(parts[i]) for i in shown)
    return {
        "action_id": action_id,
        "of": _OF[scoring],
        "probability": 1.0 / (1.0 + math.exp(-log_odds)),
        "log_odds": log_odds,
        "base_log_odds": float(parts[-1]),
        "contributions": listed,
        "all_others_log_odds": rest,
    }


def _readable(column: str, value: float, known: Texts) -> str | float | None:
    if math.isnan(value):
        return None
    fact = LAYOUT.facts.get(column)
    texts = known.get(column) or (fact.vocabulary if fact is not None else ())
    return texts[int(value)] if texts else value

"""The answer to a decision, as plain data: the one place that says how a decision reads to a caller."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from service.content import fallback_of, in_locale
from service.decision.model import Choice
from service.decision.trace import persona_of, reasons, trace
from service.explanation import LATER, unavailable
from service.online import Decided


def iso(moment: float) -> str:
    """Write Unix seconds as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def answer_of(decided: Decided, locale: str | None, explain: str) -> dict[str, Any]:
    """Return the answer of `POST /v1/decisions` for a batch of one.

    Args:
        explain: none: actions only; chosen: with reasons; full: with the trace of every candidate.
    """
    decisions, serving = decided.decisions, decided.serving
    catalogue = serving.catalogue.catalogue
    actions = [
        action_of(decided, choice, rank, locale, with_reasons=explain != "none")
        for rank, choice in enumerate(decisions.chosen[decided.customer], start=1)
    ]
    answer: dict[str, Any] = {
        "decision_id": decided.decision_id,
        "decision_time": iso(decisions.now),
        "customer_id": decided.customer_id,
        "arm": decisions.arms[decided.customer],
        "layers": {layer: arm for layer, arm, _ in decisions.layers[decided.customer]},
        "stage": stage_of(decided),
        "actions": actions,
        "fallback": fallback_of(decisions, serving.catalogue, decided.customer, locale),
        "degraded": bool(decided.degraded_reasons),
        "degraded_reasons": list(decided.degraded_reasons),
        "versions": {
            "catalogue": catalogue.version,
            "model": decided.model.scorer.version,
            "features": decided.model.bundle.features_version,
        },
        "expires_at": iso(decisions.now + catalogue.expires_seconds),
    }
    if explain == "full":
        answer["persona"] = persona_of(decisions, serving.catalogue, decided.customer)
        answer["explanation"] = unavailable(LATER)
        answer["trace"] = trace(
            decisions, serving.catalogue, decided.customer, decided.batch.view_times[:, decided.customer]
        )
    return answer


def action_of(decided: Decided, choice: Choice, rank: int, locale: str | None, *, with_reasons: bool) -> dict[str, Any]:
    """Return one ranked action of the answer."""
    decisions, serving = decided.decisions, decided.serving
    catalogue = serving.catalogue.catalogue
    position = int(decisions.actions[choice.candidate])
    action = catalogue.actions[position]
    treatment = catalogue.treatments[decisions.candidates[choice.candidate]]
    evidence = float(decided.model.scorer.evidence[position])
    spoken, content = in_locale(treatment.content, locale, catalogue.default_locale)
    uplift = decisions.uplifts[decided.customer, choice.candidate] if decisions.uplifts.size else np.nan
    return {
        "rank": rank,
        "action_id": action.id,
        "treatment_id": treatment.id,
        "placement": choice.placement,
        "issue": action.issue,
        "group": action.group,
        "name": action.name,
        "locale": spoken,
        "content": dict(content),
        "priority": finite(decisions.priorities[decided.customer, choice.candidate]),
        "propensity": finite(decisions.propensities[decided.customer, choice.candidate]),
        "propensity_source": "model" if action.scoring == "model" and evidence > 0 else "prior",
        "evidence": evidence + float(decisions.evidence.positives[position]),
        "uplift": finite(uplift),
        "value": action.value,
        "selection_probability": choice.selection_probability,
        "reasons": reasons(decisions, serving.catalogue, decided.customer, choice.candidate) if with_reasons else [],
    }


def stage_of(decided: Decided) -> str | None:
    """Return the customer's journey stage as of the decision, or None for an unknown customer."""
    columns = decided.serving.catalogue.columns
    code = decided.decisions.as_of[columns.index["stage"], decided.customer]
    return None if np.isnan(code) else columns.vocabulary("stage")[int(code)]


def finite(value: float) -> float | None:
    """Return a plain float, or None for NaN, which JSON cannot say."""
    return None if np.isnan(value) else float(value)

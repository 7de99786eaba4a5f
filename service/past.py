"""A decision that was made, for people: what was shown and why everything else was not, rebuilt from the decision log.

Nothing is decided again: stages, reasons, propensities and priorities are those that were logged; the catalogue of that
version gives them their words, and the logged facts the values that its rules read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.version import features_version
from service.answer import finite, iso
from service.decision.compiled import CompiledCatalogue
from service.decision.expression import CHANNEL
from service.decision.model import Choice, Decisions, Request, Stage
from service.decision.record import DecisionRow
from service.decision.trace import trace

NO_CONTEXT = "What the caller sent as context is not logged: rules that read it show null for it."
NO_CATALOGUE = (
    "The catalogue or the feature contract of then is not here any more: candidates are as logged, without words."
)


def past_view(row: DecisionRow, catalogue: CompiledCatalogue | None) -> dict[str, Any]:
    """Return a logged decision with its trace.

    Args:
        catalogue: The one of the row's version, or None where it is not kept.
    """
    if catalogue is not None and row.features_version == features_version() and _is_of(row, catalogue):
        candidates, note = trace(_as_decided(row, catalogue), catalogue, 0), NO_CONTEXT
    else:
        candidates, note = _as_logged(row), NO_CATALOGUE
    return {
        "decision_id": row.decision_id,
        "decision_time": iso(row.decision_time),
        "customer_id": row.customer_id,
        "channel": row.channel,
        "arm": row.arm,
        "arm_probability": row.arm_probability,
        "degraded_reasons": list(row.degraded_reasons),
        "reselected": row.reselected,
        "versions": {
            "catalogue": row.catalogue_version,
            "model": row.model_version,
            "features": row.features_version,
        },
        "note": note,
        "trace": candidates,
    }


def _as_decided(row: DecisionRow, catalogue: CompiledCatalogue) -> Decisions:
    """Return the logged arrays in the form that a trace is written from."""
    plan = catalogue.plans[row.channel]
    facts = _floats(row.facts)[:, None]
    extras = np.full((len(catalogue.extras), 1), np.nan)
    for i, name in enumerate(catalogue.extras):
        if name == CHANNEL:
            extras[i] = catalogue.catalogue.channels.index(row.channel)
    return Decisions(
        row.decision_time,
        Request(row.channel),
        plan.candidates,
        plan.actions,
        np.frombuffer(row.stages, np.int8)[None],
        np.frombuffer(row.reasons, "<i4").astype(np.int32)[None],
        _floats(row.propensities)[None],
        _floats(row.priorities)[None],
        (tuple(Choice(*placed) for placed in row.chosen),),
        (tuple(Choice(*placed) for placed in row.withheld),),
        (row.arm,),
        np.array([row.arm_probability]),
        catalogue.columns.as_of(facts, row.decision_time),
        extras,
    )


def _is_of(row: DecisionRow, catalogue: CompiledCatalogue) -> bool:
    """Say whether the logged candidates stand in this catalogue's order."""
    plan = catalogue.plans.get(row.channel)
    return (
        plan is not None and tuple(catalogue.catalogue.treatments[t].id for t in plan.candidates) == row.treatment_ids
    )


def _as_logged(row: DecisionRow) -> list[dict[str, Any]]:
    stages, reasons = np.frombuffer(row.stages, np.int8), np.frombuffer(row.reasons, "<i4")
    propensities, priorities = _floats(row.propensities), _floats(row.priorities)
    places = {
        candidate: {"rank": rank, "placement": placement, "selection_probability": probability}
        for choices in (row.withheld, row.chosen)
        for rank, (candidate, placement, probability) in enumerate(choices, start=1)
    }
    return [
        {
            "treatment_id": treatment,
            "stage": Stage(int(stages[i])).name.lower(),
            "reason_code": int(reasons[i]),
            "factors": {"propensity": finite(propensities[i]), "priority": finite(priorities[i])},
            **places.get(i, {}),
        }
        for i, treatment in enumerate(row.treatment_ids)
    ]


def _floats(content: bytes) -> NDArray[np.float64]:
    return np.frombuffer(content, "<f8").astype(np.float64)

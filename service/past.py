"""A decision that was made, for people: what was shown and why everything else was not, rebuilt from the decision log.

Stages, numbers and places are those that were logged; the catalogue of that version gives them their words. Where
catalogue and bundle of then are still there the decision is also made anew, and the answer says whether it came out
the same to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.version import features_version
from service.answer import finite, iso
from service.decision.compiled import CompiledCatalogue
from service.decision.model import Choice, Decisions, Scorer, Stage
from service.decision.record import DecisionRow
from service.decision.replay import decide_again, differences, is_of
from service.decision.trace import persona_of, trace

NO_CATALOGUE = "the catalogue of then is not kept here any more: candidates are as logged, without words"
NO_CONTRACT = "the feature contract has changed since: candidates are as logged, without words"
NO_BUNDLE = "the bundle that scored it is not on disk any more: what was logged is told, and nothing was scored again"


@dataclass(frozen=True, slots=True)
class Past:
    """A logged decision and what is left of what made it.

    Attributes:
        catalogue: Of the row's version. scorer: Of its bundle, for this catalogue. None where it is gone.
        decisions: As logged, in the form that a trace is written from; None without the catalogue.
        is_recomputed: Made anew, it was the same to the bit. why: What kept it from that; "" where it was.
    """

    row: DecisionRow
    catalogue: CompiledCatalogue | None
    scorer: Scorer | None
    decisions: Decisions | None
    is_recomputed: bool
    why: str


def look_back(row: DecisionRow, catalogue: CompiledCatalogue | None, scorer: Scorer | None) -> Past:
    """Make a logged decision anew as far as what made it is still there."""
    if catalogue is None or not is_of(row, catalogue):
        return Past(row, None, None, None, False, NO_CATALOGUE)
    if row.features_version != features_version():
        return Past(row, None, None, None, False, NO_CONTRACT)
    again = decide_again(row, catalogue, scorer)
    decisions = _as_logged(row, again)
    if scorer is None and row.bundle_digest:
        return Past(row, catalogue, None, decisions, False, NO_BUNDLE)
    other = differences(row, again, catalogue)
    why = f"made anew it differs in {', '.join(other)}" if other else ""
    return Past(row, catalogue, scorer, decisions, not other, why)


def past_view(past: Past) -> dict[str, Any]:
    """Return a logged decision with its trace."""
    row = past.row
    if past.decisions is not None and past.catalogue is not None:
        candidates = trace(past.decisions, past.catalogue, 0, _floats(row.view_times))
        persona = persona_of(past.decisions, past.catalogue, 0)
    else:
        candidates, persona = _bare(row), None
    return {
        "decision_id": row.decision_id,
        "decision_time": iso(row.decision_time),
        "customer_id": row.customer_id,
        "channel": row.channel,
        "asked": {
            "placements": [{"name": name, "count": count} for name, count in row.placements],
            "context": dict(row.context),
            "issues": list(row.issues),
            "limit": row.limit,
            "locale": row.locale or None,
        },
        "arm": row.arm,
        "arm_probability": row.arm_probability,
        "layers": [{"layer": layer, "arm": arm, "probability": share} for layer, arm, share in row.layers],
        "consents": dict(row.consents),
        "paused": [{"scope": scope, "id": scope_id} for scope, scope_id in row.paused],
        "degraded_reasons": list(row.degraded_reasons),
        "reselected": row.reselected,
        "versions": {
            "catalogue": row.catalogue_version,
            "model": row.model_version,
            "features": row.features_version,
        },
        "recomputed": past.is_recomputed,
        "recomputed_why": past.why or "made anew from the log, it is the same to the bit",
        "persona": persona,
        "trace": candidates,
    }


def _as_logged(row: DecisionRow, again: Decisions) -> Decisions:
    """Return what was logged, with the columns as of then beside it."""
    return replace(
        again,
        stages=np.frombuffer(row.stages, np.int8)[None],
        reasons=np.frombuffer(row.reasons, "<i4").astype(np.int32)[None],
        propensities=_floats(row.propensities)[None],
        priorities=_floats(row.priorities)[None],
        uplifts=_floats(row.uplifts)[None],
        chosen=(tuple(Choice(*placed) for placed in row.chosen),),
        withheld=(tuple(Choice(*placed) for placed in row.withheld),),
        arms=(row.arm,),
        arm_probabilities=np.array([row.arm_probability]),
    )


def _bare(row: DecisionRow) -> list[dict[str, Any]]:
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

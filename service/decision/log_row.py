"""A decision as the row that the log keeps of it. Knows which inputs and results a row has, and no store."""

from __future__ import annotations

from service.decision.compiled import CompiledCatalogue
from service.decision.model import Choice, CustomerBatch, Decisions, Evidence, Floats
from service.decision.record import DecisionRow, Placed
from service.decision.selection import slots_of


def write_row(
    decision_id: str,
    batch: CustomerBatch,
    decisions: Decisions,
    catalogue: CompiledCatalogue,
    customer: int,
    *,
    model_version: str,
    features_version: str,
    bundle_digest: str,
    degraded_reasons: tuple[str, ...],
    reselected: bool,
) -> DecisionRow:
    """Return the row of one customer of a batch.

    Args:
        model_version, features_version, bundle_digest: Of what scored.
    """
    request, plan = decisions.request, catalogue.plans[decisions.request.channel]
    arm, probability = decisions.arms[customer], float(decisions.arm_probabilities[customer])
    return DecisionRow(
        decision_id=decision_id,
        customer_id=batch.customer_ids[customer],
        decision_time=decisions.now,
        channel=request.channel,
        placements=request.placements,
        context=tuple(request.context.items()),
        issues=request.issues,
        limit=request.limit,
        locale=request.locale,
        arm=arm,
        arm_probability=probability,
        layers=decisions.layers[customer] if decisions.layers else (),
        catalogue_version=catalogue.catalogue.version,
        model_version=model_version,
        features_version=features_version,
        bundle_digest=bundle_digest,
        treatment_ids=plan.treatment_ids,
        stages=decisions.stages[customer].tobytes(),
        reasons=decisions.reasons[customer].tobytes(),
        propensities=decisions.propensities[customer].tobytes(),
        priorities=decisions.priorities[customer].tobytes(),
        uplifts=decisions.uplifts[customer].tobytes() if decisions.uplifts.size else b"",
        evidence=_evidence(decisions.evidence, decisions),
        facts=batch.facts[:, customer].tobytes(),
        view_times=batch.view_times[:, customer].tobytes(),
        consents=tuple(batch.consents[customer].items()),
        time_zone=batch.time_zones[customer] if batch.time_zones else "",
        paused=tuple(sorted(batch.paused)),
        room=decisions.room[customer].astype("<i2").tobytes(),
        is_known=bool(batch.is_known[customer]),
        is_loggable=batch.is_loggable,
        chosen=_placed(decisions.chosen[customer]),
        withheld=_placed(decisions.withheld[customer]),
        distributions=tuple(
            _slot(placement, decisions.distributions[k, customer])
            for k, placement in enumerate(slots_of(plan, request))
        ),
        degraded_reasons=degraded_reasons,
        reselected=reselected,
        dry_run=False,
    )


def _placed(choices: tuple[Choice, ...]) -> tuple[Placed, ...]:
    return tuple([(c.candidate, c.placement, c.selection_probability) for c in choices])


def _slot(placement: str, probabilities: Floats) -> tuple[str, bytes, bytes]:
    """Return a slot's distribution without its zeros."""
    possible = probabilities.nonzero()[0]
    return placement, possible.astype("<i2").tobytes(), probabilities[possible].tobytes()


def _evidence(evidence: Evidence, decisions: Decisions) -> tuple[tuple[int, float, float], ...]:
    """Return (candidate, positives, expected) of the candidates whose action has any."""
    if not len(evidence.expected):
        return ()
    positives, expected = evidence.positives[decisions.actions], evidence.expected[decisions.actions]
    known = ((positives != 0) | (expected != 0)).nonzero()[0]
    return tuple(zip(known.tolist(), positives[known].tolist(), expected[known].tolist(), strict=True))

"""Makes a logged decision anew from its row, to the bit. Knows the row, the catalogue and the model; no store.

What a row holds is what the decision was made from: facts as served, consents, switches, what the contact policy left,
evidence, the request. Catalogue and bundle are those of the versions that the row names, and it is the caller who finds
them. A cap that another channel used up meanwhile shows as candidates at `RESERVATION_REFUSED`: they are refused again.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from features.layout import Layout
from service.decision.compiled import CompiledCatalogue
from service.decision.engine import decide, select_again
from service.decision.experiment import CHALLENGER
from service.decision.log_row import LogRows
from service.decision.model import Contacts, CustomerBatch, Decisions, Evidence, Request, Scorer, Stage
from service.decision.record import DecisionRow, random_key

_FLOATS = ("propensities", "priorities", "uplifts", "facts", "view_times")


class AnotherCatalogue(ValueError):
    """The catalogue does not have the candidates of the row, or not in its order."""


def request_of(row: DecisionRow) -> Request:
    """Return what was asked."""
    return Request(row.channel, row.placements, dict(row.context), row.issues, row.limit, row.locale)


def batch_of(row: DecisionRow, layout: Layout) -> CustomerBatch:
    """Return what was gathered, as a batch of one; contacts are left out, since the row has the room they left.

    Raises:
        ValueError: The facts are those of another layout.
    """
    facts, view_times = _floats(row.facts)[:, None], _floats(row.view_times)[:, None]
    if facts.shape[0] != layout.width or view_times.shape[0] != len(layout.views):
        raise ValueError(f"the row has {facts.shape[0]} facts, the layout of now has {layout.width}")
    return CustomerBatch(
        customer_ids=(row.customer_id,),
        facts=facts,
        view_times=view_times,
        is_known=np.array([row.is_known]),
        consents=(dict(row.consents),),
        contacts=Contacts.none(),
        paused=frozenset(row.paused),
        is_loggable=row.is_loggable,
        time_zones=(row.time_zone,),
    )


def evidence_of(row: DecisionRow, catalogue: CompiledCatalogue) -> Evidence:
    """Return the evidence of the row's candidates, by action; of actions on other channels there is none."""
    actions = catalogue.plans[row.channel].actions
    evidence = Evidence.none(len(catalogue.catalogue.actions))
    for candidate, positives, expected in row.evidence:
        evidence.positives[actions[candidate]] = positives
        evidence.expected[actions[candidate]] = expected
    return evidence


def is_of(row: DecisionRow, catalogue: CompiledCatalogue) -> bool:
    """Say whether the row's candidates are the catalogue's, in its order."""
    plan = catalogue.plans.get(row.channel)
    return plan is not None and plan.treatment_ids == row.treatment_ids


def decide_again(row: DecisionRow, catalogue: CompiledCatalogue, scorer: Scorer | None) -> Decisions:
    """Decide from a row.

    Args:
        catalogue: Of the row's version. scorer: Of the row's bundle, bound to this catalogue.

    Raises:
        AnotherCatalogue: The catalogue has other candidates.
        ValueError: The facts are those of another layout.
    """
    if not is_of(row, catalogue):
        raise AnotherCatalogue(f"the catalogue {catalogue.catalogue.version} has other candidates than the decision")
    keys = np.array([random_key(row.decision_id, row.customer_id)], dtype=np.uint64)
    room = np.frombuffer(row.room, "<i2").astype(np.int64)[None]
    batch = batch_of(row, catalogue.columns.layout)
    decisions = decide(
        batch,
        request_of(row),
        catalogue,
        scorer,
        row.decision_time,
        keys,
        room=room,
        evidence=evidence_of(row, catalogue),
        challenger=scorer if _had_challenger(row, catalogue) else None,
    )
    refused = np.frombuffer(row.stages, np.int8) == Stage.RESERVATION_REFUSED
    if refused.any():
        positions = np.unique(catalogue.plans[row.channel].actions[refused])
        decisions = select_again(decisions, catalogue, 0, positions.tolist(), keys)
    return decisions


def _had_challenger(row: DecisionRow, catalogue: CompiledCatalogue) -> bool:
    """Say whether a challenger was loaded then: without one, its share is counted with that of `nba`."""
    _, arm, share = row.layers[0]
    return arm == CHALLENGER or dict(catalogue.catalogue.experiment.arms).get(arm) == share


def differences(row: DecisionRow, decisions: Decisions, catalogue: CompiledCatalogue) -> tuple[str, ...]:
    """Return the fields in which a decision made anew is not the logged one, to the bit; none where it is the same."""
    again = LogRows(batch_of(row, catalogue.columns.layout), decisions, catalogue).row(
        0,
        row.decision_id,
        model_version=row.model_version,
        features_version=row.features_version,
        bundle_digest=row.bundle_digest,
        degraded_reasons=row.degraded_reasons,
        reselected=row.reselected,
    )
    return tuple(f.name for f in fields(row) if _bits(row, f.name) != _bits(again, f.name))


def _bits(row: DecisionRow, name: str) -> object:
    """Return a field to compare; every NaN is the same NaN."""
    value = getattr(row, name)
    if name not in _FLOATS:
        return value
    numbers = _floats(value)
    numbers[np.isnan(numbers)] = np.nan
    return numbers.tobytes()


def _floats(content: bytes) -> NDArray[np.float64]:
    return np.frombuffer(content, "<f8").astype(np.float64)

"""Decisions as the rows that the log keeps of them. Knows which inputs and results a row has, and no store."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.decision.compiled import CompiledCatalogue
from service.decision.model import CustomerBatch, Decisions, Evidence
from service.decision.record import DecisionRow
from service.decision.selection import slots_of


class LogRows:
    """The rows of customers who were decided together; the work on arrays is done once for all of them."""

    def __init__(self, batch: CustomerBatch, decisions: Decisions, catalogue: CompiledCatalogue) -> None:
        request = decisions.request
        self._batch, self._decisions, self._catalogue = batch, decisions, catalogue
        self._plan = catalogue.plans[request.channel]
        self._context, self._paused = tuple(request.context.items()), tuple(sorted(batch.paused))
        self._probabilities, self._is_known = decisions.arm_probabilities.tolist(), batch.is_known.tolist()
        self._stages, self._reasons = _cut(decisions.stages), _cut(decisions.reasons)
        self._propensities, self._priorities = _cut(decisions.propensities), _cut(decisions.priorities)
        self._uplifts = _cut(decisions.uplifts) if decisions.uplifts.size else [b""] * len(self._is_known)
        self._facts, self._view_times = _cut(batch.facts.T), _cut(batch.view_times.T)
        self._room = _cut(decisions.room.astype("<i2"))
        self._distributions = _distributions(decisions, slots_of(self._plan, request))

    def row(
        self,
        customer: int,
        decision_id: str,
        *,
        model_version: str,
        features_version: str,
        bundle_digest: str,
        degraded_reasons: tuple[str, ...],
        reselected: bool,
    ) -> DecisionRow:
        """Return the row of one of the customers.

        Args:
            model_version, features_version, bundle_digest: Of what scored.
        """
        batch, decisions, catalogue, plan = self._batch, self._decisions, self._catalogue, self._plan
        request = decisions.request
        return DecisionRow(
            decision_id=decision_id,
            customer_id=batch.customer_ids[customer],
            decision_time=decisions.now,
            channel=request.channel,
            placements=request.placements,
            context=self._context,
            issues=request.issues,
            limit=request.limit,
            locale=request.locale,
            arm=decisions.arms[customer],
            arm_probability=self._probabilities[customer],
            layers=decisions.layers[customer] if decisions.layers else (),
            catalogue_version=catalogue.catalogue.version,
            model_version=model_version,
            features_version=features_version,
            bundle_digest=bundle_digest,
            treatment_ids=plan.treatment_ids,
            stages=self._stages[customer],
            reasons=self._reasons[customer],
            propensities=self._propensities[customer],
            priorities=self._priorities[customer],
            uplifts=self._uplifts[customer],
            evidence=_evidence(decisions.evidence, catalogue, request.channel),
            facts=self._facts[customer],
            view_times=self._view_times[customer],
            consents=tuple(batch.consents[customer].items()),
            time_zone=batch.time_zones[customer] if batch.time_zones else "",
            paused=self._paused,
            room=self._room[customer],
            is_known=self._is_known[customer],
            is_loggable=batch.is_loggable,
            chosen=decisions.chosen[customer],
            withheld=decisions.withheld[customer],
            distributions=self._distributions[customer],
            degraded_reasons=degraded_reasons,
            reselected=reselected,
            dry_run=False,
        )


def _cut(array: NDArray[Any]) -> list[bytes]:
    """Return the bytes of each customer; the first axis is the customers."""
    content, size = array.tobytes(), array.nbytes // max(len(array), 1)
    return [content[k * size : (k + 1) * size] for k in range(len(array))]


def _distributions(decisions: Decisions, slots: tuple[str, ...]) -> list[tuple[tuple[str, bytes, bytes], ...]]:
    """Return of each customer every slot's distribution without its zeros."""
    n, m = decisions.stages.shape
    if not slots or not m:
        return [tuple([(placement, b"", b"") for placement in slots])] * n
    flat = decisions.distributions.ravel()
    possible = flat.nonzero()[0]
    candidates, chances = (possible % m).astype("<i2").tobytes(), flat[possible].tobytes()
    # Slot by slot, and in each customer by customer.
    ends = possible.searchsorted(np.arange(0, flat.size + 1, m)).tolist()
    cuts = [(candidates[2 * start : 2 * end], chances[8 * start : 8 * end]) for start, end in pairwise(ends)]
    return [tuple([(placement, *cuts[k * n + i]) for k, placement in enumerate(slots)]) for i in range(n)]


@lru_cache(maxsize=32)
def _evidence(evidence: Evidence, catalogue: CompiledCatalogue, channel: str) -> tuple[tuple[int, float, float], ...]:
    """Return (candidate, positives, expected) of a channel's candidates whose action has any."""
    if not len(evidence.expected):
        return ()
    actions = catalogue.plans[channel].actions
    positives, expected = evidence.positives[actions], evidence.expected[actions]
    known = ((positives != 0) | (expected != 0)).nonzero()[0]
    return tuple(zip(known.tolist(), positives[known].tolist(), expected[known].tolist(), strict=True))

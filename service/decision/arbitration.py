"""What showing a candidate is worth. The one formula by which actions of all issues are compared.

priority = estimate x context_weight x value x lever x stage_weight - cost, in the catalogue's currency a showing.

With the propensity as estimate and all factors on this is the expected margin of showing the candidate: Pega's
arbitration P x C x V x L (Pega Academy, "Arbitration": propensity, context weighting, action value, business levers),
with a lever that follows the journey stage and the cost of the contact taken off. With the uplift as estimate it is the
margin that showing adds to what would have come anyway (Gutierrez and Gerardy 2016). A factor that the catalogue
switches off for the issue counts as 1, a cost as 0. Labels of different issues are different events: what makes them
comparable is the declared value of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.model import Action, Catalogue, Stage, Treatment

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_BELOW = np.int8(Stage.BELOW_THRESHOLD)


@dataclass(frozen=True)
class Terms:
    """The factors of a channel's candidates, each (m,).

    Attributes:
        worths: context_weight x value x lever, per unit of the estimate, in currency.
        plain_worths: context_weight x value.
        stage_weights: (n_stages + 1, m), the last row for who has no stage; None where every weight is 1.
        costs: Of the action and the treatment, in currency a showing.
        least_propensities: Below this a candidate is not placed.
    """

    worths: Floats
    plain_worths: Floats
    stage_weights: Floats | None
    costs: Floats
    least_propensities: Floats

    @classmethod
    def of(
        cls,
        catalogue: Catalogue,
        channel: str,
        actions: Sequence[Action],
        treatments: Sequence[Treatment],
        stages: Sequence[str],
    ) -> Terms:
        """Resolve the factors of candidates; `stages` are the journey stages in the order of their codes."""

        def factor(name: str, values: Sequence[float], neutral: float = 1.0) -> Floats:
            pairs = zip(actions, values, strict=True)
            return np.array([v if factors_on(catalogue, action.issue, name) else neutral for action, v in pairs])

        weights = [catalogue.context_weights.get((channel, action.issue), 1.0) for action in actions]
        plain = factor("context_weight", weights) * factor("value", [action.value for action in actions])
        by_stage = [
            factor("stage", [catalogue.stage_weights.get((action.issue, stage), 1.0) for action in actions])
            for stage in (*stages, "")
        ]
        costs = [action.cost + treatment.cost for action, treatment in zip(actions, treatments, strict=True)]
        return cls(
            worths=plain * factor("lever", [action.lever for action in actions]),
            plain_worths=plain,
            stage_weights=np.array(by_stage) if catalogue.stage_weights else None,
            costs=factor("cost", costs, 0.0),
            least_propensities=np.array([catalogue.thresholds.get(action.issue, 0.0) for action in actions]),
        )


def factors_on(catalogue: Catalogue, issue: str, factor: str) -> bool:
    """Say whether a factor of the priority is switched on for an issue."""
    return factor in catalogue.arbitration.get(issue, ())


def gains(terms: Terms, estimates: Floats, stage_codes: Floats, is_unlevered: Bools) -> Floats:
    """Return estimate x worth: the priority before the cost is taken off.

    Args:
        estimates: (n_customers, m) propensities or uplifts, NaN where not arbitrated.
        stage_codes: (n_customers,) codes of the journey stage, NaN for none.
        is_unlevered: (n_customers,) who is arbitrated without levers and stage weights.

    Returns:
        (n_customers, m), in the catalogue's currency.
    """
    worths: Floats = terms.worths
    if terms.stage_weights is not None:
        none = len(terms.stage_weights) - 1
        codes = np.where(np.isnan(stage_codes), none, stage_codes).astype(np.int64)
        worths = worths * terms.stage_weights.take(codes, axis=0)
    if np.count_nonzero(is_unlevered):
        worths = np.where(is_unlevered[:, None], terms.plain_worths, worths)
    gained: Floats = estimates * worths
    return gained


def drop_below_thresholds(
    terms: Terms,
    propensity: Floats,
    priority: Floats,
    least_priority: float,
    is_optional: Bools,
    stages: NDArray[np.int8],
) -> None:
    """Set `Stage.BELOW_THRESHOLD`, in place, where an open candidate is too unlikely or worth too little.

    What is mandatory, and so not optional, is placed before arbitration: no threshold holds it back.
    """
    # What is not open has no propensity and no priority, and nothing is below a threshold of NaN.
    is_low = propensity < terms.least_propensities
    is_low |= priority < least_priority
    is_low &= is_optional
    np.copyto(stages, _BELOW, where=is_low)

"""What showing a candidate is worth. The one formula by which actions of all issues are compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.decision.compiled import ChannelPlan
from service.decision.model import Stage

Floats = NDArray[np.float64]


def priorities(plan: ChannelPlan, propensity: Floats) -> Floats:
    """Compute priority = propensity x context_weight x value x lever - cost.

    The expected margin of showing the candidate, in the catalogue's currency, if all factors are on: the customary
    P x C x V x L of decisioning suites, with the cost of the contact taken off. A factor that the catalogue switches
    off for the issue counts as 1, a cost as 0. Labels of different issues are different events: what makes them
    comparable is the declared value of each.

    Args:
        propensity: (n_customers, m), NaN where not arbitrated.

    Returns:
        (n_customers, m), in the catalogue's currency, NaN where not arbitrated.
    """
    return propensity * plan.multipliers - plan.costs


def drop_below_thresholds(
    plan: ChannelPlan, propensity: Floats, priority: Floats, least_priority: float, stages: NDArray[np.int8]
) -> None:
    """Set `Stage.BELOW_THRESHOLD`, in place, where an open candidate is too unlikely or worth too little."""
    is_low = (propensity < plan.least_propensities) | (priority < least_priority)
    stages[is_low & (stages == Stage.NOT_SELECTED)] = Stage.BELOW_THRESHOLD

"""P(positive | shown) of the candidates that may be shown. Knows where a propensity comes from, not what it is worth.

MODEL: the calibrated model. RISK: the calibrated risk of silence x the catalogue's assumed response. PRIOR: the
catalogue's assumption alone, which is also what stands in wherever there is no model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.decision.compiled import ChannelPlan
from service.decision.model import CustomerBatch, Scorer

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def propensities(
    plan: ChannelPlan, batch: CustomerBatch, as_of: Floats, is_open: Bools, scorer: Scorer | None, now: float
) -> Floats:
    """Give every open candidate its propensity; an action with several treatments is scored once.

    Args:
        as_of: (n_columns + 1, n_customers).
        is_open: (n_customers, m) which candidates passed the filter.
        scorer: None where no model was ever loaded.

    Returns:
        (n_customers, m), NaN where not open.
    """
    n, k = is_open.shape[0], len(plan.distinct_actions)
    by_action = np.broadcast_to(plan.priors, (n, k)).copy()
    if scorer is not None and plan.needs_score.any():
        is_scored = _open_actions(plan, is_open) & plan.needs_score
        customers, slots = np.nonzero(is_scored)
        if len(customers):
            scores = scorer.score(batch, as_of, customers, plan.distinct_actions[slots], now)
            priors = plan.priors[slots]
            by_action[customers, slots] = np.where(
                np.isnan(scores), priors, np.where(plan.is_risk[slots], scores * priors, scores)
            )
    by_candidate = by_action if k == is_open.shape[1] else by_action[:, plan.action_slots]
    return np.where(is_open, by_candidate, np.nan)


def _open_actions(plan: ChannelPlan, is_open: Bools) -> Bools:
    """(n_customers, k) whether any treatment of the action is open."""
    if len(plan.action_starts) == is_open.shape[1]:
        return is_open
    return np.logical_or.reduceat(is_open, plan.action_starts, axis=1)

"""Which share of the responses to what was shown would not have come without showing, by issue.

The attributable fraction among the exposed: effect / P(positive | shown), from the same comparison as the effects of
single actions, and known long before they are. An action whose own effect cannot be told yet borrows it, so that its
propensity can stand beside effects (`service.decision.propensity.estimates`). Decides where it is known well enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import Interval
from training.uplift import EffectRows

Floats = NDArray[np.float64]


def attributable_shares(rows: EffectRows, robust: Floats, issue_of: Mapping[str, str]) -> dict[str, Interval]:
    """Return issue -> share with its 95 % interval by customer; issues in which nobody shown responded are left out.

    Args:
        rows: Of the comparison. robust: (n,) doubly robust scores of their effects, see `training.uplift`.
        issue_of: Action id -> issue; rows of other actions are left out.
    """
    issues = np.array([issue_of.get(str(action), "") for action in rows.actions], dtype=np.str_)
    chances = np.full(len(issues), rows.treated.mean()) if rows.propensities is None else rows.propensities
    shares = {}
    for issue in np.unique(issues[issues != ""]):
        own = issues == issue
        # Weighted as if all had been shown, which is what the mean of the robust scores is about.
        shown = np.where(rows.treated[own], rows.outcomes[own] / chances[own], 0.0)
        if shown.mean() <= 0:
            continue
        share = float(robust[own].mean() / shown.mean())
        _, customer = np.unique(rows.customers[own], return_inverse=True)
        apart = np.bincount(customer, robust[own] - share * shown)  # of a ratio, to first order
        half = 1.96 * float(np.sqrt((apart**2).sum())) / float(shown.sum())
        shares[str(issue)] = Interval(share, share - half, share + half)
    return shares


def document_of_shares(shares: Mapping[str, Interval]) -> dict[str, Any]:
    """Return what a bundle says of the shares: used, between 0 and 1, where the interval leaves out 0."""
    return {
        issue: {
            "share": {"value": found.value, "low": found.low, "high": found.high},
            "used": min(max(found.value, 0.0), 1.0),
            "is_used": bool(found.low > 0 or found.high < 0),
        }
        for issue, found in shares.items()
    }

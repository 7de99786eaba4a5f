"""P(positive | shown) of the candidates that may be shown. Knows where a propensity comes from, not what it is worth.

MODEL: the calibrated model. RISK: the calibrated risk of silence x the catalogue's assumed response. PRIOR: the
catalogue's assumption alone, which is also what stands in wherever there is no model. Where the catalogue arbitrates an
issue on uplift and the model knows a significant effect, that effect is told beside the propensity; what stands in
where none is known is the propensity, or the part of it that showing makes, as the catalogue says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.channel_plan import ChannelPlan
from service.decision.model import CustomerBatch, Scorer

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Models:
    """Who scores whom.

    Attributes:
        champion: None where no model was ever loaded.
        challenger: Scores the customers of the challenger's arm; None where none is loaded.
        is_challengers: (n_customers,) who is in that arm.
    """

    champion: Scorer | None
    challenger: Scorer | None
    is_challengers: Bools

    def parts(self, customers: Ints) -> list[tuple[Scorer, Bools | slice]]:
        """Return each scorer with the pairs that are its own."""
        if self.challenger is None or not self.is_challengers.any():
            return [] if self.champion is None else [(self.champion, slice(None))]
        is_its = self.is_challengers[customers]
        parts: list[tuple[Scorer, Bools | slice]] = [(self.challenger, is_its)]
        return parts if self.champion is None else [*parts, (self.champion, ~is_its)]

    def evidence(self, actions: Ints) -> Floats:
        """Return how many positives stand behind the propensities: (n_customers, len(actions)), or one row for all."""
        mine = np.zeros(len(actions)) if self.champion is None else self.champion.evidence.take(actions)
        if self.challenger is None:
            return mine[None]
        return np.where(self.is_challengers[:, None], self.challenger.evidence[actions], mine)

    def attributable(self, actions: Ints) -> Floats:
        """Return the shares of `Scorer.attributable`: (n_customers, len(actions)), or one row for all."""
        mine = np.ones(len(actions)) if self.champion is None else self.champion.attributable.take(actions)
        if self.challenger is None:
            return mine[None]
        return np.where(self.is_challengers[:, None], self.challenger.attributable[actions], mine)


def propensities(
    plan: ChannelPlan, batch: CustomerBatch, as_of: Floats, is_open: Bools, models: Models, now: float
) -> Floats:
    """Give every open candidate its propensity; an action with several treatments is scored once.

    Args:
        as_of: (n_columns + 1, n_customers).
        is_open: (n_customers, m) which candidates passed the filter.

    Returns:
        (n_customers, m), NaN where not open.
    """
    by_action = np.empty((is_open.shape[0], len(plan.priors)))
    by_action[:] = plan.priors
    customers, slots = _pairs(plan, is_open, plan.needs_score)
    for scorer, which in models.parts(customers) if len(customers) else ():
        rows, positions = customers[which], slots[which]
        scores = scorer.score(batch, as_of, rows, plan.distinct_actions[positions], now, plan.channel)
        priors = plan.priors[positions]
        by_action[rows, positions] = np.where(
            np.isnan(scores), priors, np.where(plan.is_risk[positions], scores * priors, scores)
        )
    return np.where(is_open, _by_candidate(plan, by_action), np.nan)


def uplifts(
    plan: ChannelPlan, batch: CustomerBatch, as_of: Floats, is_open: Bools, models: Models, now: float
) -> Floats:
    """Give the open candidates of issues that are arbitrated on uplift their effect, where a significant one is known.

    Returns:
        (n_customers, m), NaN where the propensity stands; of size 0 where no issue is arbitrated on uplift.
    """
    if not np.count_nonzero(plan.uses_uplift):
        return np.empty((0, 0))
    by_action = np.full((is_open.shape[0], len(plan.priors)), np.nan)
    customers, slots = _pairs(plan, is_open, plan.uses_uplift)
    for scorer, which in models.parts(customers) if len(customers) else ():
        rows, positions = customers[which], slots[which]
        effects = scorer.uplift(batch, as_of, rows, plan.distinct_actions[positions], now, plan.channel)
        if effects is not None:
            by_action[rows, positions] = effects
    return np.where(is_open, _by_candidate(plan, by_action), np.nan)


def estimates(plan: ChannelPlan, propensity: Floats, uplift: Floats, models: Models) -> Floats:
    """Return what priorities are made of: the effect where it is known, else what its issue falls back to.

    An effect beside a propensity is compared with responses that would have come anyway, so the least known action of
    an issue would win. An issue on `attributable` therefore falls back to propensity x the share of its responses that
    showing makes: both are then gains. An issue on `uplift` falls back to the propensity itself.

    Args:
        propensity: (n_customers, m). uplift: As `uplifts` gave it.

    Returns:
        (n_customers, m), NaN where not open.
    """
    if not uplift.size:
        return propensity
    shares = np.where(plan.is_attributable, models.attributable(plan.actions), 1.0)
    return np.where(np.isnan(uplift), propensity * shares, uplift)


def _pairs(plan: ChannelPlan, is_open: Bools, is_wanted: Bools) -> tuple[Ints, Ints]:
    """Return customer and position in `distinct_actions` of every wanted action that any open treatment has."""
    if not np.count_nonzero(is_wanted):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    if len(plan.action_starts) != is_open.shape[1]:
        is_open = np.logical_or.reduceat(is_open, plan.action_starts, axis=1)
    customers, slots = (is_open & is_wanted).nonzero()
    return customers, slots


def _by_candidate(plan: ChannelPlan, by_action: Floats) -> Floats:
    return by_action if by_action.shape[1] == len(plan.candidates) else by_action[:, plan.action_slots]

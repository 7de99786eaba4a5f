"""The steps of a decision in order, for one customer or many: gathered batch in, decisions out. Pure, synchronous."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.decision.arbitration import drop_below_thresholds, priorities
from service.decision.compiled import ChannelPlan, CompiledCatalogue, compile_catalogue
from service.decision.eligibility import admit
from service.decision.experiment import HOLDOUT, assign_arms
from service.decision.expression import CHANNEL, KNOWN
from service.decision.model import Choice, CustomerBatch, Decisions, Request, Scorer, Stage
from service.decision.propensity import propensities
from service.decision.selection import select

__all__ = ["CompiledCatalogue", "compile_catalogue", "decide", "select_again"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]


def decide(
    batch: CustomerBatch,
    request: Request,
    catalogue: CompiledCatalogue,
    scorer: Scorer | None,
    now: float,
    keys: Keys,
    room: Ints | None = None,
) -> Decisions:
    """Decide for every customer of the batch; a batch of n gives bit for bit what n batches of one give.

    Args:
        batch: What was gathered.
        request: What is asked; its channel must be the catalogue's, its context declared there.
        scorer: None where no model was ever loaded: propensities are then the catalogue's priors.
        now: Decision time, Unix seconds UTC.
        keys: (n_customers,) uint64, one random key a customer; every draw is derived from it.
        room: (n_customers, n_counters) what the contact policy leaves, where it was counted before: contacts are then
            not read.
    """
    plan = catalogue.plans[request.channel]
    as_of = catalogue.columns.as_of(batch.facts, now)
    extras = _extras(catalogue, batch, request)
    passes = catalogue.circuit.evaluate(as_of, extras)
    if room is None:
        room = catalogue.caps.room(batch.contacts, len(batch.customer_ids), request.channel, now)
    stages, reasons = admit(catalogue, plan, batch, request, passes, room, now)
    propensity = propensities(plan, batch, as_of, stages == Stage.NOT_SELECTED, scorer, now)
    priority = priorities(plan, propensity)
    drop_below_thresholds(plan, propensity, priority, catalogue.catalogue.least_priority, stages)
    arms, arm_probabilities = assign_arms(catalogue.catalogue.experiment, batch.customer_ids)
    undecided = Decisions(
        now, request, plan.candidates, plan.actions, stages, reasons, propensity, priority,
        (), (), arms, arm_probabilities, as_of, extras, room,
    )  # fmt: skip
    return _place(undecided, catalogue, plan, keys)


def select_again(
    decisions: Decisions, catalogue: CompiledCatalogue, i: int, refused_actions: Collection[int], keys: Keys
) -> Decisions:
    """Run selection again for customer `i`, without actions whose reservation was refused.

    Args:
        decisions: As decided.
        refused_actions: Positions in `Catalogue.actions`.
        keys: The same array as `decide` got.

    Returns:
        The decisions with customer `i` replaced; the refused candidates are at `Stage.RESERVATION_REFUSED`.
    """
    plan = catalogue.plans[decisions.request.channel]
    stages = decisions.stages[i : i + 1].copy()
    arbitrated = (Stage.RANKED, Stage.NOT_SELECTED, Stage.HELD_OUT)
    stages[np.isin(stages, arbitrated)] = Stage.NOT_SELECTED
    is_refused = np.isin(plan.actions, list(refused_actions))[None] & (stages == Stage.NOT_SELECTED)
    stages[is_refused] = Stage.RESERVATION_REFUSED
    again = _place(_of_customer(decisions, i, stages), catalogue, plan, keys[i : i + 1])
    all_stages, all_distributions = decisions.stages.copy(), decisions.distributions.copy()
    all_stages[i], all_distributions[:, i] = again.stages[0], again.distributions[:, 0]
    return replace(
        decisions,
        stages=all_stages,
        distributions=all_distributions,
        chosen=(*decisions.chosen[:i], again.chosen[0], *decisions.chosen[i + 1 :]),
        withheld=(*decisions.withheld[:i], again.withheld[0], *decisions.withheld[i + 1 :]),
    )


def _of_customer(decisions: Decisions, i: int, stages: NDArray[np.int8]) -> Decisions:
    return replace(
        decisions,
        stages=stages,
        propensities=decisions.propensities[i : i + 1],
        priorities=decisions.priorities[i : i + 1],
        room=decisions.room[i : i + 1],
        arms=decisions.arms[i : i + 1],
    )


def _extras(catalogue: CompiledCatalogue, batch: CustomerBatch, request: Request) -> Floats:
    """(n_extras, n_customers) pseudo columns and context; what the caller did not send is NULL."""
    extras = np.full((len(catalogue.extras), len(batch.customer_ids)), np.nan)
    for row, name in enumerate(catalogue.extras):
        if name == CHANNEL:
            extras[row] = catalogue.catalogue.channels.index(request.channel)
        elif name == KNOWN:
            extras[row] = batch.is_known
        elif name in request.context:
            extras[row] = request.context[name]
    return extras


def _place(decisions: Decisions, catalogue: CompiledCatalogue, plan: ChannelPlan, keys: Keys) -> Decisions:
    """Select for all; then, for the hold-out, withhold the marketing and select again among the rest."""
    stages, request = decisions.stages, decisions.request
    propensity, priority, room = decisions.propensities, decisions.priorities, decisions.room
    is_open = stages == Stage.NOT_SELECTED
    placed = select(catalogue, plan, request, is_open, propensity, priority, room, decisions.arms, keys)
    chosen = placed.choices()
    withheld: list[tuple[Choice, ...]] = [()] * len(chosen)
    placed.mark(stages, Stage.RANKED)
    held = np.array([i for i, arm in enumerate(decisions.arms) if arm == HOLDOUT], dtype=np.int64)
    if len(held):
        arms = (HOLDOUT,) * len(held)
        may_show = is_open[held] & ~plan.is_marketing
        shown = select(
            catalogue, plan, request, may_show, propensity[held], priority[held], room[held], arms, keys[held]
        )
        of_held = stages[held]
        of_held[of_held == Stage.RANKED] = Stage.NOT_SELECTED
        stages[held] = of_held
        for i, instead in zip(held.tolist(), shown.choices(), strict=True):
            withheld[i] = tuple(choice for choice in chosen[i] if plan.is_marketing[choice.candidate])
            stages[i, [choice.candidate for choice in withheld[i]]] = Stage.HELD_OUT
            chosen[i] = instead
        shown.mark(stages, Stage.RANKED, held)
    return replace(decisions, chosen=tuple(chosen), withheld=tuple(withheld), distributions=placed.distributions)

"""The steps of a decision in order, for one customer or many: gathered batch in, decisions out. Pure, synchronous."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.decision.arbitration import drop_below_thresholds, gains
from service.decision.channel_plan import ChannelPlan
from service.decision.compiled import CompiledCatalogue, compile_catalogue
from service.decision.eligibility import admit
from service.decision.evidence import Standing
from service.decision.experiment import CHALLENGER, HOLDOUT, NO_LEVERS, held_issues
from service.decision.model import Choice, CustomerBatch, Decisions, Evidence, LocalTimes, Request, Scorer, Stage
from service.decision.propensity import Models, estimates, propensities, uplifts
from service.decision.ramp import within_reach
from service.decision.selection import select
from service.decision.switches import without_paused

__all__ = ["CompiledCatalogue", "compile_catalogue", "decide", "select_again"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Stages = NDArray[np.int8]
Keys = NDArray[np.uint64]
_OPEN = int(Stage.NOT_SELECTED)


def decide(
    batch: CustomerBatch,
    request: Request,
    catalogue: CompiledCatalogue,
    scorer: Scorer | None,
    now: float,
    keys: Keys,
    room: Ints | None = None,
    evidence: Evidence | None = None,
    challenger: Scorer | None = None,
    forced: Ints | None = None,
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
        evidence: What came in since the model was made, as of `now`; None for nothing.
        challenger: Scores the customers of the challenger's arm; None where none is loaded.
        forced: (n_slots, n_customers) what took the slots, to ask with what probability it would have.
    """
    plan, terms = catalogue.plans[request.channel], catalogue.catalogue
    request = without_paused(plan, request, batch.paused)
    as_of = catalogue.columns.as_of(batch.facts, now)
    extras = catalogue.extras.fill(batch, request, as_of, now)
    passes = catalogue.circuit.evaluate(as_of, extras)
    if room is None:
        local = batch.local or LocalTimes.utc(now, len(batch.customer_ids))
        room = catalogue.caps.room(batch.contacts, request.channel, now, local)
    stages, reasons = admit(catalogue, plan, batch, request, passes, room, now)
    assigned = catalogue.layers[challenger is not None].assign(batch.customer_ids)
    models = Models(scorer, challenger, _in_arm(assigned.arms, CHALLENGER))
    is_open = stages == _OPEN
    propensity = propensities(plan, batch, as_of, is_open, models, now)
    uplift = uplifts(plan, batch, as_of, is_open, models, now)
    estimate = estimates(plan, propensity, uplift, models)
    stage_codes = as_of[catalogue.columns.index["stage"]]
    priority = gains(plan.terms, estimate, stage_codes, _in_arm(assigned.arms, NO_LEVERS)) - plan.terms.costs
    drop_below_thresholds(plan.terms, propensity, priority, terms.least_priority, plan.is_optional, stages)
    evidence = evidence or Evidence.none(len(terms.actions))
    standing = Standing.of(models.evidence(plan.actions), terms.exploration.prior_positives, evidence, plan.actions)
    _apply_ramp(catalogue, plan, batch, standing, stages)
    undecided = Decisions(
        now, request, plan.candidates, plan.actions, stages, reasons, propensity, priority,
        (), (), assigned.arms, assigned.probabilities, as_of, extras, room,
        uplifts=uplift, estimates=estimate if uplift.size else uplift,
        evidence=evidence, strengths=standing.strengths, shifts=standing.shifts, layers=assigned.layers,
    )  # fmt: skip
    return _place(undecided, catalogue, plan, keys, forced)


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
    again = _place(replace(decisions.take([i]), stages=stages), catalogue, plan, keys[i : i + 1])
    all_stages, all_distributions = decisions.stages.copy(), decisions.distributions.copy()
    all_stages[i], all_distributions[:, i] = again.stages[0], again.distributions[:, 0]
    return replace(
        decisions,
        stages=all_stages,
        distributions=all_distributions,
        chosen=(*decisions.chosen[:i], again.chosen[0], *decisions.chosen[i + 1 :]),
        withheld=(*decisions.withheld[:i], again.withheld[0], *decisions.withheld[i + 1 :]),
    )


def _in_arm(arms: Sequence[str], arm: str) -> Bools:
    return np.array([of == arm for of in arms], dtype=np.bool_)


def _apply_ramp(
    catalogue: CompiledCatalogue, plan: ChannelPlan, batch: CustomerBatch, standing: Standing, stages: Stages
) -> None:
    """Set `Stage.OUT_OF_REACH`, in place, where an action is new and the customer not among those who may see it."""
    ramp, salt = catalogue.catalogue.exploration.ramp, catalogue.catalogue.experiment.salt
    if ramp is not None and plan.has_ramped:
        is_reached = within_reach(ramp, salt, batch.customer_ids, plan.action_keys, plan.is_ramped, standing.positives)
        stages[~is_reached & (stages == Stage.NOT_SELECTED)] = Stage.OUT_OF_REACH


def _place(
    decisions: Decisions, catalogue: CompiledCatalogue, plan: ChannelPlan, keys: Keys, forced: Ints | None = None
) -> Decisions:
    """Select for all; then, for who is held out, withhold what the hold-out is about and select among the rest.

    Fills in what was chosen, and the stages.
    """
    stages = decisions.stages
    is_open = stages == _OPEN
    placed = select(catalogue, plan, decisions, is_open, keys, forced)
    chosen = placed.choices()
    withheld: list[tuple[Choice, ...]] = [()] * len(chosen)
    placed.mark(stages, Stage.RANKED)
    is_held = {i: mask for i in range(len(chosen)) if (mask := _held(decisions, plan, i)) is not None}
    if is_held:
        held = np.array(list(is_held), dtype=np.int64)
        may_show = is_open[held] & ~np.array(list(is_held.values()))
        shown = select(catalogue, plan, decisions.take(held), may_show, keys[held])
        of_held = stages[held]
        of_held[of_held == Stage.RANKED] = Stage.NOT_SELECTED
        stages[held] = of_held
        for k, instead in enumerate(shown.choices()):
            i = int(held[k])
            withheld[i] = tuple(choice for choice in chosen[i] if is_held[i][choice.candidate])
            stages[i, [choice.candidate for choice in withheld[i]]] = Stage.HELD_OUT
            chosen[i] = instead
            if decisions.arms[i] != HOLDOUT:
                placed.distributions[:, i] = shown.distributions[:, k]
        shown.mark(stages, Stage.RANKED, held)
    decisions.chosen, decisions.withheld, decisions.distributions = tuple(chosen), tuple(withheld), placed.distributions
    return decisions


def _held(decisions: Decisions, plan: ChannelPlan, i: int) -> Bools | None:
    """(m,) which candidates a customer is not shown for the sake of a hold-out, None where there is none."""
    if decisions.arms[i] == HOLDOUT:
        return plan.is_marketing
    issues = held_issues(decisions.layers[i])
    return plan.is_marketing & np.isin(plan.issues, issues) if issues else None

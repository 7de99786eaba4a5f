"""Which candidates may be shown to whom, and if not, why: the first reason in order. Knows no score and no value.

Order: switched off, out of dates, issue not asked, no consent, engagement rules (eligibility, applicability,
suitability), contact policy, loggability. What a rule cannot decide for lack of data excludes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from service.decision.channel_plan import ChannelPlan
from service.decision.compiled import CompiledCatalogue
from service.decision.consent import GRANTED
from service.decision.model import CustomerBatch, Request, Stage
from service.decision.spending import has_room
from service.decision.switches import is_paused

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Stages = NDArray[np.int8]
Reasons = NDArray[np.int32]
_OPEN = int(Stage.NOT_SELECTED)


def admit(
    catalogue: CompiledCatalogue,
    plan: ChannelPlan,
    batch: CustomerBatch,
    request: Request,
    passes: Bools,
    room: Ints,
    now: float,
) -> tuple[Stages, Reasons]:
    """Filter the candidates of a channel.

    Args:
        passes: (n_rules, n_customers) which rules are TRUE.
        room: (n_customers, n_counters) what the contact policy leaves.
        now: Decision time, Unix seconds.

    Returns:
        (n_customers, m) the stage at which each candidate ended, `Stage.NOT_SELECTED` where it goes on; and
        (n_customers, m) the position of the rule or contact policy that ended it, else -1.
    """
    shape = (len(batch.customer_ids), len(plan.candidates))
    stages, reasons = np.empty(shape, dtype=np.int8), np.empty(shape, dtype=np.int32)
    stages.fill(_OPEN)
    reasons.fill(-1)
    # Written from the last reason to the first, so that the first stands.
    if not batch.is_loggable:
        stages[:, ~plan.may_be_unlogged] = Stage.MUST_BE_LOGGED
    _apply_contact_policy(plan, request, room, stages, reasons)
    _apply_placed_rules(catalogue, plan, request, passes, stages, reasons)
    _apply_rules(catalogue, plan, passes, stages, reasons)
    _apply_consent(plan, batch, stages, reasons)
    _apply_static(plan, batch, request, now, stages, reasons)
    return stages, reasons


def _apply_contact_policy(plan: ChannelPlan, request: Request, room: Ints, stages: Stages, reasons: Reasons) -> None:
    if not room.size or room.min() > 0:
        return
    if plan.placed_counters:
        _apply_full_placements(plan, request, room, stages, reasons)
    capped = ~has_room(room, plan.counters)
    first = capped.argmax(axis=2)
    is_out = capped.any(axis=2)
    stages[is_out] = Stage.CONTACT_POLICY
    reasons[is_out] = first[is_out]


def _apply_full_placements(plan: ChannelPlan, request: Request, room: Ints, stages: Stages, reasons: Reasons) -> None:
    """Exclude what fits only placements whose own caps are used up; the reason is the first of these caps."""
    asked = {name for name, _ in request.placements or plan.placements if name in plan.fits}
    fits_free = np.zeros(stages.shape, dtype=np.bool_)
    full = np.zeros((*stages.shape, plan.counters.shape[1]), dtype=np.bool_)
    for placement in sorted(asked):
        fits, counters = plan.fits[placement], plan.placed_counters.get(placement)
        if counters is None:
            fits_free |= fits
            continue
        capped = ~has_room(room, counters) & fits[:, None]
        fits_free |= fits & ~capped.any(axis=2)
        full |= capped
    is_out = full.any(axis=2) & ~fits_free
    stages[is_out] = Stage.CONTACT_POLICY
    reasons[is_out] = full.argmax(axis=2)[is_out]


def _apply_rules(
    catalogue: CompiledCatalogue, plan: ChannelPlan, passes: Bools, stages: Stages, reasons: Reasons
) -> None:
    if plan.rules.shape[1]:
        failing = _fails(passes).take(plan.rules, axis=1)
        is_out = np.logical_or.reduce(failing, axis=2)
        _exclude_broken(catalogue, plan.rules, failing, is_out, stages, reasons)


def _apply_placed_rules(
    catalogue: CompiledCatalogue, plan: ChannelPlan, request: Request, passes: Bools, stages: Stages, reasons: Reasons
) -> None:
    """Exclude the candidates that rules keep out of every placement that is asked for and that they fit."""
    asked = [name for name, _ in request.placements or plan.placements]
    if not any(name in plan.placed_rules for name in asked):
        return
    fails = _fails(passes)
    is_out = np.any([plan.fits[name] for name in asked], axis=0) & np.ones(stages.shape, dtype=np.bool_)
    for name in asked:
        if name in plan.placed_rules:
            is_out &= ~plan.fits[name] | fails[:, plan.placed_rules[name]].any(axis=2)
        else:
            is_out &= ~plan.fits[name]
    for name in reversed([name for name in asked if name in plan.placed_rules]):
        rules = plan.placed_rules[name]
        _exclude_broken(catalogue, rules, fails[:, rules], is_out & plan.fits[name], stages, reasons)


def closed_placements(
    catalogue: CompiledCatalogue, plan: ChannelPlan, as_of: Floats, extras: Floats
) -> Mapping[str, Bools]:
    """Return for each placement with rules of its own (n_customers, m) where these keep the candidate out of it.

    Args:
        as_of, extras: What the rules read, as of `Decisions`.
    """
    if not plan.placed_rules:
        return {}
    fails = _fails(catalogue.circuit.evaluate(as_of, extras))
    return {name: np.asarray(fails[:, rules].any(axis=2)) for name, rules in plan.placed_rules.items()}


def _fails(passes: Bools) -> Bools:
    """Return (n_customers, n_rules + 1) which rules are not TRUE; the last stands for one that always passes."""
    n_rules, n_customers = passes.shape
    fails = np.zeros((n_customers, n_rules + 1), dtype=np.bool_)
    np.logical_not(passes.T, out=fails[:, :-1])
    return fails


def _exclude_broken(
    catalogue: CompiledCatalogue, rules: Ints, failing: Bools, is_out: Bools, stages: Stages, reasons: Reasons
) -> None:
    """End candidates at the stage of the first rule that fails; `rules` (m, r), `failing` (n_customers, m, r)."""
    m, width = rules.shape
    broken = rules.ravel().take(failing.argmax(axis=2) + np.arange(0, m * width, width))
    np.copyto(stages, catalogue.rule_stages.take(broken), where=is_out)
    np.copyto(reasons, broken, where=is_out, casting="same_kind")


def _apply_consent(plan: ChannelPlan, batch: CustomerBatch, stages: Stages, reasons: Reasons) -> None:
    for purpose, needs_it in plan.purposes:
        refused = [said.get(purpose) != GRANTED for said in batch.consents]
        if any(refused):
            is_out = np.array(refused, dtype=np.bool_)[:, None] & needs_it
            stages[is_out] = Stage.NO_CONSENT
            reasons[is_out] = -1


def _apply_static(
    plan: ChannelPlan, batch: CustomerBatch, request: Request, now: float, stages: Stages, reasons: Reasons
) -> None:
    """Apply what is the same for every customer."""
    if request.issues:
        _exclude(~np.isin(plan.issues, request.issues), Stage.ISSUE_NOT_ASKED, stages, reasons)
    _exclude((now < plan.starts_at) | (now >= plan.ends_at), Stage.OUT_OF_DATES, stages, reasons)
    if batch.paused:
        _exclude(is_paused(plan, batch.paused), Stage.SWITCHED_OFF, stages, reasons)


def _exclude(is_out: Bools, stage: Stage, stages: Stages, reasons: Reasons) -> None:
    if np.count_nonzero(is_out):
        stages[:, is_out] = stage
        reasons[:, is_out] = -1

"""The candidates of one channel, prepared for deciding. Knows the catalogue; no customer and no request's content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.arbitration import Terms
from service.decision.contact_policy import CapTable
from service.decision.model import ATTRIBUTABLE, ON_EFFECT, Action, Catalogue, Rule, Scoring, Treatment
from service.decision.quotas import QuotaTable
from service.decision.ramp import keys_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ChannelPlan:
    """The candidates of one channel: m treatments of k actions, in the order of their ids.

    Attributes:
        candidates: (m,) positions in `Catalogue.treatments`. treatment_ids: (m,) their ids.
        actions: (m,) positions in `Catalogue.actions`.
        distinct_actions: (k,) positions in `Catalogue.actions`.
        action_starts: (k,) first candidate of each distinct action.
        action_slots: (m,) position in `distinct_actions`.
        slots_of_picks: (m + 1,) the same, and -1 at the end, where a slot that stayed empty points with its -1.
        rules: (m, r) positions in `Catalogue.rules` that bind the candidate, in order of stage, then id; padded with
            the number of rules, which stands for a rule that always passes.
        placed_rules: placement -> the same for the rules that bind in it alone; only where there are any.
        counters: (m, n_policies) see `CapTable.counters_of`. placed_counters: placement -> the same for caps that hold
            there alone, where there are any.
        fits: placement -> (m,) whether the candidate fits it.
        terms: The factors of the priority.
        quotas: How many of a kind an answer may and should have.
        needs_score, is_risk, uses_uplift: (k,). priors: (k,). is_attributable: (m,) by the estimate of the issue.
        is_mandatory, is_optional, is_ramped: (m,). has_mandatory, has_ramped: Whether any is.
        action_keys: (m,) uint64, see `ramp.keys_of`.
        is_marketing, may_be_unlogged: (m,). purposes: (purpose, (m,) which candidates need consent for it).
        starts_at, ends_at: (m,) with infinities for open.
        issues, groups, action_ids: (m,) texts.
    """

    channel: str
    candidates: Ints
    treatment_ids: tuple[str, ...]
    actions: Ints
    distinct_actions: Ints
    action_starts: Ints
    action_slots: Ints
    slots_of_picks: Ints
    rules: Ints
    placed_rules: Mapping[str, Ints]
    counters: Ints
    placed_counters: Mapping[str, Ints]
    placements: tuple[tuple[str, int], ...]
    fits: Mapping[str, Bools]
    terms: Terms
    quotas: QuotaTable
    needs_score: Bools
    is_risk: Bools
    uses_uplift: Bools
    is_attributable: Bools
    priors: Floats
    is_mandatory: Bools
    is_optional: Bools
    has_mandatory: bool
    is_ramped: Bools
    has_ramped: bool
    action_keys: NDArray[np.uint64]
    is_marketing: Bools
    purposes: tuple[tuple[str, Bools], ...]
    may_be_unlogged: Bools
    starts_at: Floats
    ends_at: Floats
    issues: NDArray[np.str_]
    groups: NDArray[np.str_]
    action_ids: NDArray[np.str_]


def plan_of(catalogue: Catalogue, channel: str, caps: CapTable, stages: Sequence[str]) -> ChannelPlan:
    """Prepare a channel; `stages` are the journey stages in the order of their codes."""
    pairs = sorted(
        (treatment.action_id, treatment.id, position)
        for position, treatment in enumerate(catalogue.treatments)
        if treatment.channel == channel
    )
    treatments = [catalogue.treatments[position] for _, _, position in pairs]
    positions = [catalogue.index[treatment.action_id] for treatment in treatments]
    actions = [catalogue.actions[position] for position in positions]
    starts = [i for i in range(len(pairs)) if i == 0 or pairs[i][0] != pairs[i - 1][0]]
    distinct = [actions[i] for i in starts]
    slots = np.searchsorted(np.array(starts), np.arange(len(pairs)), side="right") - 1
    placements = [p for p in catalogue.placements if p.channel == channel]
    fits = {p.id: np.array([p.id in t.placements for t in treatments], dtype=np.bool_) for p in placements}
    return ChannelPlan(
        channel=channel,
        candidates=np.array([position for _, _, position in pairs], dtype=np.int64),
        treatment_ids=tuple(treatment.id for treatment in treatments),
        actions=np.array(positions, dtype=np.int64),
        distinct_actions=np.array([positions[i] for i in starts], dtype=np.int64),
        action_starts=np.array(starts, dtype=np.int64),
        action_slots=slots,
        slots_of_picks=np.append(slots, -1),
        rules=_binding_rules(catalogue.rules, actions, treatments, ""),
        placed_rules={
            p.id: _binding_rules(catalogue.rules, actions, treatments, p.id)
            for p in placements
            if any(p.id in rule.placements for rule in catalogue.rules)
        },
        counters=_counters(caps, actions, treatments),
        placed_counters={
            p.id: _counters(caps, actions, treatments, p.id) for p in placements if p.id in caps.placements_named
        },
        placements=tuple((p.id, p.slots) for p in placements),
        fits=fits,
        terms=Terms.of(catalogue, channel, actions, treatments, stages),
        quotas=QuotaTable.of(catalogue.quotas, actions, fits),
        needs_score=np.array([action.scoring is not Scoring.PRIOR for action in distinct], dtype=np.bool_),
        is_risk=np.array([action.scoring is Scoring.RISK for action in distinct], dtype=np.bool_),
        uses_uplift=np.array([catalogue.estimates.get(a.issue) in ON_EFFECT for a in distinct], dtype=np.bool_),
        is_attributable=np.array([catalogue.estimates.get(a.issue) == ATTRIBUTABLE for a in actions], dtype=np.bool_),
        priors=np.array([action.prior for action in distinct], dtype=np.float64),
        is_mandatory=np.array([action.is_mandatory for action in actions], dtype=np.bool_),
        is_optional=np.array([not action.is_mandatory for action in actions], dtype=np.bool_),
        has_mandatory=any(action.is_mandatory for action in actions),
        is_ramped=np.array([_is_ramped(catalogue, channel, action) for action in actions], dtype=np.bool_),
        has_ramped=any(_is_ramped(catalogue, channel, action) for action in actions),
        action_keys=keys_of([action.id for action in actions]),
        is_marketing=np.array([action.is_marketing for action in actions], dtype=np.bool_),
        purposes=tuple(
            (purpose, np.array([a.is_marketing and a.purpose == purpose for a in actions], dtype=np.bool_))
            for purpose in sorted({action.purpose for action in actions if action.is_marketing})
        ),
        may_be_unlogged=np.array([action.may_be_unlogged for action in actions], dtype=np.bool_),
        starts_at=np.fmax(_moments(actions, "starts_at", -np.inf), _moments(treatments, "starts_at", -np.inf)),
        ends_at=np.fmin(_moments(actions, "ends_at", np.inf), _moments(treatments, "ends_at", np.inf)),
        issues=np.array([action.issue for action in actions], dtype=np.str_),
        groups=np.array([action.group for action in actions], dtype=np.str_),
        action_ids=np.array([action.id for action in actions], dtype=np.str_),
    )


def _counters(caps: CapTable, actions: Sequence[Action], treatments: Sequence[Treatment], placement: str = "") -> Ints:
    rows = [caps.counters_of(a, t, placement) for a, t in zip(actions, treatments, strict=True)]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(caps.policies))


def _moments(offers: Sequence[Action] | Sequence[Treatment], name: str, if_open: float) -> Floats:
    return np.nan_to_num(np.array([getattr(offer, name) for offer in offers], dtype=np.float64), nan=if_open)


def _is_ramped(catalogue: Catalogue, channel: str, action: Action) -> bool:
    ramp = catalogue.exploration.ramp
    if ramp is None or not action.is_ramped or action.is_mandatory:
        return False
    return not ramp.channels or channel in ramp.channels


def _binding_rules(
    rules: Sequence[Rule], actions: Sequence[Action], treatments: Sequence[Treatment], placement: str
) -> Ints:
    """Return the rules that bind each candidate in one placement alone, or for "" wherever it is shown."""
    in_scope: dict[tuple[str, str], list[int]] = {}
    for r, rule in enumerate(rules):
        if placement in (rule.placements or ("",)):
            in_scope.setdefault((rule.scope, rule.scope_id), []).append(r)
    binding = [
        sorted(
            (r for scope in (*scopes_of(action), ("treatment", treatment.id)) for r in in_scope.get(scope, ())),
            key=lambda r: (rules[r].stage, rules[r].id),
        )
        for action, treatment in zip(actions, treatments, strict=True)
    ]
    width = max(map(len, binding), default=0)
    padded = [row + [len(rules)] * (width - len(row)) for row in binding]
    return np.array(padded, dtype=np.int64).reshape(len(binding), width)


def scopes_of(action: Action) -> tuple[tuple[str, str], ...]:
    """Return the scopes (kind, id) whose rules bind an action."""
    return (("all", ""), ("issue", action.issue), ("group", action.group), ("action", action.id))

"""Why each candidate ended where it did, in words and values a person can check. Reads decisions; decides nothing."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from features.layout import SECONDS_PER_DAY, View
from features.matrix import FUTURE_SECONDS
from features.words import views_of
from service.decision.arbitration import factors_on
from service.decision.compiled import CompiledCatalogue
from service.decision.contact_scope import Policy
from service.decision.experiment import NO_LEVERS
from service.decision.expression import CHANNEL, KNOWN, PERSONA, columns_read
from service.decision.model import Action, Cap, Decisions, Floats, QuietHours, Rule, Stage

ENGAGEMENT = (Stage.ELIGIBILITY, Stage.APPLICABILITY, Stage.SUITABILITY)
WORDS = {
    Stage.RANKED: "shown",
    Stage.SWITCHED_OFF: "paused by a switch",
    Stage.OUT_OF_DATES: "outside its dates of validity",
    Stage.ISSUE_NOT_ASKED: "the request asks for other issues",
    Stage.NO_CONSENT: "no consent to marketing on this channel",
    Stage.MUST_BE_LOGGED: "the decision log is unavailable and the action must be logged",
    Stage.BELOW_THRESHOLD: "too unlikely, or worth less than it costs",
    Stage.NOT_SELECTED: "others were placed",
    Stage.HELD_OUT: "would have been shown; the customer is in the hold-out",
    Stage.RESERVATION_REFUSED: "another channel used up the cap a moment ago",
    Stage.OUT_OF_REACH: "new: shown to few customers until more is known of it",
}
"""What to say of a stage that names no rule or cap."""

Value = float | str | bool | None
Ages = dict[str, dict[str, float | bool | None]]
"""View -> how old what it holds was (None: never written), and whether that was too old to count."""


def trace(
    decisions: Decisions, catalogue: CompiledCatalogue, i: int, view_times: Floats | None = None
) -> list[dict[str, Any]]:
    """Account for every candidate of customer `i`, each once: the chosen in order, then the others by priority.

    Args:
        view_times: (n_views,) when the customer's views were written, Unix seconds; None to say nothing of ages.

    Returns:
        One JSON-able dict a candidate: `action_id`, `treatment_id`, `issue`, `group`, `stage`, `reason`; `rule` or
        `cap` where one excluded it, of a rule the `facts` it read and the age of their `views`; `factors` where it was
        arbitrated; `rank`, `placement` and `selection_probability` where it is shown or held out.
    """
    places: dict[int, dict[str, Any]] = {}
    for choices in (decisions.withheld[i], decisions.chosen[i]):
        for rank, choice in enumerate(choices, start=1):
            places[choice.candidate] = {
                "rank": rank,
                "placement": choice.placement,
                "selection_probability": choice.selection_probability,
            }
    ages = {} if view_times is None else _ages(decisions, catalogue, view_times)
    entries = [
        {**_entry(decisions, catalogue, i, candidate, ages), **places.get(candidate, {})}
        for candidate in range(len(decisions.candidates))
    ]
    return sorted(entries, key=_order)


def _order(entry: dict[str, Any]) -> tuple[bool, int, float, str]:
    is_shown = entry["stage"] == Stage.RANKED.name.lower()
    priority = entry.get("factors", {}).get("priority", -math.inf)
    return not is_shown, entry.get("rank", 0) if is_shown else 0, -priority, entry["treatment_id"]


def _ages(decisions: Decisions, catalogue: CompiledCatalogue, view_times: Floats) -> Ages:
    ages: Ages = {}
    for view, written in zip(catalogue.columns.layout.views, view_times.tolist(), strict=True):
        days = (decisions.now - written) / SECONDS_PER_DAY  # NaN where it was never written, and no NaN is greater
        ages[view.name] = {"age_days": None if math.isnan(days) else days, "is_stale": is_stale(view, days)}
    return ages


def is_stale(view: View, days: float) -> bool:
    """Say whether a view of an age counts as missing: too old, or stamped in the future; one never written is not."""
    return days > view.max_age_days or days * SECONDS_PER_DAY < -FUTURE_SECONDS


def persona_of(decisions: Decisions, catalogue: CompiledCatalogue, i: int) -> str | None:
    """Return the persona of customer `i`, or None where it fits none or the catalogue has none."""
    one = slice(i, i + 1)
    code = catalogue.extras.persona_codes(decisions.as_of[:, one], decisions.extras[:, one])[0]
    return None if math.isnan(code) else catalogue.catalogue.personas[int(code)].name


def _entry(decisions: Decisions, catalogue: CompiledCatalogue, i: int, candidate: int, ages: Ages) -> dict[str, Any]:
    treatment = catalogue.catalogue.treatments[decisions.candidates[candidate]]
    action = catalogue.catalogue.actions[decisions.actions[candidate]]
    stage = Stage(int(decisions.stages[i, candidate]))
    entry: dict[str, Any] = {
        "action_id": action.id,
        "treatment_id": treatment.id,
        "issue": action.issue,
        "group": action.group,
        "stage": stage.name.lower(),
    }
    cause = _cause(decisions, catalogue, i, candidate)
    if isinstance(cause, Rule):
        entry |= {"rule": cause.id, "reason": cause.reason, "facts": facts_read(decisions, catalogue, i, cause)}
        read = dict.fromkeys(view for name in entry["facts"] for view in views_of(name))
        entry["views"] = {view: ages[view] for view in read if view in ages}
    elif isinstance(cause, Cap | QuietHours):
        entry |= {"cap": cause.id, "reason": cause.reason}
    else:
        entry["reason"] = WORDS[stage]
    if not math.isnan(decisions.priorities[i, candidate]):
        entry["factors"] = factors(decisions, catalogue, i, candidate)
    return entry


def _cause(decisions: Decisions, catalogue: CompiledCatalogue, i: int, candidate: int) -> Rule | Policy | None:
    """Return the rule or contact policy that excluded the candidate, or None."""
    stage, reason = int(decisions.stages[i, candidate]), int(decisions.reasons[i, candidate])
    if stage in ENGAGEMENT:
        return catalogue.catalogue.rules[reason]
    return catalogue.caps.policies[reason] if stage == Stage.CONTACT_POLICY else None


def facts_read(decisions: Decisions, catalogue: CompiledCatalogue, i: int, rule: Rule) -> dict[str, Value]:
    """Return the values that a rule read of customer `i`: codes as texts, NULL as None."""
    return {name: _value(decisions, catalogue, i, name) for name in columns_read(rule.expression)}


def _value(decisions: Decisions, catalogue: CompiledCatalogue, i: int, name: str) -> Value:
    if name in catalogue.extras.names:
        row = catalogue.extras.names.index(name)
        value = float(decisions.extras[row, i]) if row < len(decisions.extras) else math.nan
    else:
        value = float(decisions.as_of[catalogue.columns.index[name], i])
    if math.isnan(value):
        return None
    if name == KNOWN:
        return bool(value)
    vocabulary = _vocabulary(catalogue, name)
    return vocabulary[int(value)] if vocabulary else value


def _vocabulary(catalogue: CompiledCatalogue, name: str) -> tuple[str, ...]:
    if name == CHANNEL:
        return catalogue.catalogue.channels
    if name == PERSONA:
        return tuple(persona.name for persona in catalogue.catalogue.personas)
    declared = {field.name: field.vocabulary for field in catalogue.catalogue.context}
    return declared[name] if name in declared else catalogue.columns.vocabulary(name)


def factors(decisions: Decisions, catalogue: CompiledCatalogue, i: int, candidate: int) -> dict[str, float]:
    """Return what went into a priority, and the priority; a factor switched off for the issue is left out."""
    terms = catalogue.catalogue
    treatment = terms.treatments[decisions.candidates[candidate]]
    action = terms.actions[decisions.actions[candidate]]
    weight = terms.context_weights.get((treatment.channel, action.issue), 1.0)
    is_levered = decisions.arms[i] != NO_LEVERS
    values = {
        "context_weight": weight,
        "value": action.value,
        **({"lever": action.lever, "stage": _stage_weight(decisions, catalogue, i, action)} if is_levered else {}),
        "cost": action.cost + treatment.cost,
    }
    uplift = float(decisions.uplifts[i, candidate]) if decisions.uplifts.size else math.nan
    return {
        "propensity": float(decisions.propensities[i, candidate]),
        **({} if math.isnan(uplift) else {"uplift": uplift}),
        **_attributable(decisions, i, candidate),
        **{name: value for name, value in values.items() if factors_on(terms, action.issue, name)},
        "priority": float(decisions.priorities[i, candidate]),
    }


def _attributable(decisions: Decisions, i: int, candidate: int) -> dict[str, float]:
    """Return the part of the propensity that showing makes, where the priority was made of it."""
    if not decisions.estimates.size or not math.isnan(decisions.uplifts[i, candidate]):
        return {}
    estimate = float(decisions.estimates[i, candidate])
    is_part = estimate != float(decisions.propensities[i, candidate]) and not math.isnan(estimate)
    return {"attributable": estimate} if is_part else {}


def _stage_weight(decisions: Decisions, catalogue: CompiledCatalogue, i: int, action: Action) -> float:
    """Return the weight of the customer's journey stage for the action's issue."""
    code = float(decisions.as_of[catalogue.columns.index["stage"], i])
    stage = "" if math.isnan(code) else catalogue.columns.vocabulary("stage")[int(code)]
    return catalogue.catalogue.stage_weights.get((action.issue, stage), 1.0)


def reasons(decisions: Decisions, catalogue: CompiledCatalogue, i: int, candidate: int) -> list[str]:
    """Say why a chosen candidate is shown, in the catalogue's words: what its rules found, then what it is worth."""
    found, worth = _words(catalogue, decisions.request.channel)[candidate]
    return [*found, f"{decisions.propensities.item(i, candidate):.1%} likely{worth}"]


@lru_cache(maxsize=32)
def _words(catalogue: CompiledCatalogue, channel: str) -> list[tuple[tuple[str, ...], str]]:
    """Return of each candidate of a channel what its rules say of whom they let through, and its worth."""
    plan, terms = catalogue.plans[channel], catalogue.catalogue
    whys = (*(rule.why for rule in terms.rules), "")  # the last stands for the rule that always passes
    actions = [terms.actions[position] for position in plan.actions.tolist()]
    return [
        (
            tuple(whys[r] for r in binding if whys[r]),
            f", worth {action.value:.2f} {terms.currency}" if factors_on(terms, action.issue, "value") else "",
        )
        for binding, action in zip(plan.rules.tolist(), actions, strict=True)
    ]

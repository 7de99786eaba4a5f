"""The answer to a decision: the one place that says how a decision reads to a caller.

Fields are written in the order in which they stand here. What a treatment says is put into bytes once, for each of its
locales; of a decision only numbers and places are new.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from service.content import fallback_of, in_locale, nearest
from service.decision.compiled import CompiledCatalogue
from service.decision.trace import persona_of, reasons, trace
from service.explanation import LATER, unavailable
from service.online import Decided

_encode = msgspec.json.Encoder().encode


class RankedAction(msgspec.Struct, gc=False):
    """One ranked action, as `api.schemas.ActionAnswer` documents it."""

    rank: int
    action_id: str
    treatment_id: str
    placement: str
    issue: str
    group: str
    name: str
    locale: str
    content: msgspec.Raw
    priority: float | None
    propensity: float | None
    propensity_source: str
    evidence: float
    uplift: float | None
    value: float
    selection_probability: float
    reasons: Sequence[str]


class Versions(msgspec.Struct, gc=False):
    """What the answer was made with."""

    catalogue: str
    model: str
    features: str


class Answer(msgspec.Struct):
    """The answer of `POST /v1/decisions`, as `api.schemas.DecisionAnswer` documents it; UNSET is not written."""

    decision_id: str
    decision_time: str
    customer_id: str
    arm: str
    layers: dict[str, str]
    stage: str | None
    actions: list[RankedAction]
    fallback: dict[str, Any] | None
    degraded: bool
    degraded_reasons: Sequence[str]
    versions: Versions
    expires_at: str
    persona: str | msgspec.UnsetType | None = msgspec.UNSET
    explanation: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    trace: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET


@lru_cache(maxsize=16)
def iso(moment: float) -> str:
    """Write Unix seconds as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def answer_of(decided: Decided, locale: str | None, explain: str) -> Answer:
    """Return the answer to one customer.

    Args:
        explain: none: actions only; chosen: with reasons; full: with the trace of every candidate.
    """
    decisions, compiled, customer = decided.decisions, decided.serving.catalogue, decided.customer
    catalogue, model = compiled.catalogue, decided.model
    answer = Answer(
        decided.decision_id,
        iso(decisions.now),
        decided.customer_id,
        decisions.arms[customer],
        {layer: arm for layer, arm, _ in decisions.layers[customer]},
        stage_of(decided),
        actions_of(decided, locale, with_reasons=explain != "none"),
        fallback_of(decisions, compiled, customer, locale),
        bool(decided.degraded_reasons),
        decided.degraded_reasons,
        Versions(catalogue.version, model.scorer.version, model.bundle.features_version),
        iso(decisions.now + catalogue.expires_seconds),
    )
    if explain == "full":
        answer.persona = persona_of(decisions, compiled, customer)
        answer.explanation = unavailable(LATER)
        answer.trace = trace(decisions, compiled, customer, decided.batch.view_times[:, customer])
    return answer


def as_data(answer: Answer) -> dict[str, Any]:
    """Return what a caller reads, as plain data."""
    data: dict[str, Any] = msgspec.json.decode(_encode(answer))
    return data


def actions_of(decided: Decided, locale: str | None, *, with_reasons: bool) -> list[RankedAction]:
    """Return the ranked actions of the answer."""
    decisions, i, compiled = decided.decisions, decided.customer, decided.serving.catalogue
    if not decisions.chosen[i]:
        return []
    spoken, forms, scorer = nearest(compiled, locale), _forms(compiled, decisions.request.channel), decided.model.scorer
    actions = []
    for rank, (candidate, placement, probability) in enumerate(decisions.chosen[i], start=1):
        form = forms.of(candidate, spoken)
        evidence: float = scorer.evidence.item(form.action)
        action = RankedAction(
            rank,
            form.action_id,
            form.treatment_id,
            placement,
            form.issue,
            form.group,
            form.name,
            form.locale,
            form.content,
            finite(decisions.priorities.item(i, candidate)),
            finite(decisions.propensities.item(i, candidate)),
            scorer.sources[form.action],
            evidence + decisions.evidence.positives.item(form.action),
            finite(decisions.uplifts.item(i, candidate)) if decisions.uplifts.size else None,
            form.value,
            probability,
            reasons(decisions, compiled, i, candidate) if with_reasons else (),
        )
        actions.append(action)
    return actions


class Form(msgspec.Struct, frozen=True):
    """What does not change of a treatment in one locale.

    Attributes:
        action: Position in `Catalogue.actions`.
    """

    action: int
    action_id: str
    treatment_id: str
    issue: str
    group: str
    name: str
    locale: str
    content: msgspec.Raw
    value: float


class _Forms:
    """The treatments of one channel, each put into bytes the first time that it is shown in a locale."""

    def __init__(self, compiled: CompiledCatalogue, channel: str) -> None:
        self._catalogue, self._plan = compiled.catalogue, compiled.plans[channel]
        self._made: dict[tuple[int, str | None], Form] = {}

    def of(self, candidate: int, spoken: str | None) -> Form:
        """Return a candidate's form in a locale that `nearest` gave; there are no more of these than locales."""
        form = self._made.get((candidate, spoken))
        if form is None:
            form = self._made[candidate, spoken] = self._make(candidate, spoken)
        return form

    def _make(self, candidate: int, spoken: str | None) -> Form:
        position = int(self._plan.actions[candidate])
        action = self._catalogue.actions[position]
        treatment = self._catalogue.treatments[self._plan.candidates[candidate]]
        locale, content = in_locale(treatment.content, spoken, self._catalogue.default_locale)
        return Form(
            position,
            action.id,
            treatment.id,
            action.issue,
            action.group,
            action.name,
            locale,
            msgspec.Raw(_encode(dict(content))),
            action.value,
        )


@lru_cache(maxsize=32)
def _forms(compiled: CompiledCatalogue, channel: str) -> _Forms:
    return _Forms(compiled, channel)


def stage_of(decided: Decided) -> str | None:
    """Return the customer's journey stage as of the decision, or None for an unknown customer."""
    columns = decided.serving.catalogue.columns
    code = decided.decisions.as_of.item(columns.index["stage"], decided.customer)
    return None if code != code else columns.vocabulary("stage")[int(code)]


def finite(value: float) -> float | None:
    """Return a plain float, or None for NaN, which JSON cannot say."""
    return None if value != value else float(value)

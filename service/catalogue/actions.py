"""The sections `issues` and `actions` of a catalogue: actions with the defaults of their issue, and treatments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from features.events import SUCCESS_RULES
from features.layout import Layout
from service.catalogue.document import Document, Place
from service.catalogue.problems import suggest
from service.decision.model import CAMPAIGN_TYPES, ISSUES, ON_EFFECT, Action, Placement, Scoring, Treatment

FACTORS = ("context_weight", "value", "lever", "stage", "cost")
ESTIMATES = ("propensity", *ON_EFFECT)
POSITIVES = ("conversion", "accept", "click")
SHARED_FIELDS = (
    "group", "value", "cost", "lever", "prior", "scoring", "campaign_type", "window_days", "marketing",
    "purpose", "may_be_unlogged", "success", "default_outcome", "content", "positive", "ramp", "starts", "ends",
    "treatments", "offer",
)  # fmt: skip
DEFAULT_OUTCOMES = ("reject", "none")
ACTION_FIELDS = (*SHARED_FIELDS, "member", "channels", "mandatory")
ISSUE_FIELDS = (*SHARED_FIELDS, "threshold", "factors", "context_weights", "propensity", "stages")
Content = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Form:
    """How an issue's actions, or one action, appear on a channel; validity in Unix seconds, NaN for open."""

    channel: str
    placements: tuple[str, ...]
    cost: float
    starts_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class Issue:
    """Defaults of an issue's actions, and how they are arbitrated.

    Attributes:
        fields: The places of its fields, which an action's own fields override.
        context_weights: channel -> weight. stage_weights: journey stage -> weight.
        estimate: What its priorities are made of: propensity | uplift | attributable.
    """

    fields: Mapping[str, Place]
    forms: tuple[Form, ...]
    content: Content
    factors: tuple[str, ...]
    context_weights: Mapping[str, float]
    threshold: float
    estimate: str
    stage_weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ActionReader:
    """Reads issues and actions against the names declared elsewhere in the file."""

    document: Document
    layout: Layout
    channels: tuple[str, ...]
    placements: tuple[Placement, ...]
    locales: tuple[str, ...]
    groups: Mapping[str, tuple[float, float]]
    purposes: tuple[str, ...]
    stages: tuple[str, ...]

    def issues(self, place: Place | None) -> dict[str, Issue]:
        """Read the section `issues`."""
        issues = {}
        for name, inner in self.document.entries(place):
            if name in ISSUES:
                issues[name] = self._issue(inner)
            else:
                self.document.note(
                    inner, f"unknown issue {name!r}", suggest(name, ISSUES, "one of " + ", ".join(ISSUES))
                )
        return issues

    def _issue(self, place: Place) -> Issue:
        document = self.document
        fields = document.fields(place, optional=ISSUE_FIELDS)
        factors = fields.get("factors")
        return Issue(
            fields,
            self._forms(fields.get("treatments")),
            self._content(fields.get("content")),
            FACTORS if factors is None else document.texts(factors, FACTORS),
            {c: document.number(p, 1.0, 0) for c, p in self._by_channel(fields.get("context_weights"))},
            document.number(fields.get("threshold"), 0.0, 0, 1),
            document.text(fields.get("propensity"), "propensity", ESTIMATES),
            self._stage_weights(fields.get("stages")),
        )

    def _stage_weights(self, place: Place | None) -> dict[str, float]:
        weights = {}
        for stage, inner in self.document.entries(place):
            if stage not in self.stages:
                remedy = suggest(stage, self.stages, "one of " + ", ".join(self.stages))
                self.document.note(inner, f"unknown journey stage {stage!r}", remedy)
            weights[stage] = self.document.number(inner, 1.0, 0)
        return weights

    def _by_channel(self, place: Place | None) -> list[tuple[str, Place]]:
        found = list(self.document.entries(place))
        for channel, inner in found:
            if channel not in self.channels:
                remedy = suggest(channel, self.channels, "declare it under channels")
                self.document.note(inner, f"unknown channel {channel!r}", remedy)
        return [(channel, inner) for channel, inner in found if channel in self.channels]

    def _forms(self, place: Place | None) -> tuple[Form, ...]:
        return tuple(self._form(channel, inner) for channel, inner in self._by_channel(place))

    def _form(self, channel: str, place: Place) -> Form:
        fields = self.document.fields(place, ("placements",), ("cost", "starts", "ends"))
        known = [p.id for p in self.placements if p.channel == channel]
        placements = self.document.texts(fields.get("placements"), known)
        return Form(channel, placements, self.document.number(fields.get("cost"), 0.0, 0), *self.document.dates(fields))

    def _content(self, place: Place | None) -> Content:
        content = {}
        for locale, inner in self.document.entries(place):
            if locale not in self.locales:
                remedy = suggest(locale, self.locales, "add it to locales")
                self.document.note(inner, f"unknown locale {locale!r}", remedy)
            content[locale] = {name: self.document.text(text) for name, text in self.document.entries(inner)}
        return content

    def actions(
        self, place: Place | None, issues: Mapping[str, Issue]
    ) -> tuple[tuple[Action, ...], tuple[Treatment, ...]]:
        """Read the section `actions`, in the order of ids."""
        actions: list[Action] = []
        treatments: list[Treatment] = []
        for action_id, inner in self.document.identified(place):
            own = self.document.fields(inner, ("name", "issue"), ACTION_FIELDS)
            issue = self.document.text(own.get("issue"), "", tuple(issues))
            if issue in issues:
                names = self._names(own.get("name"))
                actions.append(self._action(action_id, issue, names, {**issues[issue].fields, **own}, inner))
                treatments += self._treatments(actions[-1], names, issues[issue], own, inner)
        return tuple(sorted(actions, key=lambda a: a.id)), tuple(sorted(treatments, key=lambda t: t.id))

    def _names(self, place: Place | None) -> dict[str, str]:
        """Read names by locale; one plain text stands for all."""
        if place is None or place.is_text:
            return dict.fromkeys(self.locales, self.document.text(place))
        fields = self.document.fields(place, self.locales[:1], self.locales[1:])
        names = {locale: self.document.text(inner) for locale, inner in fields.items()}
        return {locale: names.get(locale, names.get(self.locales[0], "")) for locale in self.locales}

    def _action(
        self, action_id: str, issue: str, names: Mapping[str, str], fields: Mapping[str, Place], place: Place
    ) -> Action:
        document = self.document
        for needed in ("prior", "group") if self.groups else ("prior",):
            if needed not in fields:
                document.note(place, f"{needed!r} is missing here and at the issue", f"add {needed}: ...")
        members = [member for names_ in self.layout.dimensions.values() for member in names_]
        member = document.text(fields.get("member"), "", members) or None
        starts_at, ends_at = document.dates(fields)
        group = document.text(fields.get("group"), "", tuple(self.groups))
        opens_at, closes_at = self.groups.get(group, (math.nan, math.nan))
        offer = document.fields(fields["offer"], (), ("coupons", "breadth")) if "offer" in fields else {}
        return Action(
            id=action_id,
            name=names.get(self.locales[0], ""),
            issue=issue,
            group=group,
            value=document.number(fields.get("value"), 0.0, 0),
            cost=document.number(fields.get("cost"), 0.0, 0),
            lever=document.number(fields.get("lever"), 1.0, 0),
            prior=document.number(fields.get("prior"), 0.0, 0, 1),
            scoring=Scoring(document.text(fields.get("scoring"), "prior", [s.value for s in Scoring])),
            member=member,
            campaign_type=document.text(fields.get("campaign_type"), "", CAMPAIGN_TYPES) or None,
            window_days=document.number(fields.get("window_days"), 30.0, 0),
            is_marketing=document.flag(fields.get("marketing"), default=True),
            purpose=document.text(fields.get("purpose"), self.purposes[0], self.purposes),
            may_be_unlogged=document.flag(fields.get("may_be_unlogged"), default=False),
            success_rule=self._success(fields.get("success"), member),
            starts_at=latest(starts_at, opens_at),
            ends_at=-latest(-ends_at, -closes_at),
            positive=document.text(fields.get("positive"), "conversion", POSITIVES),
            is_mandatory=document.flag(fields.get("mandatory"), default=False),
            is_ramped=document.flag(fields.get("ramp"), default=True),
            default_outcome=document.text(fields.get("default_outcome"), "reject", DEFAULT_OUTCOMES),
            offer_coupons=document.number(offer.get("coupons"), math.nan, 0),
            offer_breadth=document.number(offer.get("breadth"), math.nan, 0),
        )

    def _success(self, place: Place | None, member: str | None) -> str:
        rule = self.document.text(place).replace("{member}", member or "")
        if rule and rule not in SUCCESS_RULES and place is not None:
            remedy = suggest(rule, SUCCESS_RULES, "e.g. purchase, or purchase:{member} for an action with a member")
            self.document.note(place, f"unknown success {rule!r}", remedy)
        return rule

    def _treatments(
        self, action: Action, names: Mapping[str, str], issue: Issue, own: Mapping[str, Place], place: Place
    ) -> list[Treatment]:
        document = self.document
        content = {**issue.content, **self._content(own.get("content"))}
        if self.locales[0] not in content:
            document.note(place, f"there is no content in {self.locales[0]!r}", "add it here or at the issue")
        forms = {form.channel: form for form in (*issue.forms, *self._forms(own.get("treatments")))}
        offered: Sequence[str] = list(forms)
        channels = document.texts(own["channels"], offered) if "channels" in own else offered
        if not channels:
            document.note(place, "the action appears on no channel", "give the issue treatments, or name channels")
        filled = {
            locale: {field: text.replace("{name}", names.get(locale, "")) for field, text in fields.items()}
            for locale, fields in content.items()
        }
        return [
            Treatment(
                f"{action.id}.{form.channel}", action.id, form.channel, form.placements, filled, form.cost,
                form.starts_at, form.ends_at,
            )
            for form in forms.values()
            if form.channel in channels
        ]  # fmt: skip


def latest(one: float, other: float) -> float:
    """Return the later of two moments; NaN, for open, says nothing."""
    known = [moment for moment in (one, other) if not math.isnan(moment)]
    return max(known, default=math.nan)

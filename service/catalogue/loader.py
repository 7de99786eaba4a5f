"""A catalogue file -> `decision.model.Catalogue`: reads, checks and reports all problems at once, or returns it whole.

Defaults stand at the issue, so that an action says only what is its own. Everything with an id is put into the order of
ids (rules: stage, then id): the order of the file means nothing, save for placements and arms.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from features.matrix import Columns
from service.catalogue.canonical import version_of
from service.catalogue.document import CatalogueError, Document, Place, Problem, read
from service.catalogue.rules import RuleError, Symbols, parse_rule, suggest
from service.decision.experiment import ARMS
from service.decision.compiled import in_scope
from service.decision.expression import CHANNEL, KNOWN, columns_read, renamed
from service.decision.model import (
    CAMPAIGN_TYPES,
    ISSUES,
    Action,
    Cap,
    Catalogue,
    ContextField,
    Experiment,
    Exploration,
    Placement,
    Rule,
    Scoring,
    Stage,
    Treatment,
)

__all__ = ["CatalogueError", "Problem", "load_catalogue"]

DAY_SECONDS = 86_400.0
FACTORS = ("context_weight", "value", "lever", "cost")
STAGES = {"eligibility": Stage.ELIGIBILITY, "applicability": Stage.APPLICABILITY, "suitability": Stage.SUITABILITY}
COUNTED = ("decision", "impression", "click", "accept", "reject")
STRATEGIES = ("none", "epsilon_greedy", "softmax")
ACTION_FIELDS = (
    "group", "value", "cost", "lever", "prior", "scoring", "member", "campaign_type", "window_days", "marketing",
    "may_be_unlogged", "success", "starts", "ends", "channels", "content",
)  # fmt: skip
ISSUE_FIELDS = (*(f for f in ACTION_FIELDS if f not in ("member", "starts", "ends", "channels")),
                "threshold", "factors", "context_weights", "treatments")  # fmt: skip
TOP_REQUIRED = ("currency", "locales", "channels", "issues", "actions", "experiment", "exploration")
TOP_OPTIONAL = ("expires_minutes", "least_priority", "fallback", "context", "groups", "rules", "caps")

Content = Mapping[str, Mapping[str, str]]


def load_catalogue(path: Path | str, columns: Columns | None = None) -> Catalogue:
    """Load a catalogue.

    Args:
        path: The YAML file.
        columns: The matrix columns that rules may read; those of the feature contract if None.

    Returns:
        The catalogue, with its version.

    Raises:
        CatalogueError: With every problem found: line, path, message, remedy.
    """
    document = Document()
    root = read(Path(path))
    catalogue = _Loader(document, columns or Columns()).catalogue(root)
    if document.problems:
        raise CatalogueError(str(path), document.problems)
    return replace(catalogue, version=version_of(catalogue))


@dataclass(frozen=True, slots=True)
class _Issue:
    """Defaults of an issue: places of its fields, its treatments' (channel, placements, cost), and its content."""

    fields: Mapping[str, Place]
    treatments: tuple[tuple[str, tuple[str, ...], float], ...]
    content: Content


class _Loader:
    """Reads the sections in an order in which each finds the names that it refers to."""

    def __init__(self, document: Document, columns: Columns) -> None:
        self.document = document
        self.columns = columns
        self.channels: tuple[str, ...] = ()
        self.locales: tuple[str, ...] = ()
        self.placements: tuple[Placement, ...] = ()
        self.groups: tuple[str, ...] = ()

    def catalogue(self, root: Place) -> Catalogue:
        """Read the whole document."""
        document = self.document
        top = document.fields(root, TOP_REQUIRED, TOP_OPTIONAL)
        self.locales = document.texts(top.get("locales")) or ("en",)
        self.channels, self.placements = self._channels(top.get("channels"))
        self.groups = document.texts(top.get("groups"))
        context = self._context(top.get("context"))
        issues = self._issues(top.get("issues"))
        actions, treatments = self._actions(top.get("actions"), issues)
        fallback = document.text(top.get("fallback"), "", [a.id for a in actions])
        return Catalogue(
            version="",
            currency=document.text(top.get("currency"), "USD"),
            actions=tuple(sorted(actions, key=lambda a: a.id)),
            treatments=tuple(sorted(treatments, key=lambda t: t.id)),
            placements=self.placements,
            rules=self._rules(top.get("rules"), self._symbols(context), actions, treatments),
            caps=self._caps(top.get("caps"), actions),
            experiment=self._experiment(top.get("experiment")),
            exploration=self._exploration(top.get("exploration")),
            context=context,
            arbitration={name: self._factors(issue) for name, issue in issues.items()},
            context_weights=dict(self._weights(issues)),
            thresholds={n: document.number(i.fields.get("threshold"), 0.0, 0, 1) for n, i in issues.items()},
            default_locale=self.locales[0],
            expires_seconds=60 * document.number(top.get("expires_minutes"), 30.0, 0),
            channels=self.channels,
            least_priority=document.number(top.get("least_priority"), -math.inf),
            fallback=fallback,
        )

    def _channels(self, place: Place | None) -> tuple[tuple[str, ...], tuple[Placement, ...]]:
        channels, placements = [], []
        for channel, inner in self.document.entries(place):
            channels.append(channel)
            for name, slots in self.document.entries(inner):
                if name in (p.id for p in placements):
                    self.document.note(slots, f"the placement {name!r} is in two channels", "rename one")
                placements.append(Placement(name, channel, self.document.integer(slots, 1, least=1)))
        return tuple(channels), tuple(placements)

    def _context(self, place: Place | None) -> tuple[ContextField, ...]:
        fields = []
        for name, inner in self.document.entries(place):
            if name in self.columns.index or name in (CHANNEL, KNOWN):
                self.document.note(inner, f"{name!r} is also the name of a column", "rename the context field")
            is_number = getattr(inner.node, "value", None) == "number"
            fields.append(ContextField(name, () if is_number else self.document.texts(inner)))
        return tuple(fields)

    def _symbols(self, context: Sequence[ContextField]) -> Symbols:
        return {
            **{name: self.columns.vocabulary(name) for name in self.columns.names},
            **{name: () for name in self.columns.relatives},
            **{field.name: field.vocabulary for field in context},
            CHANNEL: self.channels,
            KNOWN: (),
        }

    def _issues(self, place: Place | None) -> dict[str, _Issue]:
        issues = {}
        for name, inner in self.document.entries(place):
            if name not in ISSUES:
                self.document.note(
                    inner, f"unknown issue {name!r}", suggest(name, ISSUES, "one of " + ", ".join(ISSUES))
                )
                continue
            fields = self.document.fields(inner, optional=ISSUE_FIELDS)
            treatments = tuple(self._treatment(c, p) for c, p in self._by_channel(fields.get("treatments")))
            issues[name] = _Issue(fields, treatments, self._content(fields.get("content")))
        return issues

    def _by_channel(self, place: Place | None) -> list[tuple[str, Place]]:
        found = []
        for channel, inner in self.document.entries(place):
            if channel in self.channels:
                found.append((channel, inner))
            else:
                self.document.note(
                    inner, f"unknown channel {channel!r}", suggest(channel, self.channels, "declare it under channels")
                )
        return found

    def _treatment(self, channel: str, place: Place) -> tuple[str, tuple[str, ...], float]:
        fields = self.document.fields(place, ("placements",), ("cost",))
        known = [p.id for p in self.placements if p.channel == channel]
        placements = self.document.texts(fields.get("placements"), known)
        return channel, placements, self.document.number(fields.get("cost"), 0.0, 0)

    def _content(self, place: Place | None) -> Content:
        content = {}
        for locale, inner in self.document.entries(place):
            if locale not in self.locales:
                self.document.note(
                    inner, f"unknown locale {locale!r}", suggest(locale, self.locales, "add it to locales")
                )
            content[locale] = {name: self.document.text(text) for name, text in self.document.entries(inner)}
        return content

    def _factors(self, issue: _Issue) -> tuple[str, ...]:
        place = issue.fields.get("factors")
        return FACTORS if place is None else self.document.texts(place, FACTORS)

    def _weights(self, issues: Mapping[str, _Issue]) -> list[tuple[tuple[str, str], float]]:
        return [
            ((channel, name), self.document.number(inner, 1.0, 0))
            for name, issue in issues.items()
            for channel, inner in self._by_channel(issue.fields.get("context_weights"))
        ]

    def _actions(self, place: Place | None, issues: Mapping[str, _Issue]) -> tuple[list[Action], list[Treatment]]:
        actions: list[Action] = []
        treatments: list[Treatment] = []
        for action_id, inner in self.document.entries(place):
            own = self.document.fields(inner, ("name", "issue"), ACTION_FIELDS)
            issue_name = self.document.text(own.get("issue"), "", tuple(issues))
            if issue_name:
                issue = issues[issue_name]
                names = self._names(own.get("name"))
                actions.append(self._action(action_id, issue_name, names, {**issue.fields, **own}, inner))
                treatments += self._treatments(actions[-1], names, issue, own)
        return actions, treatments

    def _names(self, place: Place | None) -> dict[str, str]:
        """Names by locale; one plain text stands for all."""
        if place is None:
            return {}
        if getattr(place.node, "tag", "") == "tag:yaml.org,2002:str":
            return dict.fromkeys(self.locales, self.document.text(place))
        names = {
            locale: self.document.text(p)
            for locale, p in self.document.fields(place, self.locales[:1], self.locales[1:]).items()
        }
        return {locale: names.get(locale, names.get(self.locales[0], "")) for locale in self.locales}

    def _action(
        self, action_id: str, issue: str, names: Mapping[str, str], fields: Mapping[str, Place], place: Place
    ) -> Action:
        document = self.document
        member = document.text(fields.get("member"), "", self.columns.layout.dimensions["aisle"]) or None
        scoring = Scoring(document.text(fields.get("scoring"), "prior", [s.value for s in Scoring]))
        starts_at, ends_at = document.moment(fields.get("starts")), document.moment(fields.get("ends"))
        if ends_at <= starts_at:
            document.note(fields["ends"], "the action ends before it starts", "set ends after starts")
        if "prior" not in fields:
            document.note(place, "'prior' is missing here and at the issue", "add the assumed P(positive | shown)")
        if self.groups and "group" not in fields:
            document.note(place, "'group' is missing here and at the issue", "add one of " + ", ".join(self.groups))
        return Action(
            id=action_id,
            name=names.get(self.locales[0], ""),
            issue=issue,
            group=document.text(fields.get("group"), "", self.groups),
            value=document.number(fields.get("value"), 0.0, 0),
            cost=document.number(fields.get("cost"), 0.0, 0),
            lever=document.number(fields.get("lever"), 1.0, 0),
            prior=document.number(fields.get("prior"), 0.0, 0, 1),
            scoring=scoring,
            member=member,
            campaign_type=document.text(fields.get("campaign_type"), "", CAMPAIGN_TYPES) or None,
            window_days=document.number(fields.get("window_days"), 30.0, 0),
            is_marketing=document.flag(fields.get("marketing"), default=True),
            may_be_unlogged=document.flag(fields.get("may_be_unlogged"), default=False),
            success_rule=document.text(fields.get("success"), "").replace("{member}", member or ""),
            starts_at=starts_at,
            ends_at=ends_at,
        )

    def _treatments(
        self, action: Action, names: Mapping[str, str], issue: _Issue, own: Mapping[str, Place]
    ) -> list[Treatment]:
        content = {**issue.content, **self._content(own.get("content"))}
        filled = {
            locale: {field: text.replace("{name}", names.get(locale, "")) for field, text in content[locale].items()}
            for locale in self.locales
            if locale in content
        }
        place = own.get("channels")
        offered = [channel for channel, _, _ in issue.treatments]
        channels = offered if place is None else self.document.texts(place, offered)
        return [
            Treatment(f"{action.id}.{channel}", action.id, channel, placements, filled, cost)
            for channel, placements, cost in issue.treatments
            if channel in channels
        ]

    def _scope(self, place: Place | None, known: Mapping[str, Sequence[str]], *, each: bool) -> tuple[str, str]:
        """Read `all`, or one `kind: id`; with `each`, the id "*" stands for each on its own."""
        if place is None:
            return "all", ""
        plain = [kind for kind, ids in known.items() if not ids]
        if getattr(place.node, "tag", "") == "tag:yaml.org,2002:str":
            return self.document.text(place, "all", plain), ""
        fields = self.document.fields(place, optional=[kind for kind in known if kind not in plain])
        if len(fields) != 1:
            self.document.note(place, "a scope names one thing", "write for example {issue: upsell}, or all")
            return "all", ""
        ((kind, inner),) = fields.items()
        return kind, self.document.text(inner, "", [*known[kind], "*"] if each else known[kind])

    def _rules(
        self, place: Place | None, symbols: Symbols, actions: Sequence[Action], treatments: Sequence[Treatment]
    ) -> tuple[Rule, ...]:
        known = {"all": (), **_scopes(actions), "treatment": [t.id for t in treatments]}
        rules: list[Rule] = []
        for rule_id, inner in self.document.entries(place):
            fields = self.document.fields(inner, ("stage", "rule", "reason"), ("scope", "why"))
            stage = self.document.text(fields.get("stage"), "eligibility", tuple(STAGES))
            scope, scope_id = self._scope(fields.get("scope"), known, each=False)
            text = self.document.text(fields.get("rule"))
            try:
                expression = parse_rule(text, symbols)
            except RuleError as error:
                if "rule" in fields:
                    message = f"{error.message} (at character {error.position + 1} of {text!r})"
                    self.document.note(fields["rule"], message, error.remedy)
                continue
            reason, why = self.document.text(fields.get("reason")), self.document.text(fields.get("why"))
            rule = Rule(rule_id, STAGES[stage], scope, scope_id, text, reason, expression, why)
            rules += self._by_action(rule, actions, inner)
        return tuple(sorted(rules, key=lambda rule: (rule.stage, rule.id)))

    def _by_action(self, rule: Rule, actions: Sequence[Action], place: Place) -> list[Rule]:
        """Turn a rule on columns of the action's own member into one rule for each action in its scope."""
        relatives = [name for name in columns_read(rule.expression) if name in self.columns.relatives]
        if not relatives:
            return [rule]
        bound = [action for action in actions if rule.scope != "treatment" and in_scope(rule, action)]
        strangers = [action.id for action in bound if not action.member]
        if strangers or not bound:
            message = f"{relatives[0]!r} is a column of the action's own member, which {(strangers or ['this scope'])[0]} has not"
            self.document.note(place, message, f"name the member ({relatives[0]}__...) or narrow the scope")
        return [_of_member(rule, action, relatives) for action in bound if action.member]

    def _caps(self, place: Place | None, actions: Sequence[Action]) -> tuple[Cap, ...]:
        known = {"all": (), "marketing": (), **_scopes(actions)}
        caps = []
        for cap_id, inner in self.document.entries(place):
            fields = self.document.fields(inner, ("limit", "days", "reason"), ("scope", "counted", "channels"))
            scope, scope_id = self._scope(fields.get("scope"), known, each=True)
            caps.append(
                Cap(
                    cap_id,
                    scope,
                    scope_id,
                    self.document.text(fields.get("counted"), "impression", COUNTED),
                    self.document.integer(fields.get("limit"), 0, least=0),
                    DAY_SECONDS * self.document.number(fields.get("days"), 1.0, 0),
                    self.document.texts(fields.get("channels"), self.channels),
                    self.document.text(fields.get("reason")),
                )
            )
        return tuple(sorted(caps, key=lambda cap: cap.id))

    def _experiment(self, place: Place | None) -> Experiment:
        if place is None:
            return Experiment("", "", (("nba", 1.0),))
        fields = self.document.fields(place, ("id", "salt", "arms"))
        arms = []
        for name, inner in self.document.entries(fields.get("arms")):
            if name not in ARMS:
                self.document.note(inner, f"unknown arm {name!r}", suggest(name, ARMS, "one of " + ", ".join(ARMS)))
            arms.append((name, self.document.number(inner, 0.0, 0, 1)))
        total = sum(share for _, share in arms)
        if "arms" in fields and abs(total - 1.0) > 1e-9:
            self.document.note(fields["arms"], f"the shares sum to {total:g}", "make them sum to 1")
        salt = self.document.text(fields.get("salt"))
        if len(salt.encode()) > 64:
            self.document.note(fields["salt"], "the salt is longer than 64 bytes", "shorten it")
        return Experiment(self.document.text(fields.get("id")), salt, tuple(arms))

    def _exploration(self, place: Place | None) -> Exploration:
        if place is None:
            return Exploration("none", 0.0)
        fields = self.document.fields(place, ("strategy",), ("parameter",))
        strategy = self.document.text(fields.get("strategy"), "none", STRATEGIES)
        most = 1.0 if strategy == "epsilon_greedy" else math.inf
        least = 1e-9 if strategy == "softmax" else 0.0
        if strategy != "none" and "parameter" not in fields:
            self.document.note(place, f"{strategy} needs a parameter", "add parameter: epsilon or temperature")
        return Exploration(strategy, self.document.number(fields.get("parameter"), least, least, most))


def _scopes(actions: Sequence[Action]) -> dict[str, Sequence[str]]:
    return {
        "issue": sorted({a.issue for a in actions}),
        "group": sorted({a.group for a in actions if a.group}),
        "action": [a.id for a in actions],
    }


def _of_member(rule: Rule, action: Action, relatives: Sequence[str]) -> Rule:
    names = {name: f"{name}__{action.member}" for name in relatives}
    return replace(
        rule,
        id=f"{rule.id}.{action.id}",
        scope="action",
        scope_id=action.id,
        text=re.sub(r"\w+", lambda word: names.get(word[0].lower(), word[0]), rule.text),
        reason=rule.reason.replace("{name}", action.name),
        why=rule.why.replace("{name}", action.name),
        expression=renamed(rule.expression, names),
    )

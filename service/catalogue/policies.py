"""The sections `rules` and `caps` of a catalogue: engagement policy and contact policy, against the actions' names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from features.layout import SECONDS_PER_DAY
from service.catalogue.document import Document, Place
from service.catalogue.expressions import read_expression
from service.catalogue.rules import Symbols
from service.decision.compiled import scopes_of
from service.decision.expression import columns_read, renamed
from service.decision.model import Action, Cap, Rule, Stage, Treatment
from service.decision.record import CONTACTS_DAYS

STAGES = {"eligibility": Stage.ELIGIBILITY, "applicability": Stage.APPLICABILITY, "suitability": Stage.SUITABILITY}
COUNTED = ("decision", "impression", "click", "accept", "reject")


@dataclass(frozen=True, slots=True)
class PolicyReader:
    """Reads rules and caps.

    Attributes:
        symbols: Every name that a rule may read, with its vocabulary.
        relatives: Those that stand for the column of the action's own member.
    """

    document: Document
    symbols: Symbols
    relatives: frozenset[str]
    channels: tuple[str, ...]
    actions: tuple[Action, ...]
    treatments: tuple[Treatment, ...]

    def rules(self, place: Place | None) -> tuple[Rule, ...]:
        """Read the section `rules`, in order of stage, then id."""
        known = {"all": (), **self._scopes(), "treatment": [t.id for t in self.treatments]}
        rules: list[Rule] = []
        for rule_id, inner in self.document.identified(place):
            fields = self.document.fields(inner, ("stage", "rule", "reason"), ("scope", "why"))
            stage = self.document.text(fields.get("stage"), "eligibility", tuple(STAGES))
            scope, scope_id = self._scope(fields.get("scope"), known)
            reason, why = self.document.text(fields.get("reason")), self.document.text(fields.get("why"))
            text = self.document.text(fields.get("rule"))
            expression = read_expression(self.document, fields.get("rule"), self.symbols)
            if expression is not None:
                rule = Rule(rule_id, STAGES[stage], scope, scope_id, text, reason, expression, why)
                rules += self._by_action(rule, fields["rule"])
        return tuple(sorted(rules, key=lambda rule: (rule.stage, rule.id)))

    def _by_action(self, rule: Rule, place: Place) -> list[Rule]:
        """Turn a rule on columns of the action's own member into one rule for each action in its scope."""
        read = [name for name in columns_read(rule.expression) if name in self.relatives]
        if not read:
            return [rule]
        bound = [action for action in self.actions if (rule.scope, rule.scope_id) in scopes_of(action)]
        strangers = [action.id for action in bound if not action.member] or ["" if bound else "this scope"]
        if strangers[0]:
            message = f"{read[0]!r} is a column of the action's own member, and {strangers[0]} has none"
            self.document.note(place, message, f"name the member ({read[0]}__...) or narrow the scope")
        return [_of_member(rule, action, action.member, read) for action in bound if action.member]

    def caps(self, place: Place | None) -> tuple[Cap, ...]:
        """Read the section `caps`, in the order of ids."""
        each = {kind: [*ids, "*"] for kind, ids in self._scopes().items()}
        known = {"all": (), "marketing": (), **each}
        return tuple(sorted((self._cap(i, p, known) for i, p in self.document.identified(place)), key=lambda c: c.id))

    def _cap(self, cap_id: str, place: Place, known: Mapping[str, Sequence[str]]) -> Cap:
        fields = self.document.fields(place, ("limit", "days", "reason"), ("scope", "counted", "channels"))
        scope, scope_id = self._scope(fields.get("scope"), known)
        return Cap(
            cap_id,
            scope,
            scope_id,
            self.document.text(fields.get("counted"), "impression", COUNTED),
            self.document.integer(fields.get("limit"), 0, least=0),
            SECONDS_PER_DAY * self.document.number(fields.get("days"), 1.0, 1 / 1440, CONTACTS_DAYS),
            self.document.texts(fields["channels"], self.channels) if "channels" in fields else (),
            self.document.text(fields.get("reason")),
        )

    def _scope(self, place: Place | None, known: Mapping[str, Sequence[str]]) -> tuple[str, str]:
        """Read a plain scope such as `all` (also if there is none), or one `kind: id`."""
        plain = [kind for kind, ids in known.items() if not ids]
        if place is None or place.is_text:
            return self.document.text(place, "all", plain), ""
        found = self.document.fields(place, optional=[kind for kind in known if kind not in plain])
        if len(found) != 1:
            remedy = "write for example {issue: upsell}, or " + " or ".join(plain)
            self.document.note(place, "a scope names exactly one thing", remedy)
            return "all", ""
        ((kind, inner),) = found.items()
        return kind, self.document.text(inner, "", known[kind])

    def _scopes(self) -> dict[str, Sequence[str]]:
        return {
            "issue": sorted({action.issue for action in self.actions}),
            "group": sorted({action.group for action in self.actions if action.group}),
            "action": [action.id for action in self.actions],
        }


def _of_member(rule: Rule, action: Action, member: str, relatives: Sequence[str]) -> Rule:
    names = {name: f"{name}__{member}" for name in relatives}
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

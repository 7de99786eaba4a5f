"""The section `rules` of a catalogue: engagement policy, against the actions' names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.catalogue.document import Document, Place
from service.catalogue.expressions import read_expression
from service.catalogue.scopes import read_scope, scopes
from service.catalogue.symbols import Symbols
from service.decision.channel_plan import scopes_of
from service.decision.expression import columns_read, renamed
from service.decision.model import Action, Placement, Rule, Stage, Treatment

STAGES = {"eligibility": Stage.ELIGIBILITY, "applicability": Stage.APPLICABILITY, "suitability": Stage.SUITABILITY}


@dataclass(frozen=True, slots=True)
class PolicyReader:
    """Reads rules.

    Attributes:
        symbols: Every name that a rule may read, with its vocabulary.
        relatives: Those that stand for the column of the action's own member.
    """

    document: Document
    symbols: Symbols
    relatives: frozenset[str]
    placements: tuple[Placement, ...]
    actions: tuple[Action, ...]
    treatments: tuple[Treatment, ...]

    def rules(self, place: Place | None) -> tuple[Rule, ...]:
        """Read the section `rules`, in order of stage, then id."""
        known = {"all": (), **scopes(self.actions, self.treatments)}
        rules: list[Rule] = []
        for rule_id, inner in self.document.identified(place):
            fields = self.document.fields(inner, ("stage", "rule", "reason"), ("scope", "why", "placements"))
            stage = self.document.text(fields.get("stage"), "eligibility", tuple(STAGES))
            scope, scope_id = read_scope(self.document, fields.get("scope"), known)
            reason, why = self.document.text(fields.get("reason")), self.document.text(fields.get("why"))
            known_places = [placement.id for placement in self.placements]
            where = self.document.texts(fields["placements"], known_places) if "placements" in fields else ()
            text = self.document.text(fields.get("rule"))
            expression = read_expression(self.document, fields.get("rule"), self.symbols)
            if expression is not None:
                rule = Rule(rule_id, STAGES[stage], scope, scope_id, text, reason, expression, why, where)
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

"""What an answer shows of a treatment, in which language, and what it shows where nothing was ranked.

Knows the catalogue's texts and where candidates ended; decides on no candidate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from service.decision.compiled import CompiledCatalogue
from service.decision.model import Decisions, Stage
from service.decision.selection import slots_of
from service.decision.trace import WORDS

Texts = Mapping[str, str]
OUT_OF_USE = (Stage.SWITCHED_OFF, Stage.OUT_OF_DATES)
EXCLUDED = {
    Stage.ELIGIBILITY: "the customer is eligible for none of the actions",
    Stage.APPLICABILITY: "no action applies to the customer now",
    Stage.SUITABILITY: "no action suits the customer now",
    Stage.CONTACT_POLICY: "the customer has been contacted enough",
}
"""What to say of stages that name a rule or cap of each candidate."""


def in_locale(content: Mapping[str, Texts], asked: str | None, default: str) -> tuple[str, Texts]:
    """Return the texts that come nearest to what was asked, and the locale that they are in.

    By lookup (RFC 4647, section 3.4): `es-MX` is served by `es-MX`, else `es`, else the catalogue's default.
    """
    known = {locale.lower(): locale for locale in content}
    wanted = (asked or "").lower()
    while wanted:
        if wanted in known:
            return known[wanted], content[known[wanted]]
        wanted = wanted.rpartition("-")[0]
    return default, content[default]


@lru_cache(maxsize=1024)
def nearest(catalogue: CompiledCatalogue, asked: str | None) -> str | None:
    """Return as much of the locale asked as any text of the catalogue is in: all that `in_locale` can find is there."""
    known = {locale.lower() for treatment in catalogue.catalogue.treatments for locale in treatment.content}
    wanted = (asked or "").lower()
    while wanted and wanted not in known:
        wanted = wanted.rpartition("-")[0]
    return wanted or None


def fallback_of(
    decisions: Decisions, catalogue: CompiledCatalogue, customer: int, locale: str | None
) -> dict[str, Any] | None:
    """Return what to show where no action was ranked, and why none was; None where there is nothing to show either.

    The fallback is no decision: it reserves no cap and is not logged as shown, so it takes no outcome.
    """
    terms, plan = catalogue.catalogue, catalogue.plans[decisions.request.channel]
    if decisions.chosen[customer] or not terms.fallback:
        return None
    stages = decisions.stages[customer]
    slots = slots_of(plan, decisions.request)
    for candidate, position in enumerate(decisions.candidates.tolist()):
        treatment = terms.treatments[position]
        placement = next((p for p in slots if p in treatment.placements), None)
        if treatment.action_id == terms.fallback and placement and Stage(int(stages[candidate])) not in OUT_OF_USE:
            action = terms.actions[terms.index[terms.fallback]]
            spoken, content = in_locale(treatment.content, locale, terms.default_locale)
            return {
                "action_id": action.id,
                "treatment_id": treatment.id,
                "placement": placement,
                "name": action.name,
                "locale": spoken,
                "content": dict(content),
                "reason": _why_nothing(stages.tolist()),
            }
    return None


def _why_nothing(stages: list[int]) -> str:
    """Say at which stage most candidates ended; the earlier one of two."""
    counts = Counter(stages)
    stage = Stage(min(counts, key=lambda s: (-counts[s], s)))
    return EXCLUDED.get(stage) or WORDS[stage]

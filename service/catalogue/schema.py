"""The catalogue's YAML as a JSON Schema (draft 2020-12), for editors: one declaration of sections, keys and kinds.

It sees one value at a time: what refers to another place in the file (ids, rules, sums) the loader alone can check. A
test holds the keys against those that the readers take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from features.matrix import Columns
from service.catalogue.actions import DEFAULT_OUTCOMES, ESTIMATES, FACTORS, POSITIVES
from service.catalogue.contact_policies import RESPONSES, UNITS
from service.catalogue.document import IDENTIFIER
from service.catalogue.loader import OPTIONAL, REQUIRED
from service.catalogue.policies import STAGES
from service.catalogue.selection import STRATEGIES
from service.catalogue.zones import known_zones
from service.decision.experiment import ARMS, EXPLORATION_ARMS
from service.decision.model import CALENDAR, CAMPAIGN_TYPES, CONTACT_KINDS, ISSUES, Scoring
from service.decision.record import CONTACTS_DAYS, MOST_ROOM

Schema = Mapping[str, Any]


def text(*choices: str) -> Schema:
    """Describe a text, one of `choices` if there are any."""
    return {"type": "string", "enum": list(choices)} if choices else {"type": "string"}


def number(least: float | None = None, most: float | None = None, kind: str = "number") -> Schema:
    """Describe a number within bounds."""
    bounds = {"minimum": least, "maximum": most}
    return {"type": kind, **{name: value for name, value in bounds.items() if value is not None}}


def whole(least: int = 0, most: int | None = None) -> Schema:
    """Describe a whole number."""
    return number(least, most, "integer")


def listed(item: Schema) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": item}


def named(value: Schema, *names: str) -> Schema:
    """Describe a mapping from names to values: from any, or from `names`."""
    if names:
        return {"type": "object", "properties": dict.fromkeys(names, value), "additionalProperties": False}
    return {"type": "object", "additionalProperties": value}


def identified(value: Schema) -> Schema:
    """Describe a mapping from ids to values."""
    return {"type": "object", "propertyNames": {"pattern": f"^{IDENTIFIER.pattern}$"}, "additionalProperties": value}


def fields(known: Mapping[str, Schema], required: Sequence[str] = ()) -> Schema:
    """Describe a mapping with known keys."""
    return {
        "type": "object", "properties": dict(known), "required": list(required), "additionalProperties": False,
    }  # fmt: skip


def either(*kinds: Schema) -> Schema:
    """Describe a value of one of several kinds."""
    return {"anyOf": list(kinds)}


TEXT, SHARE, FLAG = text(), number(0, 1), {"type": "boolean"}
MOMENT: Schema = {"type": "string", "description": "2018-03-31 or 2018-03-31T18:00:00Z"}
TIME_OF_DAY: Schema = {"type": "string", "pattern": r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$"}
CONTENT = named(named(TEXT))
RULE: Schema = {
    "type": "string",
    "description": "SQL: facts as of now, context, channel, known, persona, age_days(view)",
}
DATES = {"starts": MOMENT, "ends": MOMENT}


def catalogue_schema() -> dict[str, Any]:
    """Return the schema; the names of stages and members are those of the feature contract."""
    columns = Columns()
    members = [member for names in columns.layout.dimensions.values() for member in names]
    sections = {**_frame(), **_offers(members, columns.vocabulary("stage")), **_policies()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Catalogue of a next-best-action engine",
        **fields({name: sections[name] for name in (*REQUIRED, *OPTIONAL)}, REQUIRED),
    }


def _frame() -> dict[str, Schema]:
    """Describe what actions and policies refer to."""
    return {
        "currency": TEXT,
        "locales": listed(TEXT),
        "time_zone": text(*known_zones()),
        "expires_minutes": number(0),
        "least_priority": number(),
        "fallback": TEXT,
        "channels": identified(identified(whole(1))),
        "context": identified(either(text("number"), listed(TEXT))),
        "groups": either(listed(TEXT), identified(fields(DATES))),
        "purposes": listed(TEXT),
        "personas": identified(RULE),
        "experiment": fields(
            {
                "id": TEXT, "salt": {"type": "string", "maxLength": 64}, "arms": named(SHARE, *ARMS),
                "exploration": named(SHARE, *EXPLORATION_ARMS), "holdouts": named(SHARE, *ISSUES),
            },
            ("id", "salt", "arms"),
        ),
        "exploration": fields(
            {
                "strategy": text(*STRATEGIES), "parameter": number(0), "prior_positives": number(0.1, 1e6),
                "half_life_days": number(0.01, 3650),
                "ramp": fields({"from": SHARE, "positives": number(1, 1e9), "channels": listed(TEXT)}),
            },
            ("strategy",),
        ),
    }  # fmt: skip


def _offers(members: Sequence[str], stages: Sequence[str]) -> dict[str, Schema]:
    """Describe issues and actions."""
    form = {"placements": listed(TEXT), "cost": number(0), **DATES}
    forms = named(fields(form, ("placements",)))
    shared = {
        "group": TEXT, "value": number(0), "cost": number(0), "lever": number(0), "prior": SHARE,
        "scoring": text(*Scoring), "campaign_type": text(*CAMPAIGN_TYPES), "window_days": number(0),
        "marketing": FLAG, "purpose": TEXT, "may_be_unlogged": FLAG, "success": TEXT,
        "default_outcome": text(*DEFAULT_OUTCOMES), "content": CONTENT, "positive": text(*POSITIVES), "ramp": FLAG,
        "treatments": forms, "offer": fields({"coupons": number(0), "breadth": number(0)}), **DATES,
    }  # fmt: skip
    issue = {
        **shared, "threshold": SHARE, "factors": listed(text(*FACTORS)), "context_weights": named(number(0)),
        "propensity": text(*ESTIMATES), "stages": named(number(0), *stages),
    }  # fmt: skip
    action = {
        **shared, "name": either(TEXT, named(TEXT)), "issue": text(*ISSUES), "member": text(*members),
        "channels": listed(TEXT), "mandatory": FLAG,
    }  # fmt: skip
    return {"issues": named(fields(issue), *ISSUES), "actions": identified(fields(action, ("name", "issue")))}


def _policies() -> dict[str, Schema]:
    """Describe engagement and contact policy, and quotas."""
    scope = either(TEXT, {**named(TEXT), "minProperties": 1, "maxProperties": 1})
    where = {"scope": scope, "channels": listed(TEXT)}
    window = {"days": number(1 / 1440, CONTACTS_DAYS), "calendar": text(*CALENDAR)}
    return {
        "rules": identified(
            fields(
                {"stage": text(*STAGES), "scope": scope, "rule": RULE, "reason": TEXT, "why": TEXT,
                 "placements": listed(TEXT)},
                ("stage", "rule", "reason"),
            )
        ),
        "caps": identified(
            fields(
                {**where, **window, "limit": whole(0, MOST_ROOM - 1), "reason": TEXT, "counted": text(*CONTACT_KINDS),
                 "unit": text(*UNITS), "placements": listed(TEXT)},
                ("limit", "reason"),
            )
        ),
        "cool_offs": identified(
            fields({**where, **window, "after": text(*RESPONSES), "reason": TEXT}, ("after", "reason"))
        ),
        "quiet_hours": identified(
            fields({**where, "from": TIME_OF_DAY, "to": TIME_OF_DAY, "reason": TEXT}, ("from", "to", "reason"))
        ),
        "reservation_minutes": named(number(1, CONTACTS_DAYS * 1440)),
        "quotas": identified(
            fields({"scope": scope, "least": whole(), "most": whole(), "placement": TEXT}, ("scope",))
        ),
    }  # fmt: skip

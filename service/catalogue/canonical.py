"""A catalogue as plain data, and its version: a digest of the content, whatever the file looks like."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from typing import Any

from service.decision.model import Action, Catalogue, Exploration, Rule


def to_jsonable(catalogue: Catalogue) -> dict[str, Any]:
    """Return the catalogue as JSON-able data: what `GET /v1/catalogue` answers."""
    return {
        "version": catalogue.version,
        "currency": catalogue.currency,
        "default_locale": catalogue.default_locale,
        "expires_seconds": catalogue.expires_seconds,
        "least_priority": _finite(catalogue.least_priority),
        "fallback": catalogue.fallback or None,
        "channels": list(catalogue.channels),
        "placements": [asdict(placement) for placement in catalogue.placements],
        "context": [{"name": f.name, "values": list(f.vocabulary) or None} for f in catalogue.context],
        "experiment": {
            "id": catalogue.experiment.id,
            "salt": catalogue.experiment.salt,
            "arms": _shares(catalogue.experiment.arms),
            "exploration": _shares(catalogue.experiment.exploration),
            "holdouts": _shares(catalogue.experiment.holdouts),
        },
        "exploration": _exploration(catalogue.exploration),
        "issues": {
            issue: {
                "factors": list(factors),
                "threshold": catalogue.thresholds.get(issue, 0.0),
                "context_weights": _weights(catalogue, issue),
                "propensity": catalogue.estimates.get(issue, "propensity"),
                "stages": {s: weight for (name, s), weight in sorted(catalogue.stage_weights.items()) if name == issue},
            }
            for issue, factors in sorted(catalogue.arbitration.items())
        },
        "quotas": [asdict(quota) for quota in catalogue.quotas],
        "actions": [_action(action) for action in catalogue.actions],
        "treatments": [
            {"id": t.id, "action_id": t.action_id, "channel": t.channel, "placements": list(t.placements),
             "cost": t.cost, "content": {locale: dict(fields) for locale, fields in t.content.items()},
             "starts_at": _finite(t.starts_at), "ends_at": _finite(t.ends_at)}
            for t in catalogue.treatments
        ],
        "time_zone": catalogue.zone.name,
        "personas": [{"name": persona.name, "rule": persona.text} for persona in catalogue.personas],
        "rules": [_rule(rule) for rule in catalogue.rules],
        "caps": [_lists(asdict(cap)) for cap in catalogue.caps],
        "quiet_hours": [_lists(asdict(quiet)) for quiet in catalogue.quiet_hours],
        "reservations": dict(catalogue.reservations),
    }  # fmt: skip


def version_of(catalogue: Catalogue) -> str:
    """Return 12 hex digits of the SHA-256 of the content."""
    content = {**to_jsonable(catalogue), "version": None}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _action(action: Action) -> dict[str, Any]:
    return {
        **asdict(action),
        "scoring": action.scoring.value,
        **{name: _finite(getattr(action, name)) for name in ("starts_at", "ends_at", "offer_coupons", "offer_breadth")},
    }


def _exploration(exploration: Exploration) -> dict[str, Any]:
    ramp = exploration.ramp
    told = None if ramp is None else {**asdict(ramp), "channels": list(ramp.channels)}
    return {**asdict(exploration), "ramp": told}


def _shares(shares: tuple[tuple[str, float], ...]) -> list[dict[str, Any]]:
    return [{"name": name, "share": share} for name, share in shares]


def _weights(catalogue: Catalogue, issue: str) -> dict[str, float]:
    return {channel: weight for (channel, name), weight in catalogue.context_weights.items() if name == issue}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id, "stage": rule.stage.name.lower(), "scope": rule.scope, "scope_id": rule.scope_id,
        "rule": rule.text, "reason": rule.reason, "why": rule.why, "placements": list(rule.placements),
    }  # fmt: skip


def _lists(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

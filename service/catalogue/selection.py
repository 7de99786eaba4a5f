"""The sections of a catalogue on how slots are filled: `experiment`, `exploration` and `quotas`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from service.catalogue.document import Document, Place
from service.catalogue.problems import suggest
from service.decision.experiment import ARMS, EXPLORATION_ARMS, NBA
from service.decision.model import ISSUES, Action, Experiment, Exploration, Placement, Quota, Ramp

STRATEGIES = ("none", "epsilon_greedy", "softmax", "thompson")
PARAMETERS = {"epsilon_greedy": (0.0, 1.0), "softmax": (1e-9, math.inf)}
"""Least and greatest parameter of the strategies that have one: an epsilon, a temperature."""
Shares = tuple[tuple[str, float], ...]


def read_experiment(document: Document, place: Place | None) -> Experiment:
    """Read the section `experiment`; without one everyone is in `nba`."""
    if place is None:
        return Experiment("", "", ((NBA, 1.0),))
    fields = document.fields(place, ("id", "salt", "arms"), ("exploration", "holdouts"))
    salt = document.text(fields.get("salt"))
    if len(salt.encode()) > 64:
        document.note(fields["salt"], "the salt is longer than 64 bytes", "shorten it")
    return Experiment(
        document.text(fields.get("id")),
        salt,
        _arms(document, fields.get("arms"), ARMS),
        _arms(document, fields.get("exploration"), EXPLORATION_ARMS),
        _shares(document, fields.get("holdouts"), ISSUES, "issue"),
    )


def _arms(document: Document, place: Place | None, known: Sequence[str]) -> Shares:
    arms = _shares(document, place, known, "arm")
    total = sum(share for _, share in arms)
    if place is not None and abs(total - 1.0) > 1e-9:
        document.note(place, f"the shares sum to {total:g}", "make them sum to 1")
    return arms


def _shares(document: Document, place: Place | None, known: Sequence[str], what: str) -> Shares:
    shares = []
    for name, inner in document.entries(place):
        if name not in known:
            document.note(inner, f"unknown {what} {name!r}", suggest(name, known, "one of " + ", ".join(known)))
        shares.append((name, document.number(inner, 0.0, 0, 1)))
    return tuple(sorted(shares))


def read_exploration(document: Document, place: Place | None, channels: Sequence[str]) -> Exploration:
    """Read the section `exploration`; without one the best are shown."""
    if place is None:
        return Exploration("none")
    fields = document.fields(place, ("strategy",), ("parameter", "prior_positives", "half_life_days", "ramp"))
    strategy = document.text(fields.get("strategy"), "none", STRATEGIES)
    bounds = PARAMETERS.get(strategy)
    if bounds and "parameter" not in fields:
        document.note(place, f"{strategy} needs a parameter", "add parameter: an epsilon or a temperature")
    if not bounds and "parameter" in fields:
        document.note(fields["parameter"], f"{strategy} has no parameter", "remove it")
    return Exploration(
        strategy,
        document.number(fields.get("parameter"), bounds[0], *bounds) if bounds else 0.0,
        document.number(fields.get("prior_positives"), 1.0, 0.1, 1e6),
        document.number(fields.get("half_life_days"), 28.0, 0.01, 3650),
        _ramp(document, fields.get("ramp"), channels),
    )


def _ramp(document: Document, place: Place | None, channels: Sequence[str]) -> Ramp | None:
    if place is None:
        return None
    fields = document.fields(place, optional=("from", "positives", "channels"))
    return Ramp(
        document.number(fields.get("from"), 0.02, 0, 1),
        document.number(fields.get("positives"), 200.0, 1, 1e9),
        document.texts(fields["channels"], channels) if "channels" in fields else (),
    )


def read_quotas(
    document: Document, place: Place | None, placements: Sequence[Placement], actions: Sequence[Action]
) -> tuple[Quota, ...]:
    """Read the section `quotas`, in the order of ids."""
    known = {
        "issue": sorted({action.issue for action in actions}),
        "group": sorted({action.group for action in actions if action.group}),
    }
    quotas = []
    for quota_id, inner in document.identified(place):
        fields = document.fields(inner, ("scope",), ("least", "most", "placement"))
        scope = document.fields(fields["scope"], optional=tuple(known)) if "scope" in fields else {}
        if len(scope) != 1:
            document.note(inner, "a quota is about one issue or group", 'write scope: {issue: upsell} or {group: "*"}')
            continue
        ((kind, which),) = scope.items()
        quota = Quota(
            quota_id,
            kind,
            document.text(which, "", [*known[kind], "*"]),
            document.integer(fields.get("least"), 0),
            document.integer(fields.get("most"), 1_000),
            document.text(fields.get("placement"), "", [p.id for p in placements]),
        )
        quotas.append(quota)
        _check(document, inner, fields, quota)
    return tuple(sorted(quotas, key=lambda quota: quota.id))


def _check(document: Document, place: Place, fields: dict[str, Place], quota: Quota) -> None:
    if "least" not in fields and "most" not in fields:
        document.note(place, "a quota says neither least nor most", "add least: n or most: n")
    if quota.least > quota.most:
        document.note(fields["least"], f"least {quota.least} is more than most {quota.most}", "lower least")
    if quota.least and quota.scope_id == "*":
        document.note(fields["least"], "at least of each cannot be kept", "name one issue or group, or say most")

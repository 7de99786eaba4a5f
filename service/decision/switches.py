"""What can be paused, and what a pause stops. Knows no store and not who paused it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.decision.channel_plan import ChannelPlan
from service.decision.model import Catalogue, Request

ALL = "all"
SCOPES = (ALL, "channel", "placement", "issue", "group", "action", "treatment")

Paused = frozenset[tuple[str, str]]
"""(scope, id) of the switches in force; scope `all` has the one id `all`."""


def switchable(catalogue: Catalogue) -> Mapping[str, frozenset[str]]:
    """Return what can be switched: scope -> ids."""
    actions = catalogue.actions
    return {
        ALL: frozenset((ALL,)),
        "channel": frozenset(catalogue.channels),
        "placement": frozenset(placement.id for placement in catalogue.placements),
        "issue": frozenset(action.issue for action in actions),
        "group": frozenset(action.group for action in actions),
        "action": frozenset(action.id for action in actions),
        "treatment": frozenset(treatment.id for treatment in catalogue.treatments),
    }


def is_paused(plan: ChannelPlan, paused: Paused) -> NDArray[np.bool_]:
    """Return (m,) which candidates of a channel a pause takes out."""
    if any(scope == ALL for scope, _ in paused) or ("channel", plan.channel) in paused:
        return np.ones(len(plan.candidates), dtype=np.bool_)
    is_out = np.zeros(len(plan.candidates), dtype=np.bool_)
    texts = (("issue", plan.issues), ("group", plan.groups), ("action", plan.action_ids))
    for kind, ids in (*texts, ("treatment", np.array(plan.treatment_ids, dtype=np.str_))):
        names = [name for scope, name in paused if scope == kind]
        if names:
            is_out |= np.isin(ids, names)
    return is_out


def without_paused(plan: ChannelPlan, request: Request, paused: Paused) -> Request:
    """Return the request with no slot in a placement that is paused."""
    names = {name for scope, name in paused if scope == "placement"}
    if not names:
        return request
    asked = request.placements or plan.placements
    return replace(request, placements=tuple((name, 0 if name in names else count) for name, count in asked))

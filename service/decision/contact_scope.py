"""What a contact policy is about: on which counter something shown counts. Knows scopes; no time and no number."""

from __future__ import annotations

from dataclasses import dataclass

from service.decision.model import Cap, QuietHours, Showing

Policy = Cap | QuietHours
_FIELD = {"issue": "issue", "group": "group", "action": "action_id", "treatment": "treatment_id"}


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter of one policy: the policy's position, and the issue, group, action or treatment ("" for all)."""

    policy: int
    key: str


def counter_key(policy: Policy, showing: Showing) -> str | None:
    """Return the key of the counter on which something shown counts for a policy, or None if it is not about it."""
    if policy.scope == "all":
        return ""
    if policy.scope == "marketing":
        return "" if showing.is_marketing else None
    key: str = getattr(showing, _FIELD[policy.scope])
    # What needs no consent is always available: it is bound only where a policy names it.
    is_bound = showing.is_marketing if policy.scope_id == "*" else policy.scope_id == key
    return key if is_bound else None


def counts(policy: Policy, showing: Showing) -> bool:
    """Say whether a contact is of the channels and placements that a policy counts; quiet hours count nothing."""
    if not isinstance(policy, Cap):
        return False
    is_there = not policy.channels or showing.channel in policy.channels
    return is_there and (not policy.placements or showing.placement in policy.placements)


def binds(policy: Policy, channel: str) -> bool:
    """Say whether a policy holds on a channel."""
    return not policy.channels or channel in policy.channels

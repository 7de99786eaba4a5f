"""The benchmark's catalogue, made from the one in use: 60 candidates on `app`, of which most households may have 50.

The terms stay: channels, issues, experiment and every cap, so that all of it is counted; exploration is by softmax, and
in one row of the table as shipped. The caps' limits
are raised so that none is ever full, since a household that may see nothing more would be cheap to decide for.
"""

from __future__ import annotations

from typing import Any

import yaml

from features.contract import AISLES

UPSELLS, CROSS_SELLS, SERVICES = 28, 28, 4
CAP_LIMIT = 30_000
SOFTMAX = {"strategy": "softmax", "parameter": 0.1}
SHOWN_WITH_RULES = "for customers like you"


def widen(catalogue: str, *, is_capped: bool = True, explores_as_shipped: bool = False) -> str:
    """Return the catalogue's text with the benchmark's actions and rules.

    Args:
        is_capped: False leaves the caps out.
        explores_as_shipped: False explores by softmax.
    """
    document = yaml.safe_load(catalogue)
    if not explores_as_shipped:
        document["exploration"] = dict(SOFTMAX)
    services = {
        name: action for name, action in document["actions"].items() if action["issue"] == "service"
    }  # all channels but `app` count for nothing here
    kept = [name for name, action in services.items() if "app" in action.get("channels", ["app"])][:SERVICES]
    document["actions"] = {**_marketing(document["groups"]), **{name: services[name] for name in kept}}
    document["fallback"] = kept[0]
    document["rules"] = {**_rules(document["rules"]), **_own_rules(document["actions"])}
    caps = document.get("caps", {}) if is_capped else {}
    for cap in caps.values():
        if "limit" in cap:
            cap["limit"] = CAP_LIMIT
    document["caps"] = {name: cap for name, cap in caps.items() if "limit" in cap}
    for section in ("quotas", "quiet_hours", "cool_offs"):  # they close what should be open
        document.pop(section, None)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _marketing(groups: list[str]) -> dict[str, Any]:
    wanted = [("upsell", aisle) for aisle in AISLES[:UPSELLS]] + [("cross_sell", a) for a in AISLES[-CROSS_SELLS:]]
    return {
        f"{issue}_{aisle}": {
            "issue": issue, "group": groups[i % len(groups)], "member": aisle, "name": aisle.replace("_", " "),
            "value": 2.0 + i % 7 / 2,
        }
        for i, (issue, aisle) in enumerate(wanted)
    }  # fmt: skip


def _rules(rules: dict[str, Any]) -> dict[str, Any]:
    """Keep what binds whole issues; let those who buy in an aisle, and those who do not, have both offers."""
    kept = {name: rule for name, rule in rules.items() if rule["scope"].get("issue") in ("upsell", "cross_sell")}
    kept["upsell_current_buyer"]["rule"] = "days_since_aisle_purchase <= 364"
    kept["cross_sell_new_to_aisle"]["rule"] = (
        "known AND (days_since_aisle_purchase IS NULL OR days_since_first_seen > 7)"
    )
    return kept


def _own_rules(actions: dict[str, Any]) -> dict[str, Any]:
    """One rule of two facts for each action about an aisle."""
    return {
        f"own_{name}": {
            "stage": "applicability",
            "scope": {"action": name},
            "rule": f"COALESCE(aisle_spend_h364__{action['member']}, 0) < {2000 + 10 * i} OR baskets_count < {i + 3}",
            "reason": f"buys more than enough there: {name}",
            "why": SHOWN_WITH_RULES,
        }
        for i, (name, action) in enumerate(actions.items())
        if "member" in action
    }

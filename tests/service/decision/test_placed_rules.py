"""Rules that bind in one placement alone: they close it to the action, and leave the action to the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.catalogue.loader import CatalogueError, load_catalogue
from service.decision.engine import CompiledCatalogue, compile_catalogue, decide
from service.decision.model import Request
from service.decision.trace import trace
from tests.service.decision.worlds import COLUMNS, NOW, SMALL, described, keys_for

RULE = (
    "  at_the_side: {{stage: suitability, scope: {{issue: service}}, placements: [{where}], rule: {rule}, "
    "reason: not there}}\n"
)
REGULAR = {"facts": {"baskets_count": 9, "first_seen_at": 300}, "shopped_days_ago": [1, 8, 15]}


def catalogue_with(tmp_path: Path, where: str, rule: str) -> CompiledCatalogue:
    path = tmp_path / "c.yaml"
    text = SMALL.read_text(encoding="utf-8").replace("rules:\n", "rules:\n" + RULE.format(where=where, rule=rule), 1)
    path.write_text(text, encoding="utf-8")
    return compile_catalogue(load_catalogue(path), COLUMNS)


def shown(catalogue: CompiledCatalogue, placements: tuple[tuple[str, int], ...]) -> dict[str, list[str]]:
    """Return placement -> actions, and under `out` who a rule kept out."""
    request = Request("app", placements, issues=("service",))
    decisions = decide(described(REGULAR), request, catalogue, None, NOW, keys_for(1))
    found: dict[str, list[str]] = {}
    for entry in trace(decisions, catalogue, 0):
        if entry["stage"] == "ranked":
            found.setdefault(entry["placement"], []).append(entry["action_id"])
        elif entry.get("rule") == "at_the_side":
            found.setdefault("out", []).append(entry["action_id"])
    return found


def test_it_closes_its_placement_alone(tmp_path: Path) -> None:
    """Who a placement's rule keeps out of it still gets the other placements."""
    both = (("home", 1), ("side", 1))
    assert shown(catalogue_with(tmp_path, "side", "baskets_count > 5"), both) == {"home": ["help"], "side": ["hours"]}
    assert shown(catalogue_with(tmp_path, "side", "baskets_count > 10"), both) == {"home": ["help"]}
    assert shown(catalogue_with(tmp_path, "home", "baskets_count > 10"), both) == {"side": ["help"]}


def test_kept_out_of_all_that_is_asked_is_excluded_by_the_rule(tmp_path: Path) -> None:
    """Where every placement that is asked for is closed, the candidate ends at the rule, with its reason."""
    closed = catalogue_with(tmp_path, "side", "baskets_count > 10")
    assert shown(closed, (("side", 1),)) == {"out": ["help", "hours"]}
    assert shown(closed, (("home", 1),)) == {"home": ["help"]}
    assert shown(catalogue_with(tmp_path, "side, home", "baskets_count > 10"), ()) == {"out": ["help", "hours"]}


def test_an_unknown_placement_is_named(tmp_path: Path) -> None:
    """A misspelt placement is a mistake with its place and the nearest name."""
    with pytest.raises(CatalogueError, match=r"rules.at_the_side.placements\[0\]: 'sid' is not known here; did you"):
        catalogue_with(tmp_path, "sid", "known")

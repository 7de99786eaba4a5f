"""What changes between two catalogues: each change once, in words, and how many customers it reaches."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.catalogue.difference import Change, difference, effect
from service.catalogue.loader import load_catalogue
from service.catalogue.population import Population
from service.decision.engine import CompiledCatalogue, compile_catalogue
from tests.service.decision.worlds import COLUMNS, NOW, SMALL, random_batch

TEXT = SMALL.read_text(encoding="utf-8")


def changed(tmp_path: Path, *replaced: tuple[str, str]) -> CompiledCatalogue:
    text = TEXT
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return compile_catalogue(load_catalogue(path, COLUMNS), COLUMNS)


@pytest.fixture(scope="module")
def before() -> CompiledCatalogue:
    return compile_catalogue(load_catalogue(SMALL, COLUMNS), COLUMNS)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("currency: USD", "currency: USD", []),
        ("value: 10, name", "value: 11, name", ["actions.fish.value: 10.0 -> 11.0"]),
        ("limit: 2, days: 7", "limit: 3, days: 7", ["caps.two_a_week.limit: 2 -> 3"]),
        ("    threshold: 0.02", "    threshold: 0.03", ["issues.cross_sell.threshold: 0.02 -> 0.03"]),
        ("arms: {nba: 1.0}", "arms: {nba: 0.9, holdout: 0.1}",
         ["experiment.arms.nba.share: 1.0 -> 0.9", "experiment.arms.holdout: added, {\"share\": 0.1}"]),
        ("scope: {group: sweet}, rule", "scope: {issue: service}, rule",
         ["rules.no_sweets_for_large_baskets.scope: \"group\" -> \"issue\" (binds 4 actions before, 2 after)",
          "rules.no_sweets_for_large_baskets.scope_id: \"sweet\" -> \"service\" (binds 4 actions before, 2 after)"]),
        ("context: {device: [ios, web]}", "context: {device: [web, ios]}",
         ["context.device.values: [\"ios\", \"web\"] -> [\"web\", \"ios\"]"]),
    ],
)  # fmt: skip
def test_each_change_in_words(
    tmp_path: Path, before: CompiledCatalogue, old: str, new: str, expected: list[str]
) -> None:
    """A change is one line with its path, what was and what is, and for a rule how many actions it binds."""
    after = changed(tmp_path, (old, new))
    assert [str(change) for change in difference(before.catalogue, after.catalogue)] == expected


def test_what_comes_and_goes(tmp_path: Path, before: CompiledCatalogue) -> None:
    """An action that is renamed goes with its treatments and comes with others; the way back is the mirror image."""
    after = changed(tmp_path, ("  help: {", "  helps: {"))
    found = {(c.path, c.kind) for c in difference(before.catalogue, after.catalogue)}
    assert found == {
        ("actions.help", "removed"), ("actions.helps", "added"), ("treatments.help.app", "removed"),
        ("treatments.helps.app", "added"), ("treatments.help.email", "removed"), ("treatments.helps.email", "added"),
    }  # fmt: skip
    back = difference(after.catalogue, before.catalogue)
    assert {(c.path, {"added": "removed", "removed": "added"}[c.kind]) for c in back} == found


def test_the_order_of_personas_is_a_change(tmp_path: Path) -> None:
    """Personas in another order decide otherwise, so the order is told."""
    one, other = (
        changed(tmp_path, ("rules:\n", f"personas: {{{order}}}\nrules:\n"))
        for order in ("a: known, b: spend_h28 > 5", "b: spend_h28 > 5, a: known")
    )
    assert difference(one.catalogue, other.catalogue) == [
        Change("personas (order)", "changed", ["a", "b"], ["b", "a"])
    ]  # fmt: skip


def test_effect_counts_who_sees_something_else(tmp_path: Path, before: CompiledCatalogue) -> None:
    """Nobody sees a difference where there is none; closing an action to all takes it from exactly who saw it."""
    batch = random_batch(300, 2)
    population = Population(batch.customer_ids, batch.facts, batch.view_times)
    same = effect(before, before, (None, None), population, "app", NOW)
    assert (same.customers, same.differ, same.gained, same.lost) == (300, 0, {}, {})
    rule = "rules:\n  no_help: {stage: eligibility, scope: {action: help}, rule: baskets_count < 0, reason: never}\n"
    after = changed(tmp_path, ("rules:\n", rule))
    found = effect(before, after, (None, None), population, "app", NOW)
    assert set(found.lost) == {"help"}
    assert found.differ == found.lost["help"] > 0
    back = effect(after, before, (None, None), population, "app", NOW)
    assert (back.gained, back.lost) == (found.lost, found.gained)

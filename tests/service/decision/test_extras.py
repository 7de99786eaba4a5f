"""What rules read beside the columns: the age of a view, the local time, the persona; the same for one and for many."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.layout import SECONDS_PER_DAY
from features.matrix import mask_stale
from service.catalogue.loader import CatalogueError, load_catalogue
from service.decision.engine import CompiledCatalogue, compile_catalogue, decide
from service.decision.model import Request, Stage
from service.decision.trace import persona_of, trace
from tests.service.decision.worlds import COLUMNS, LAYOUT, NOW, SMALL, TableScorer, keys_for, one_of, random_batch

VIEWS = [view.name for view in LAYOUT.views]
PERSONAS = """
time_zone: America/Santiago
personas:
  fresh_lover: {fresh_lover}
  big_spender: spend_h364 >= 5
  at_night: hour(decision_time) >= 20
rules:
"""
RULES = """
  fresh_facts: {stage: suitability, scope: {action: fish}, rule: age_days(purchases) < 30, reason: too long ago}
  by_day: {stage: suitability, scope: {action: help}, reason: not now,
    rule: "hour(decision_time) = 21 AND isodow(decision_time) = 5"}
  for_spenders: {stage: suitability, scope: {action: hours}, rule: "persona IN ('big_spender')", reason: no spender}
"""


def catalogue_with(
    tmp_path: Path, personas: str = "aisle_spend_h364__produce > 10", rules: str = RULES
) -> CompiledCatalogue:
    text = SMALL.read_text(encoding="utf-8")
    head = PERSONAS.replace("{fresh_lover}", personas)
    path = tmp_path / "c.yaml"
    path.write_text(text.replace("rules:\n", head.lstrip() + rules.lstrip("\n"), 1), encoding="utf-8")
    return compile_catalogue(load_catalogue(path), COLUMNS)


@pytest.fixture
def catalogue(tmp_path: Path) -> CompiledCatalogue:
    return catalogue_with(tmp_path)


def test_personas_first_match_wins(catalogue: CompiledCatalogue) -> None:
    """A customer's persona is the first in the catalogue's order whose rule is TRUE; none fits: NULL."""
    batch = random_batch(200, 3)
    decisions = decide(batch, Request("app"), catalogue, TableScorer(8), NOW - 3 * 3600, keys_for(200))
    as_of, index = decisions.as_of, COLUMNS.index
    fresh = as_of[index["aisle_spend_h364__produce"]] > 10
    spends = as_of[index["spend_h364"]] >= 5
    told = [persona_of(decisions, catalogue, i) for i in range(200)]
    # NOW is 00:00 UTC: three hours before that it is 18:00 in Santiago, so nobody is there "at night".
    assert told == ["fresh_lover" if f else "big_spender" if s else None for f, s in zip(fresh, spends, strict=True)]
    assert len(set(told)) == 3
    hours = [catalogue.catalogue.treatments[t].id for t in decisions.candidates].index("hours.app")
    is_out = decisions.stages[:, hours] == Stage.SUITABILITY
    assert is_out.tolist() == [persona != "big_spender" for persona in told]


def test_rules_read_persona_age_and_time(catalogue: CompiledCatalogue) -> None:
    """A rule on age, time or persona excludes who is not TRUE, and the trace shows what it read."""
    batch = random_batch(3, 5, missing=0.0)
    times = batch.view_times.copy()
    times[VIEWS.index("purchases")] = [NOW - 29 * SECONDS_PER_DAY, NOW - 31 * SECONDS_PER_DAY, np.nan]
    decisions = decide(replace(batch, view_times=times), Request("app"), catalogue, None, NOW, keys_for(3))
    for i, age in enumerate((29.0, 31.0, None)):
        entries = {e["action_id"]: e for e in trace(decisions, catalogue, i, times[:, i])}
        if entries["fish"].get("rule") == "fresh_facts":
            assert entries["fish"]["facts"] == {"age_days(purchases)": age}
            assert set(entries["fish"]["views"]) == {"purchases"}
        assert (entries["fish"].get("rule") == "fresh_facts") <= (age != 29.0)
        # Friday 21:00 in Santiago is Saturday 00:00 UTC in summer time (UTC-3).
        assert entries["help"]["stage"] not in ("suitability",)
    later = decide(replace(batch, view_times=times), Request("app"), catalogue, None, NOW + 3600, keys_for(3))
    help_entry = next(e for e in trace(later, catalogue, 0) if e["action_id"] == "help")
    assert (help_entry["rule"], help_entry["facts"]["hour(decision_time)"]) == ("by_day", 22.0)
    assert dt.datetime.fromtimestamp(NOW, dt.UTC).isoweekday() == 6


def test_one_and_many_give_the_same(catalogue: CompiledCatalogue) -> None:
    """Extras of a batch of n are, bit for bit, those of n batches of one."""
    batch = random_batch(40, 9)
    rng = np.random.default_rng(0)
    batch = replace(batch, view_times=NOW - rng.exponential(30 * SECONDS_PER_DAY, batch.view_times.shape))
    as_of = COLUMNS.as_of(batch.facts, NOW)
    many = catalogue.extras.fill(batch, Request("app"), as_of, NOW)
    for i in range(40):
        one = replace(one_of(batch, i), view_times=np.ascontiguousarray(batch.view_times[:, i : i + 1]))
        alone = catalogue.extras.fill(one, Request("app"), COLUMNS.as_of(one.facts, NOW), NOW)
        assert alone.tobytes() == np.ascontiguousarray(many[:, i : i + 1]).tobytes()


def test_only_what_rules_read_is_laid_out(tmp_path: Path, catalogue: CompiledCatalogue) -> None:
    """Parts of the moment and ages that no rule reads cost nothing."""
    plain = compile_catalogue(load_catalogue(SMALL), COLUMNS)
    assert plain.extras.names == ("channel", "known", "device")
    assert catalogue.extras.names[3:] == (
        "hour(decision_time)", "isodow(decision_time)", "age_days(purchases)", "persona",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("personas", "rules", "path", "remedy"),
    [
        ("aisle_spend_h364 > 20", RULES, "personas.fresh_lover", "did you mean"),
        ("persona = 'x'", RULES, "personas.fresh_lover", ""),
        ("spend_h364 >", RULES, "personas.fresh_lover", "allowed are"),
        ("known", RULES.replace("('big_spender'", "('big_spendr'"), "rules.for_spenders.rule",
         "did you mean 'big_spender'?"),
        ("known", RULES.replace("age_days(purchases)", "age_days(purchase)"), "rules.fresh_facts.rule",
         "did you mean 'purchases'?"),
        ("known", RULES.replace("hour(", "minute("), "rules.by_day.rule", "allowed are"),
    ],
)  # fmt: skip
def test_mistakes_in_personas(tmp_path: Path, personas: str, rules: str, path: str, remedy: str) -> None:
    """A misspelt persona, view or part of the moment is named with its place and what to do."""
    with pytest.raises(CatalogueError) as caught:
        catalogue_with(tmp_path, personas, rules)
    [problem] = caught.value.problems
    assert problem.path == path
    assert remedy in problem.remedy


def test_stale_and_future_views_are_flagged_and_have_no_value() -> None:
    """Of 1,000 customers with views written at any time exactly those too old or ahead are flagged and masked."""
    batch, rng = random_batch(1_000, 1, missing=0.0), np.random.default_rng(4)
    times = NOW + rng.normal(-200, 600, (len(VIEWS), 1_000)) * SECONDS_PER_DAY
    times[rng.random(times.shape) < 0.1] = np.nan
    limits = np.array([view.max_age_days for view in LAYOUT.views])[:, None]
    expected = (times < NOW - limits * SECONDS_PER_DAY) | (times > NOW + 300)
    facts = batch.facts.copy()
    assert (mask_stale(LAYOUT, facts, times, NOW) == expected).all()
    assert expected.any(axis=1).all()
    for v, view in enumerate(LAYOUT.views):
        rows = np.concatenate([np.arange(*LAYOUT.slices[f.name].indices(LAYOUT.width)) for f in view.facts])
        assert np.isnan(facts[rows][:, expected[v]]).all()
        np.testing.assert_array_equal(facts[rows][:, ~expected[v]], batch.facts[rows][:, ~expected[v]])

"""A policy is judged on a log that the core made, with response rates that are known."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.matrix import Columns
from service.catalogue.loader import load_catalogue
from service.decision.engine import compile_catalogue, decide
from service.decision.model import Catalogue, Request
from service.settings import CHECKOUT
from tests.service.decision.worlds import NOW, keys_for
from tests.training.core_log import DAY, LOGGED, RATES, CoreLog, catalogue_at, write_log
from training.evaluate_policy import PolicyEvaluation, evaluate_policy, read_decisions
from training.judged_log import alone
from training.off_policy import CannotAnswer

BETTER = {"cake": 60.0, "fish": 0.2, "hours": 0.5}
"""Values under which what is liked best comes first."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def log(folder: Path) -> CoreLog:
    return write_log(folder)


@pytest.fixture(scope="module")
def better(folder: Path, log: CoreLog) -> Catalogue:
    path = catalogue_at(
        folder / "better.yaml", {"exploration": {"strategy": "epsilon_greedy", "parameter": 0.1}}, BETTER
    )
    return load_catalogue(path)


def truth(log: CoreLog, catalogue: Catalogue, repeats: int = 40) -> tuple[float, float]:
    """Return what a catalogue really earns a decision of two slots, and of the first, by playing it many times."""
    compiled = compile_catalogue(alone(catalogue), Columns())
    plan = compiled.plans["app"]
    rates = np.array([RATES.get(catalogue.actions[a].id, 0.0) for a in plan.actions])
    all_slots, first = [], []
    for k in range(repeats):
        keys = keys_for(len(log.batch.customer_ids), k)
        decisions = decide(log.batch, Request("app", (("home", 2),)), compiled, None, NOW, keys)
        all_slots.append(np.mean([sum(rates[c.candidate] for c in chosen) for chosen in decisions.chosen]))
        first.append((decisions.distributions[0] @ rates).mean())
    return float(np.mean(all_slots)), float(np.mean(first))


def test_the_estimates_hold_what_the_policy_really_earns(log: CoreLog, better: Catalogue):
    """For whole answers and for first slots the intervals of SNIPS and DR hold the true value, and it is better."""
    whole, first = truth(log, better)
    for first_slot, value in ((False, whole), (True, first)):
        found = evaluate_policy(
            log.lake.folder, better, None, lambda version: log.catalogue, as_of=NOW + 30 * DAY, first_slot=first_slot,
            resamples=300,
        )  # fmt: skip
        judged = found.by_issue["all"]
        for name in ("snips", "dr"):
            assert judged.estimates[name].low < value < judged.estimates[name].high
        assert judged.verdict == "better"
        assert judged.support.off_support < 1e-12
        assert abs(judged.support.mean_weight - 1.0) < 5 * judged.support.mean_weight_error


@pytest.fixture(scope="module")
def judged(log: CoreLog, better: Catalogue) -> PolicyEvaluation:
    """The better policy, judged once for all who look at it with their own eyes."""
    return evaluate_policy(
        log.lake.folder, better, None, lambda version: log.catalogue, as_of=NOW + 30 * DAY, resamples=20
    )


def test_issues_add_up_and_the_hold_out_is_left_out_with_its_number(log: CoreLog, judged: PolicyEvaluation):
    """The issues' IPS values sum to that of all; decisions of the hold-out are excluded and counted."""
    found = judged
    parts = [judged.estimates["ips"].value for issue, judged in found.by_issue.items() if issue != "all"]
    assert sum(parts) == pytest.approx(found.by_issue["all"].estimates["ips"].value, rel=1e-9)
    held = sum(row.arm == "holdout" for row in log.rows)
    assert found.by_issue["all"].support.excluded == {"held out": held}
    assert sum(found.arms.values()) == len(log.rows) - held
    assert set(found.arms) == {"nba", "random"}


def test_the_policy_of_the_log_has_the_probabilities_of_the_log(log: CoreLog):
    """Judged on its own arm, the logged catalogue has weight 1 in every slot, to the bit."""
    found = evaluate_policy(
        log.lake.folder, log.catalogue, None, lambda version: log.catalogue, as_of=NOW + 30 * DAY, resamples=20,
        arms=("nba",),
    )  # fmt: skip
    support = found.by_issue["all"].support
    assert support.largest_weight == 1.0
    assert support.mean_weight == 1.0
    assert found.by_issue["all"].gains["ips"].value == 0.0


def test_rewards_may_be_weighted_by_value(log: CoreLog, better: Catalogue, judged: PolicyEvaluation):
    """With `value`, a positive counts what the judged catalogue says the action is worth."""
    worth = evaluate_policy(
        log.lake.folder, better, None, lambda version: log.catalogue, reward="value", as_of=NOW + 30 * DAY, resamples=20
    )
    retention = [found.by_issue["retention"].estimates["ips"].value for found in (judged, worth)]
    assert retention[1] == pytest.approx(20.0 * retention[0], rel=1e-9)


def test_rows_that_may_not_be_used_are_counted_by_reason(log: CoreLog, better: Catalogue, tmp_path: Path):
    """Dry runs, reselected and degraded decisions and open windows are left out; unknown customers stay."""
    other = CoreLog(tmp_path, log.catalogue, customers=120, seed=5)
    request = Request("app", (("home", 1),))
    other.decide(request, 0.0)
    other.decide(request, 0.1, dry_run=True)
    other.decide(request, 0.2, reselected=True)
    other.decide(request, 0.3, degraded_reasons=("features_stale",))
    other.decide(request, 0.4, degraded_reasons=("cold_start",))
    other.close()
    found = evaluate_policy(
        other.lake.folder, better, None, lambda version: log.catalogue, as_of=NOW + 30 * DAY, resamples=20
    )
    excluded = found.by_issue["all"].support.excluded
    assert {name: excluded[name] for name in ("dry run", "selected again", "degraded")} == {
        "dry run": 120, "selected again": 120, "degraded": 120,
    }  # fmt: skip
    with pytest.raises(CannotAnswer, match="with an open response window"):
        evaluate_policy(other.lake.folder, better, None, lambda version: log.catalogue, as_of=NOW + DAY)


def test_a_policy_off_the_logs_support_is_refused(log: CoreLog, folder: Path):
    """Where the new catalogue shows what the log never could, the weighted estimates are refused with the share."""
    surprise = {"issue": "cross_sell", "group": "sweet", "value": 500, "name": "Surprise"}
    document = catalogue_at(folder / "surprise.yaml", LOGGED)
    text = document.read_text().replace("actions:\n", f"actions:\n  surprise: {json.dumps(surprise)}\n")
    document.write_text(text)
    found = evaluate_policy(
        log.lake.folder, load_catalogue(document), None, lambda version: log.catalogue, as_of=NOW + 30 * DAY,
        resamples=20,
    )  # fmt: skip
    assert "actions that the log could not take" in found.by_issue["all"].refused["dr"]
    assert found.by_issue["all"].verdict == "cannot be told"


def test_an_arm_without_chance_is_left_out_and_the_others_answer(log: CoreLog, better: Catalogue, tmp_path: Path):
    """Where one arm always shows its best, the estimates rest on the arms that vary, and the arm is counted."""
    arms = {"id": "mixed", "salt": "mixed", "arms": {"nba": 0.6, "propensity_only": 0.4}}
    path = catalogue_at(tmp_path / "mixed.yaml", {**LOGGED, "experiment": arms})
    mixed = CoreLog(tmp_path, load_catalogue(path), customers=1_000)
    mixed.decide(Request("app", (("home", 1),)))
    mixed.close()
    found = evaluate_policy(
        mixed.lake.folder, better, None, lambda version: mixed.catalogue, as_of=NOW + 30 * DAY, resamples=50
    ).by_issue["all"]
    greedy = sum(row.arm == "propensity_only" for row in mixed.rows)
    assert found.support.excluded == {"in arm propensity_only, which could not do what the new policy would": greedy}
    assert found.support.decisions == len(mixed.rows) - greedy
    assert found.support.off_support < 1e-12
    assert "dr" in found.estimates


def test_a_log_without_chance_is_refused(log: CoreLog, better: Catalogue, tmp_path: Path):
    """Greedy decisions in one arm answer no question about another policy."""
    path = catalogue_at(tmp_path / "greedy.yaml", {})
    greedy = CoreLog(tmp_path, load_catalogue(path), customers=60)
    greedy.decide(Request("app", (("home", 1),)))
    greedy.close()
    with pytest.raises(CannotAnswer, match="made without chance"):
        evaluate_policy(greedy.lake.folder, better, None, lambda version: greedy.catalogue, as_of=NOW + 30 * DAY)


def test_rows_read_from_the_lake_are_those_that_were_logged(log: CoreLog):
    """Every decision is read back, to the bit, by any window of time."""
    rows = {row.decision_id: row for row in read_decisions(log.lake.folder, 0.0, NOW + 9 * DAY)}
    assert len(rows) == len(log.rows)
    for row in log.rows[:50]:
        assert replace(rows[row.decision_id]) == row
    assert not list(read_decisions(log.lake.folder, 0.0, NOW))


@pytest.mark.prove
def test_the_command_prints_json(log: CoreLog, folder: Path, better: Catalogue):
    """`nba evaluate --model none --json` gives estimates by issue; a log that cannot answer is one sentence."""
    (folder / "catalogues").mkdir(exist_ok=True)
    (folder / "catalogues" / f"{log.catalogue.version}.yaml").write_text((folder / "logged.yaml").read_text())
    command = [
        sys.executable, "-m", "service.cli", "evaluate", "--policy", str(folder / "better.yaml"), "--model", "none",
        "--from", str(log.lake.folder), "--var", str(folder), "--days", "30",
    ]  # fmt: skip
    done = subprocess.run([*command, "--json"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("nba: the log has no usable row")
    assert "open response window" in done.stderr
    done = subprocess.run(
        [*command, "--json", "--as-of", "2018-02-01"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["by_issue"]["all"]["verdict"] == "better"
    assert set(document["by_issue"]["all"]["estimates"]) == {"ips", "snips", "dm", "dr"}

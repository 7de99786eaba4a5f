"""The published figures of public data sets; skipped where the folder of data is not named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.real_data import bank, hillstrom, open_bandit
from benchmarks.real_data.tables import VARIABLE
from service.settings import CHECKOUT
from training.drift import SHIFTED

needs_data = pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no folder of public data")


def data() -> Path:
    return Path(os.environ[VARIABLE])


@pytest.mark.data
@needs_data
def test_open_bandit_gives_the_published_figures(capsys: pytest.CaptureFixture[str]):
    """IPW and SNIPW to 1e-6, DR within .0003, the intervals hold what the policy really earned."""
    found = open_bandit.report(data(), resamples=400)
    estimates = found.estimates
    assert abs(estimates["ips"].value - open_bandit.PUBLISHED["ips"]) < 1e-6
    assert abs(estimates["snips"].value - open_bandit.PUBLISHED["snips"]) < 1e-6
    assert abs(estimates["dr"].value - open_bandit.PUBLISHED["dr"]) < 3e-4
    for name in ("ips", "snips", "dr"):
        assert estimates[name].low < open_bandit.ON_POLICY < estimates[name].high
    assert "effective sample size 1,639.5" in capsys.readouterr().out
    assert found.verdict == "no significant difference"


def test_without_data_it_says_what_to_do_in_one_sentence():
    """Where no folder is named, the command names the option and the variable and exits with 1."""
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-m", "benchmarks.real_data", "open_bandit"]
    done = subprocess.run(command, env=env, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"real_data: the folder of public data is not named; give --data DIR or set {VARIABLE}\n"


@pytest.mark.data
@needs_data
def test_hillstrom_ranks_better_than_chance_and_claims_no_gain_over_mens_to_everyone():
    """On one split the learner beats random order; the learned policy is not called better than Mens to everyone."""
    found = hillstrom.ranking(data(), seeds=1)
    assert found.auuc[0] > found.random[0]
    _, _, difference = hillstrom.policy(data(), resamples=100)
    assert difference.low < 0.0


@pytest.mark.prove
@pytest.mark.data
@needs_data
def test_hillstrom_reaches_the_published_ranking_over_fifty_splits():
    """Mean AUUC over 50 splits is at least .0292, and the paired gain over random order is significant."""
    found = hillstrom.ranking(data())
    assert found.auuc.mean() >= 0.0292
    assert hillstrom.over_splits(found.auuc - found.random).low > 0.0


@pytest.mark.data
@needs_data
def test_bank_marketing_raises_the_alarm_and_training_again_mends_it():
    """The score and the rates have shifted; two halves of the training calls have not; retraining ranks far better."""
    found = bank.check(data())
    assert found.psi["euribor3m"] > SHIFTED
    assert found.psi["score"] > SHIFTED
    assert max(found.quiet.values()) < 0.02
    assert found.measures["retrained"]["auc"] > found.measures["raw"]["auc"] + 0.1
    off = {name: abs(1 - m["predicted_ratio"]) for name, m in found.measures.items()}
    assert off["retrained"] < off["rolling"] < off["raw"]

"""The published figures of public data sets; skipped where the folder of data is not named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.real_data import open_bandit
from benchmarks.real_data.tables import VARIABLE
from service.settings import CHECKOUT

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

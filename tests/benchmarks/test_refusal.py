"""The yardstick without data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import CHECKOUT
from tests.served import plain_environment


@pytest.mark.prove
def test_without_data_it_says_what_to_do_in_one_sentence(tmp_path: Path):
    """On an empty var it names what is missing and the command, writes nothing and exits with 1."""
    env = {
        **plain_environment(),
        "NBA_VAR": str(tmp_path / "var"),
    }
    command = [sys.executable, "-m", "benchmarks", "--only", "online", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=env, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    [sentence] = done.stderr.splitlines()
    assert sentence.startswith("bench: there is nothing to measure:")
    assert sentence.endswith("run `make demo ONCE=1` first")
    assert not (tmp_path / "out").exists()

"""Setting up fails in one sentence that says how to go on, before anything is half made."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = (".ci/environment", "Makefile", "pyproject.toml", "requirements.lock", "requirements-uv.lock")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what the set-up reads and no environment."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(clone: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "demo"], cwd=clone, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


def test_wrong_python(clone: Path) -> None:
    """A Python that does not fit is named, and so is the way to name another."""
    old = clone / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = make(clone, PYTHON=str(old))
    assert done.returncode
    assert "is Python 3.9.2, and Python 3.11 or 3.12 is needed" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (clone / ".venv").exists()


def test_too_little_disk(clone: Path) -> None:
    """Too little free space is told before anything is installed."""
    done = make(clone, NBA_NEED_MB="999999999")
    assert done.returncode
    assert "free some room" in done.stderr
    assert not (clone / ".venv").exists()


def test_no_network(clone: Path) -> None:
    """Without a registry there is one sentence, and the same command goes on later."""
    nowhere = "http://127.0.0.1:9/simple"
    variables = dict.fromkeys(("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"), nowhere)
    done = make(clone, **variables, PIP_NO_CACHE_DIR="1", PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
    assert done.returncode
    assert "the packages could not be fetched" in done.stderr
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr

"""The example's tidy past, made once a session from the installed package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from training.past import Past
from training.sources import write_history


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    write_history(folder)
    return folder


@pytest.fixture(scope="session")
def small_history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_history(folder, customers=120)
    return folder


@pytest.fixture(scope="session")
def past(history: Path) -> Iterator[Past]:
    with Past(history) as opened:
        yield opened

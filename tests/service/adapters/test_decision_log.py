"""Logged decisions and catalogues of then: what comes back is what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from service.adapters.decision_log import CatalogueShelf, StoredDecisions
from service.adapters.journal_entries import encode_decision
from service.adapters.parquet_lake import ParquetLake
from service.catalogue.loader import load_catalogue
from service.decision.record import partition_of
from tests.service.decision.worlds import CATALOGUE
from tests.service.rows import decision_row

NOW = 1_514_786_400.123_456_7
"""A moment that microseconds cannot hold."""


def test_what_the_journal_has_lost_the_lake_gives_back(tmp_path: Path) -> None:
    """Every field of a row in the lake is the one that was logged, floats to the bit and NaN included."""
    rows = [decision_row("c-1", NOW + n) for n in range(3)]
    partition = partition_of("c-1")
    entries = [(f"17000000000{n}0-0", "decision", encode_decision(row)) for n, row in enumerate(rows)]
    ParquetLake(tmp_path).write(partition, entries)
    stored = StoredDecisions(cast(Any, None), tmp_path)
    for (entry_id, _, _), row in zip(entries, rows, strict=True):
        found = stored._in_lake(partition, entry_id, row.decision_id)
        assert found == row
        assert np.isnan(np.frombuffer(found.priorities)[0])
    assert stored._in_lake(partition, "1700000000099-0", rows[0].decision_id) is None


def test_a_catalogue_is_found_by_its_version_only(tmp_path: Path) -> None:
    """What was kept comes back; another text under the name, a version never kept, and a path do not."""
    shelf, version = CatalogueShelf(tmp_path), load_catalogue(CATALOGUE).version
    assert shelf.find(version) is None
    shelf.keep(CATALOGUE.read_bytes(), version)
    shelf.keep(b"not again", version)
    found = shelf.find(version)
    assert found is not None
    assert found.version == version
    (tmp_path / f"{'0' * 12}.yaml").write_bytes(CATALOGUE.read_bytes())
    assert shelf.find("0" * 12) is None
    assert shelf.find(f"../{tmp_path.name}/{version}") is None

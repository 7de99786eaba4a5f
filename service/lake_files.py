"""Which Parquet files make up a table of the log at this moment: the one way in for all who read the lake.

The worker adds small files to `<table>/`; compaction replaces them by files of a day under `<table>/days/`. What counts
is said by `<table>/manifest.json`, which changes in one rename, so a reader sees each row exactly once; files that were
replaced stay for a while (`REPLACED_SECONDS`), so that a query that has begun ends undisturbed. Knows names only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LOG_TABLES = ("decisions", "outcomes", "events", "switches", "shadows")
MANIFEST = "manifest.json"
REPLACED_SECONDS = 900.0
"""How long a replaced file stays for the queries that have begun."""


class LogError(ValueError):
    """What was asked of the log cannot be answered; the sentence says what to do."""


@dataclass(frozen=True)
class Manifest:
    """What compaction has made of a table.

    Attributes:
        days: Day as YYYY-MM-DD -> names of its files under `days/`.
        replaced: Names that do not count any more, relative to the table -> Unix seconds of their replacement.
    """

    days: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replaced: Mapping[str, float] = field(default_factory=dict)


def read_manifest(table: Path) -> Manifest:
    """Read a table's manifest; one that was never compacted has none."""
    try:
        said = json.loads((table / MANIFEST).read_bytes())
    except FileNotFoundError:
        return Manifest()
    return Manifest({day: tuple(names) for day, names in said["days"].items()}, said["replaced"])


def small_files(table: Path, manifest: Manifest) -> list[Path]:
    """Return the files of the worker that count, sorted by name."""
    return sorted(path for path in table.glob("p*.parquet") if path.name not in manifest.replaced)


def files(lake: Path, table: str) -> list[str]:
    """Return the files that make up a table now, each row exactly once; none where nothing was logged yet.

    Columns may be missing in older files: read them with DuckDB's `union_by_name=true`.
    """
    folder = lake / table
    manifest = read_manifest(folder)  # first: what is replaced from now on stays where it is
    of_days = [str(folder / "days" / name) for day in sorted(manifest.days) for name in manifest.days[day]]
    return of_days + [str(path) for path in small_files(folder, manifest)]

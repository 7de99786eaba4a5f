"""What was sent and what was answered, in a file; and the one checker of what must have become of it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from features.facts import EVENT_TYPES, Floats, fold, unknown
from service.adapters.parquet_lake import id_order
from service.lake_files import files


class History:
    """One JSON line for every item and what was last answered: `acked`, or `unknown` where no answer came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock, self._file = threading.Lock(), path.open("a")

    def write(self, kind: str, items: Iterable[Mapping[str, Any]], answer: str) -> None:
        """Append what became of items."""
        with self._lock:
            for item in items:
                self._file.write(json.dumps({"kind": kind, "id": item[f"{kind}_id"], "answer": answer}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> dict[str, dict[str, set[str]]]:
        """Return kind -> answer -> ids; an id that was ever acknowledged is acked."""
        said: dict[tuple[str, str], str] = {}
        for line in self.path.read_text().splitlines():
            row = json.loads(line)
            before = said.get((row["kind"], row["id"]))
            said[row["kind"], row["id"]] = "acked" if "acked" in (before, row["answer"]) else "unknown"
        found: dict[str, dict[str, set[str]]] = {
            kind: {"acked": set(), "unknown": set()} for kind in ("event", "outcome")
        }
        for (kind, name), answer in said.items():
            found[kind][answer].add(name)
        return found


def check(history: History, lake: Path, online: Mapping[str, Floats]) -> dict[str, int]:
    """Check the lake and the online facts against the history. Returns the counts that a report names.

    Raises:
        AssertionError: naming what was lost, doubled, made up or folded wrongly.
    """
    said = history.read()
    counts = {}
    for kind, table in (("event", "events"), ("outcome", "outcomes")):
        stored = Counter(name for (name,) in _rows(lake, table, f"{kind}_id"))
        acked, sent = said[kind]["acked"], said[kind]["acked"] | said[kind]["unknown"]
        lost, doubled = acked - set(stored), {name for name, n in stored.items() if n > 1}
        made_up = set(stored) - sent
        if lost or doubled or made_up:
            raise AssertionError(
                f"{table}: {len(lost)} lost {sorted(lost)[:3]}, {len(doubled)} doubled {sorted(doubled)[:3]}, "
                f"{len(made_up)} never sent {sorted(made_up)[:3]}; see {history.path}"
            )
        counts[f"{table} acknowledged"], counts[f"{table} in the lake"] = len(acked), sum(stored.values())
    expected = replayed(lake)
    for customer, facts in online.items():
        wanted = expected.pop(customer, unknown())
        if not np.allclose(facts, wanted, rtol=1e-9, atol=0, equal_nan=True):
            raise AssertionError(f"facts of {customer} are {facts.tolist()}, the lake's events give {wanted.tolist()}")
    if expected:
        raise AssertionError(f"no facts of {sorted(expected)[:3]}, whose events are in the lake")
    return {**counts, "customers with facts": len(online)}


def replayed(lake: Path) -> dict[str, Floats]:
    """Fold the lake's events, in the order of the journal; customer -> facts."""
    columns = "journal_id, customer_id, type, epoch(occurred_at), properties"
    facts: dict[str, Floats] = {}
    for _, customer, kind, at, properties in sorted(_rows(lake, "events", columns), key=lambda row: id_order(row[0])):
        if kind in EVENT_TYPES:
            event = {"type": kind, "occurred_at": at, "properties": json.loads(properties)}
            facts[customer], _ = fold(facts.get(customer, unknown()), event)
    return facts


def _rows(lake: Path, table: str, columns: str) -> list[Any]:
    found = files(lake, table)
    if not found:
        return []
    query = f"SELECT {columns} FROM read_parquet(?, union_by_name=true)"
    with duckdb.connect() as con:
        return con.execute(query, [found]).fetchall()

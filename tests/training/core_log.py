"""A real log made by the core in process: decisions, impressions and accepts in a lake, with response rates we know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from features.matrix import Columns
from service.adapters.journal_entries import KnownDecision, encode, encode_decision
from service.adapters.parquet_lake import ParquetLake
from service.catalogue.loader import load_catalogue
from service.decision.engine import CompiledCatalogue, compile_catalogue, decide
from service.decision.log_row import LogRows
from service.decision.model import Catalogue, Request
from service.decision.record import DecisionRow, customer_digest, decision_id_from, partition_of, random_key
from service.ports import Outcome
from tests.service.decision.worlds import NOW, SMALL, random_batch

DAY = 86_400.0
RATES = {"fish": 0.10, "cake": 0.45, "rare": 0.30, "dear": 0.05, "win_back": 0.25, "hours": 0.02, "help": 0.04}
"""P(accept | shown) in this world."""
LOGGED = {
    "experiment": {"id": "log", "salt": "log", "arms": {"nba": 0.7, "random": 0.2, "holdout": 0.1}},
    "exploration": {"strategy": "epsilon_greedy", "parameter": 0.4},
}


def catalogue_at(path: Path, changes: Mapping[str, Any], values: Mapping[str, float] | None = None) -> Path:
    """Write the small catalogue with sections replaced, and values of actions; accept is the positive of all."""
    document = yaml.safe_load(SMALL.read_text())
    for issue in document["issues"].values():
        issue |= {"positive": "accept", "window_days": 7}
    document |= changes
    for action, value in (values or {}).items():
        document["actions"][action]["value"] = value
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


class CoreLog:
    """Decides for customers with the core, answers with `RATES`, and writes what the worker would have written."""

    def __init__(self, folder: Path, catalogue: Catalogue, customers: int = 800, seed: int = 1) -> None:
        self.catalogue, self.lake = catalogue, ParquetLake(folder / "lake")
        self.compiled: CompiledCatalogue = compile_catalogue(catalogue, Columns())
        self.batch = replace(random_batch(customers, seed), consents=({"marketing": 1},) * customers)
        self.random = np.random.default_rng(seed)
        self.rows: list[DecisionRow] = []
        self.entries: dict[int, list[tuple[str, bytes]]] = {}

    def decide(self, request: Request, day: float = 0.0, **changes: Any) -> list[DecisionRow]:
        """Decide for all customers on a day; every placed action gets its impression and perhaps its accept."""
        now = NOW + day * DAY
        ids = self.batch.customer_ids
        decision_ids = [decision_id_from(self.random.bytes(16), customer) for customer in ids]
        keys = np.array([random_key(d, c) for d, c in zip(decision_ids, ids, strict=True)], dtype=np.uint64)
        decisions = decide(self.batch, request, self.compiled, None, now, keys)
        made, rows = [], LogRows(self.batch, decisions, self.compiled)
        for i, (decision_id, customer) in enumerate(zip(decision_ids, ids, strict=True)):
            row = rows.row(
                i, decision_id,
                model_version="none", features_version="f", bundle_digest="", degraded_reasons=(), reselected=False,
            )  # fmt: skip
            made.append(replace(row, **changes))
            self.append(customer, "decision", encode_decision(made[-1]))
            for candidate, _, _ in row.chosen:
                self._answer(made[-1], row.treatment_ids[candidate].split(".")[0])
        self.rows += made
        return made

    def _answer(self, row: DecisionRow, action: str) -> None:
        issue = self.catalogue.actions[self.catalogue.index[action]].issue
        offers = ((action, issue, "x", f"{action}.app", True, "home"),)
        known = KnownDecision(row.customer_id, customer_digest(row.customer_id), row.decision_time, "app", offers)
        kinds = ["impression", *(["accept"] if self.random.random() < RATES[action] else [])]
        for kind in kinds:
            number = sum(len(entries) for entries in self.entries.values())
            told = Outcome(f"o{number}", row.decision_id, action, kind, None, row.decision_time + 60.0)
            self.append(row.customer_id, "outcome", encode((known, told)))

    def append(self, customer: str, kind: str, payload: bytes) -> None:
        """Add an entry of the journal."""
        self.entries.setdefault(partition_of(customer), []).append((kind, payload))

    def close(self) -> Path:
        """Write the lake and return its folder."""
        for partition, entries in self.entries.items():
            self.lake.take_over(partition)
            self.lake.write(partition, [(f"{int(NOW * 1000) + k}-0", kind, p) for k, (kind, p) in enumerate(entries)])
        return self.lake.folder


def write_log(folder: Path, customers: int = 800, days: int = 2) -> CoreLog:
    """Write a log of some days of decisions in the channel app."""
    catalogue = load_catalogue(catalogue_at(folder / "logged.yaml", LOGGED))
    log = CoreLog(folder, catalogue, customers)
    for day in range(days):
        log.decide(Request("app", (("home", 2),)), day)
    log.close()
    return log

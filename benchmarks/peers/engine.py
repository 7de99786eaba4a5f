"""What every contestant has in common: the engine's own rules, selection, record call and answer.

A contestant brings how it reads features, how it scores and how it speaks HTTP; all else is the same code as in
`nba serve`, one decision at a time. Reads PEER_VAR, PEER_CATALOGUE and PEER_REDIS_URL.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.contract import LAYOUT
from features.matrix import Columns
from service.adapters.breaker import Breaker
from service.adapters.bundle_dir import BundleDir
from service.adapters.clock import open_clock
from service.adapters.connection import Link
from service.adapters.feast_reader import FactRows
from service.adapters.redis_state import RedisState
from service.answer import answer_of, as_data
from service.catalogue.loader import load_catalogue
from service.decision.bundle_scorer import Predict
from service.decision.engine import CompiledCatalogue, compile_catalogue
from service.decision.model import Floats, Request
from service.online import Ask, Online, Serving
from service.ports import Clock

PATIENCE_SECONDS = 1.0
FEATURE_REPO = Path(__file__).resolve().parents[2] / "features"


class Handed:
    """Facts that the contestant read before it asks the engine. Implements `redis_gather.FactSource`."""

    def __init__(self, clock: Clock) -> None:
        self.breaker, self._clock = Breaker(), clock
        self.rows: dict[str, Floats] = {}

    async def fetch(self, customer_ids: Sequence[str], deadline_seconds: float) -> FactRows:
        """Return what was handed over."""
        n, is_partial = len(customer_ids), np.zeros(len(customer_ids), dtype=np.bool_)
        facts = np.stack([self.rows.pop(customer) for customer in customer_ids])
        return FactRows(facts, np.full((n, len(LAYOUT.views)), self._clock.now()), ~is_partial, is_partial)

    async def close(self) -> None:
        """Nothing is open."""


class Engine:
    """The engine without its reader, scorer and web layer."""

    def __init__(self, predict: Predict) -> None:
        var, url = Path(os.environ["PEER_VAR"]), os.environ["PEER_REDIS_URL"]
        bundles, link = BundleDir(var / "models"), Link(url)
        bundle = bundles.load(str(bundles.current()))
        self.catalogue: CompiledCatalogue = compile_catalogue(
            load_catalogue(Path(os.environ["PEER_CATALOGUE"])), Columns()
        )
        self.clock = open_clock(var / "clock.json")
        self.handed = Handed(self.clock)
        scorer = bundle.make_scorer(self.catalogue, predict=predict)
        serving = Serving(self.catalogue, bundle, scorer)
        state = RedisState(link, link, LAYOUT, facts=self.handed)
        self.online = Online(state, self.clock, lambda: serving, PATIENCE_SECONDS, PATIENCE_SECONDS)
        self.online.together.most = 1

    async def decide(self, question: dict[str, Any], facts: Floats) -> dict[str, Any]:
        """Decide, reserve, log, and return the answer as plain data.

        Args:
            facts: (layout.width,) the customer's.
        """
        customer = str(question["customer_id"])
        placements = tuple((p["name"], int(p["count"])) for p in question["placements"])
        self.handed.rows[customer] = facts
        ask = Ask(customer, Request(question["channel"], placements), dry_run=bool(question.get("dry_run")))
        answers: list[dict[str, Any]] = []

        def keep(decided: Any) -> bytes:
            answers.append(as_data(answer_of(decided, None, "chosen")))
            return b""

        await self.online.decide(ask, keep)
        return answers[-1]


def log_odds(probabilities: Floats) -> Floats:
    """Return what a model's probabilities were made from: the engine calibrates log-odds."""
    odds: Floats = np.log(probabilities / (1.0 - probabilities))
    return odds


def model_folder() -> str:
    """Return the model as MLflow saved it."""
    return os.environ["PEER_MODEL"]


def loads(body: bytes) -> dict[str, Any]:
    """Read a question."""
    said: dict[str, Any] = json.loads(body)
    return said

"""A small world from real data by the real steps: history, snapshots, a registered champion and its bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.catalogue.loader import load_catalogue
from service.model_agent import sync_once
from training.backfill import backfill, snapshot_moments
from training.dataset import feast_facts, monthly_moments
from training.feast_steps import apply, open_store
from training.registry import train_and_register
from training.sources import connect, write_history

CATALOGUE = Path(__file__).parents[1] / "service" / "catalogue.yaml"
NO_SERVER = "127.0.0.1:1"
"""Feast's offline store and registry need no online store; nothing listens here."""


@dataclass(frozen=True)
class SmallWorld:
    """Where the parts of a small world lie.

    Attributes:
        var: Folder as NBA_VAR: history, lake, registry.db, models.
        digest: Of the bundle in use.
    """

    var: Path
    mlflow_uri: str
    feast_registry: str
    digest: str

    @property
    def models(self) -> Path:
        """Folder of bundles."""
        return self.var / "models"

    @property
    def history(self) -> Path:
        """Folder of the tidy tables."""
        return self.var / "history"


@contextmanager
def feast_environment(var: Path, redis: str = NO_SERVER) -> Iterator[str]:
    """Set what feature_store.yaml expands, yield the registry's URL, and put the environment back."""
    before = dict(os.environ)
    registry = f"sqlite:///{var / 'registry.db'}"
    os.environ.update(NBA_VAR=str(var), NBA_FEAST_REDIS=redis, NBA_FEAST_REGISTRY=registry)
    try:
        yield registry
    finally:
        os.environ.clear()
        os.environ.update(before)


def build_small_world(path: Path, households: int = 200, max_rounds: int = 40) -> SmallWorld:
    """Build a world under `path` from the first households by number, with a model of a few trees."""
    var, mlflow = path / "var", path / "mlruns"
    mlflow.mkdir(parents=True)
    mlflow_uri = f"sqlite:///{mlflow / 'mlflow.db'}"
    history, lake = var / "history", var / "lake"
    write_history(history, customers=households)
    with connect() as con:
        starts = con.sql(f"SELECT start_at FROM read_parquet('{history}/campaigns.parquet')").fetchall()
    wanted = {*monthly_moments(history), *(start for (start,) in starts), snapshot_moments(history)[-1]}
    backfill(history, lake, [moment for moment in snapshot_moments(history) if moment in wanted])
    with feast_environment(var) as registry:
        store = open_store()
        apply(store, facts_folder=lake / "facts")
        catalogue = load_catalogue(CATALOGUE)
        facts_of = feast_facts(store)
        train_and_register(
            history, mlflow_uri, facts_of=facts_of, catalogue=catalogue, max_rounds=max_rounds, threads=1
        )
        digest = sync_once(var / "models", mlflow_uri, registry)
    if digest is None:
        raise RuntimeError("the agent made no bundle")
    return SmallWorld(var, mlflow_uri, registry, digest)

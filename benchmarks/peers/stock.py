"""Contestant A: the stack as its tutorials write it: a `def` route, Feast's SDK to a frame, mlflow.pyfunc, pandas.

The access log is off, the trees are walked by one thread as it has one core, and Feast's feature service is looked up
once; rules, selection, record and answer are the engine's.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
from anyio import from_thread
from fastapi import FastAPI
from feast import FeatureStore
from pydantic import BaseModel

from benchmarks.peers.engine import FEATURE_REPO, Engine, log_odds, model_folder
from features.contract import FEATURE_SERVICE, JOIN_KEY, LAYOUT
from features.facts import from_view, unknown
from features.matrix import Columns, ModelInput
from service.api.schemas import DecisionAnswer
from service.decision.model import Floats


class Placement(BaseModel):
    """Where, and how many."""

    name: str
    count: int


class Ask(BaseModel):
    """The question."""

    customer_id: str
    channel: str
    placements: list[Placement]
    dry_run: bool = False


def create_app() -> FastAPI:
    """Build the application."""
    model = mlflow.pyfunc.load_model(model_folder())
    names = list(ModelInput(Columns()).names)
    store = FeatureStore(repo_path=str(FEATURE_REPO))
    features = store.get_feature_service(FEATURE_SERVICE)
    engine = Engine(lambda rows: log_odds(model.predict(pd.DataFrame(rows, columns=names))))
    app = FastAPI()

    @app.post("/v1/decisions")
    def decide(ask: Ask) -> DecisionAnswer:
        row = store.get_online_features(features=features, entity_rows=[{JOIN_KEY: ask.customer_id}]).to_df()
        return DecisionAnswer(**from_thread.run(engine.decide, ask.model_dump(), facts_of(row)))

    return app


def facts_of(frame: pd.DataFrame) -> Floats:
    """Return Feast's row as facts, (layout.width,)."""
    values: dict[str, Any] = frame.iloc[0].to_dict()  # type: ignore[assignment]
    facts = unknown()
    for view in LAYOUT.views:
        from_view(values, view.name, facts)
    return facts

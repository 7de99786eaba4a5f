"""Contestant A: the stack as its tutorials write it. FastAPI `def` route, Feast's SDK, mlflow.pyfunc, pandas.

Everything that it leaves out favours it: no rules, caps, consent, experiment, exploration, reasons or log; only the
actions that the engine found eligible are scored, and it is told which these are; columns come from the same numpy code
as the engine's; the access log is off; the trees are walked by one thread, as
it has one core; Feast's feature service is looked up once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from fastapi import FastAPI
from feast import FeatureStore
from pydantic import BaseModel

from features.contract import FEATURE_SERVICE, JOIN_KEY, LAYOUT
from features.facts import from_view, unknown
from features.matrix import Columns, ModelInput
from service.adapters.clock import open_clock
from service.catalogue.loader import load_catalogue
from service.decision.engine import compile_catalogue

FEATURE_REPO = Path(__file__).resolve().parents[2] / "features"
SHOWN = 3


class Ask(BaseModel):
    """What the engine is asked too; the rest of the question is ignored."""

    customer_id: str
    channel: str


class Offer(BaseModel):
    """One ranked action."""

    rank: int
    action_id: str
    propensity: float
    priority: float


class Answer(BaseModel):
    """The three best."""

    customer_id: str
    actions: list[Offer]


def create_app() -> FastAPI:
    """Build the application from PEER_MLFLOW_URI, PEER_MODEL_URI, PEER_ELIGIBLE, PEER_CLOCK and PEER_CATALOGUE."""
    mlflow.set_tracking_uri(os.environ["PEER_MLFLOW_URI"])
    mlflow.set_registry_uri(os.environ["PEER_MLFLOW_URI"])
    model = mlflow.pyfunc.load_model(os.environ["PEER_MODEL_URI"])
    store = FeatureStore(repo_path=str(FEATURE_REPO))
    features = store.get_feature_service(FEATURE_SERVICE)
    clock = open_clock(Path(os.environ["PEER_CLOCK"]))
    columns = Columns()
    inputs = ModelInput(columns)
    catalogue = compile_catalogue(load_catalogue(Path(os.environ["PEER_CATALOGUE"])), columns)
    values = {action.id: action.value for action in catalogue.catalogue.actions}
    eligible: dict[str, list[str]] = json.loads(Path(os.environ["PEER_ELIGIBLE"]).read_text())
    app = FastAPI()

    @app.post("/v1/decisions")
    def decide(ask: Ask) -> Answer:
        row = store.get_online_features(features=features, entity_rows=[{JOIN_KEY: ask.customer_id}]).to_df()
        actions = eligible.get(ask.customer_id, [])
        if not actions:
            return Answer(customer_id=ask.customer_id, actions=[])
        as_of = columns.as_of(facts_of(row), clock.now())
        positions = np.array([catalogue.catalogue.index[action] for action in actions])
        rows = inputs.rows(as_of, np.zeros(len(actions), np.int64), positions, catalogue.action_table)
        frame = pd.DataFrame({"action_id": actions})
        frame["propensity"] = model.predict(pd.DataFrame(rows, columns=list(inputs.names)))
        frame["priority"] = frame["propensity"] * frame["action_id"].map(values)
        best = frame.sort_values("priority", ascending=False).head(SHOWN)
        offers = [Offer(rank=rank, **offer) for rank, offer in enumerate(best.to_dict("records"), start=1)]  # type: ignore[arg-type]
        return Answer(customer_id=ask.customer_id, actions=offers)

    return app


def facts_of(frame: pd.DataFrame) -> Any:
    """Return Feast's row as facts, (layout.width, 1)."""
    values: dict[str, Any] = frame.iloc[0].to_dict()  # type: ignore[assignment]
    facts = unknown()
    for view in LAYOUT.views:
        from_view(values, view.name, facts)
    return facts[:, None]

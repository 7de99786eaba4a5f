"""Contestant B: Feast's feature server and MLflow's scoring server, and a thin gateway that asks both and decides.

All candidates are scored in one call before the policy is asked, since the policy is here and the model is not.
Reads PEER_FEAST_PORT and PEER_MLFLOW_PORT beside what every contestant reads.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import aiohttp
import numpy as np
from fastapi import FastAPI, Request, Response

from benchmarks.peers.engine import Engine, loads, log_odds
from features.contract import FEATURE_SERVICE, JOIN_KEY, LAYOUT
from features.facts import from_view, unknown
from features.matrix import Columns, ModelInput
from service.api.replies import encode
from service.decision.model import Floats, Scoring

ANSWERED: ContextVar[tuple[Floats, Floats]] = ContextVar("answered")
"""Rows that were scored for this request, and their scores."""


def create_app() -> FastAPI:
    """Build the application."""
    columns, sessions = Columns(), list[aiohttp.ClientSession]()
    inputs = ModelInput(columns)
    engine = Engine(_scored_before)
    terms = engine.catalogue.catalogue
    actions = np.array([i for i, a in enumerate(terms.actions) if a.scoring is not Scoring.PRIOR])
    feast = f"http://127.0.0.1:{os.environ['PEER_FEAST_PORT']}/get-online-features"
    mlflow = f"http://127.0.0.1:{os.environ['PEER_MLFLOW_PORT']}/invocations"

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as session:
            sessions.append(session)
            yield

    app = FastAPI(lifespan=lifespan)

    async def ask(url: str, body: dict[str, Any]) -> Any:
        async with sessions[0].post(url, json=body) as response:
            response.raise_for_status()
            return await response.json()

    @app.post("/v1/decisions")
    async def decide(request: Request) -> Response:
        question = loads(await request.body())
        entities = {JOIN_KEY: [question["customer_id"]]}
        facts = facts_of(await ask(feast, {"feature_service": FEATURE_SERVICE, "entities": entities}))
        as_of = columns.as_of(facts[:, None], engine.clock.now())
        rows = inputs.rows(as_of, np.zeros(len(actions), np.int64), actions, engine.catalogue.action_table)
        data = [[None if v != v else v for v in row] for row in rows.tolist()]
        split = {"columns": list(inputs.names), "data": data}
        answer = await ask(mlflow, {"dataframe_split": split})
        ANSWERED.set((rows, np.array(answer["predictions"])))
        return Response(encode(await engine.decide(question, facts)), media_type="application/json")

    return app


def facts_of(answer: Any) -> Floats:
    """Return the feature server's answer as facts, (layout.width,)."""
    names = answer["metadata"]["feature_names"]
    values = {name: result["values"][0] for name, result in zip(names, answer["results"], strict=True)}
    facts = unknown()
    for view in LAYOUT.views:
        from_view(values, view.name, facts)
    return facts


def _scored_before(rows: Floats) -> Floats:
    """Find the scores of those actions that the policy left, by issue and member, which stand at a row's end."""
    scored, probabilities = ANSWERED.get()
    position = {row.tobytes(): i for i, row in enumerate(np.ascontiguousarray(scored[:, -4:-2]))}
    return log_odds(probabilities[[position[row.tobytes()] for row in np.ascontiguousarray(rows[:, -4:-2])]])

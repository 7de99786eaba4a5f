"""Contestant D: the same stock parts in an expert's hands: `async def`, get_online_features_async, numpy, Booster.

No frame is ever made: Feast's answer is read as it comes, and LightGBM's Booster scores an array with one thread.
"""

from __future__ import annotations

from pathlib import Path

import lightgbm
from fastapi import FastAPI, Request, Response
from feast import FeatureStore

from benchmarks.peers.engine import FEATURE_REPO, Engine, loads, model_folder
from features.contract import FEATURE_SERVICE, JOIN_KEY, LAYOUT
from service.adapters.feast_sdk import decode_response
from service.api.replies import encode


def create_app() -> FastAPI:
    """Build the application."""
    booster = lightgbm.Booster(model_file=str(next(Path(model_folder()).glob("*.lgb"))))
    store = FeatureStore(repo_path=str(FEATURE_REPO))
    features = store.get_feature_service(FEATURE_SERVICE)
    engine = Engine(lambda rows: booster.predict(rows, raw_score=True, num_threads=1))
    app = FastAPI()

    @app.post("/v1/decisions")
    async def decide(request: Request) -> Response:
        question = loads(await request.body())
        rows = [{JOIN_KEY: question["customer_id"]}]
        read = await store.get_online_features_async(features, rows)
        facts = decode_response(read.proto, 1, LAYOUT).facts[0]
        return Response(encode(await engine.decide(question, facts)), media_type="application/json")

    return app

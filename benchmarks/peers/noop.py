"""The ceiling: a FastAPI route that reads the same question and returns bytes of the size of a real answer."""

from __future__ import annotations

import os

from fastapi import FastAPI, Request, Response


def create_app() -> FastAPI:
    """Build the application; PEER_ANSWER_BYTES says how long the answer is."""
    answer = b'{"' + b"a" * (int(os.environ["PEER_ANSWER_BYTES"]) - 6) + b'":0}'
    app = FastAPI()

    @app.post("/v1/decisions")
    async def decisions(request: Request) -> Response:
        await request.body()
        return Response(answer, media_type="application/json")

    return app

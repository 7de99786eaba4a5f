"""What every route shares: the open runtime, the body as a model, the answer as bytes."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from service.api.body import read_json
from service.api.metrics import Metrics
from service.api.problems import ProblemError, invalid
from service.api.vitals import Vitals
from service.bootstrap import Runtime
from service.online import Serving

Model = TypeVar("Model", bound=BaseModel)
encode = msgspec.json.Encoder().encode


def parse(model: type[Model], body: bytes) -> Model:
    """Read one object, or say which field is wrong."""
    try:
        return model.model_validate(read_json(body))
    except ValidationError as error:
        raise invalid(error, model) from None


class Written(Response):
    """An answer in JSON that is bytes already: nothing is left to render or to look up."""

    def __init__(self, body: bytes, status: int) -> None:
        self.body, self.status_code, self.background = body, status, None
        self.raw_headers = [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
        ]


def respond(content: object, status: int = 200) -> Response:
    """Write an answer once, as bytes."""
    return Written(content if isinstance(content, bytes) else encode(content), status)


def runtime_of(request: Request) -> Runtime:
    """Return the open runtime."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def metrics_of(request: Request) -> Metrics:
    """Return the metrics of this process."""
    metrics: Metrics = request.app.state.metrics
    return metrics


def vitals_of(request: Request) -> Vitals:
    """Return the measurements of this process."""
    vitals: Vitals = request.app.state.vitals
    return vitals


def serving_of(request: Request) -> Serving:
    """Return what serves now; a 503 before anything was loaded."""
    serving = runtime_of(request).reloader.serving
    if serving is None:
        raise not_loaded()
    return serving


def not_loaded() -> ProblemError:
    """Say that nothing was ever loaded."""
    return ProblemError(
        503, "not-loaded", "No model bundle was made yet; run `nba prepare` and `nba agent`.", retry_after=5
    )

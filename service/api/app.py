"""The FastAPI application: lifespan, problems, the OpenAPI document. Routes live in `routes`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from service.api import schemas
from service.api.metrics import Metrics
from service.api.problems import TITLES, ProblemError
from service.api.routes import router
from service.bootstrap import open_runtime
from service.online import Serving
from service.settings import Settings

log = logging.getLogger("nba")
BODIES = (schemas.DecisionAsk, schemas.OutcomeIn, schemas.EventIn, schemas.SwitchIn, schemas.Problem)


def create_app(settings: Settings) -> FastAPI:
    """Build the application; adapters are opened when it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_runtime(settings) as runtime:
            app.state.runtime = runtime

            def count(kind: str, result: str, serving: Serving | None) -> None:
                app.state.metrics.reloads.labels(kind, result).inc()
                if serving:
                    app.state.metrics.serves(serving)

            runtime.reloader.on_reload = count
            if runtime.reloader.serving:
                app.state.metrics.serves(runtime.reloader.serving)
            yield

    app = FastAPI(
        title="nba: next best action",
        version="1",
        description="Which action next, for whom, and why.",
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.metrics = Metrics()
    app.include_router(router)
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_crash)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _on_problem(request: Request, error: Exception) -> Response:
    problem = error if isinstance(error, ProblemError) else ProblemError(500, "internal", "See the service's log.")
    request.app.state.metrics.problems.labels(str(problem.status)).inc()
    return problem.response()


async def _on_http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = "There is no such route; see /docs." if status == 404 else TITLES.get(status, "See /docs.")
    return await _on_problem(request, ProblemError(status, "http", detail))


async def _on_crash(request: Request, error: Exception) -> Response:
    log.error("unexpected error on %s", request.scope.get("route", "?"), exc_info=error)
    return await _on_problem(request, ProblemError(500, "internal", "Unexpected; see the service's log."))


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Add the bodies that routes read themselves to the document that FastAPI writes."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, definitions = models_json_schema(
            [(model, "validation") for model in BODIES], ref_template="#/components/schemas/{model}"
        )
        document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
        app.openapi_schema = document
    return app.openapi_schema

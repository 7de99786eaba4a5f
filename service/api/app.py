"""The FastAPI application: lifespan, routes, and every failure as a problem."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import cache, partial

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.api import decisions, erasures, intake, operations
from service.api.document import write_document
from service.api.draining import Draining
from service.api.keys import read_keys
from service.api.metrics import Metrics, shared_folder
from service.api.observed import Observed
from service.api.problems import TITLES, ProblemError
from service.api.shedding import Shedding
from service.api.shortcut import shortcuts
from service.api.vitals import Vitals
from service.api.wire import server_options
from service.bootstrap import Runtime, open_runtime
from service.online import Serving
from service.settings import Settings
from service.tracing import open_tracing

log = logging.getLogger("nba")
ROUTERS = (decisions.router, intake.router, erasures.router, operations.views, operations.switches, operations.health)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
Opener = Callable[[Settings], AbstractAsyncContextManager[Runtime]]


def create_app(settings: Settings, opener: Opener = open_runtime) -> FastAPI:
    """Build the application; adapters are opened when it starts.

    Args:
        opener: Opens the runtime; tests give one of their own.

    Raises:
        KeysError: The API keys of the settings cannot be used.
    """

    tracing = open_tracing(settings.traces, os.environ)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with opened(app):
                yield
        except Exception as error:
            app.state.failure = error  # what the server makes of it is a text; who started it wants to say why
            raise

    @asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        async with opener(settings) as runtime:
            app.state.runtime = runtime
            runtime.reloader.on_reload = lambda kind, result, serving: _on_reload(app, kind, result, serving)
            if runtime.reloader.serving:
                app.state.metrics.serves(runtime.reloader.serving)
            if runtime.shadowing is not None:
                runtime.shadowing.tell = lambda result, count: app.state.metrics.shadows.labels(result).inc(count)
            vitals: Vitals = app.state.vitals
            runtime.online.step = vitals.step
            if tracing is not None:
                runtime.online.together.most = 1  # a step of many requests has no place in the trace of one
            following = asyncio.gather(vitals.follow(runtime), app.state.metrics.share())
            yield
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    has_docs = settings.host in LOOPBACK if settings.docs is None else settings.docs
    app = FastAPI(
        title="nba: next best action",
        version="1",
        description="Which action next, for whom, and why.",
        lifespan=lifespan,
        docs_url="/docs" if has_docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if has_docs else None,
        redirect_slashes=False,
    )
    app.state.settings, app.state.failure = settings, None
    app.state.metrics = Metrics(shared_folder())
    app.state.vitals = Vitals(app.state.metrics.registry, app.state.metrics.tally, tracing)
    app.state.draining = Draining()
    app.state.keys = read_keys(settings)
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_path)
    app.add_exception_handler(Exception, _on_crash)
    app.openapi = cache(  # type: ignore[method-assign]
        partial(write_document, app, ROUTERS, has_keys=bool(app.state.keys.keys))
    )  # when it is first asked for: no decision waits for it
    shedding = Shedding(settings.most_in_flight, app.state.metrics.registry)
    observed = Observed(app.build_middleware_stack(), app.state.draining, tracing, shedding)
    app.middleware_stack = observed
    hot = shortcuts(app, ROUTERS, observed, _on_problem, _on_crash) if tracing is None else {}
    app.state.server_options = server_options(app.state.metrics.refuse, hot)
    return app


def _on_reload(app: FastAPI, kind: str, result: str, serving: Serving | None) -> None:
    app.state.metrics.reloads.labels(kind, result).inc()
    if serving:
        app.state.metrics.serves(serving)


async def _on_problem(request: Request, error: Exception) -> Response:
    problem = error if isinstance(error, ProblemError) else ProblemError(500, "internal", "See the service's log.")
    request.app.state.metrics.problems.labels(str(problem.status)).inc()
    return problem.response()


async def _on_http(request: Request, error: Exception) -> Response:
    """Answer what no route takes: 404, and 405 with what the route does allow."""
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
    if status == 405:
        headers = {"Allow": ", ".join(sorted(_methods_of(request)))}
    detail = "There is no such route." if status == 404 else f"{TITLES.get(status, 'Not possible')}."
    return await _on_problem(request, ProblemError(status, "http", detail, headers=headers))


def _methods_of(request: Request) -> set[str]:
    """Return the methods of all routes at the request's path; the framework would name those of the first one only."""
    matching = [route for router in ROUTERS for route in router.routes if route.matches(request.scope)[0] != Match.NONE]
    return {method for route in matching for method in getattr(route, "methods", ())}


async def _on_path(request: Request, error: Exception) -> Response:
    """Answer a parameter of the path that cannot be: FastAPI's own answer would repeat it."""
    findings = error.errors() if isinstance(error, RequestValidationError) else []
    errors = [(str(finding["loc"][-1]), str(finding["msg"])) for finding in findings] or [("(path)", "is not valid")]
    return await _on_problem(request, ProblemError(422, "invalid-field", f"{errors[0][0]}: {errors[0][1]}.", errors))


async def _on_crash(request: Request, error: Exception) -> Response:
    log.error("unexpected error on %s", getattr(request.scope.get("route"), "path", "?"), exc_info=error)
    return await _on_problem(request, ProblemError(500, "internal", "Unexpected; see the service's log."))

"""`POST /v1/decisions` without the framework's layers around a route, which cost more than the route.

The endpoint is the one that FastAPI documents and would call; whatever is not exactly this route goes to FastAPI.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.access import DecideRoute, authorise
from service.api.decisions import decisions, router
from service.api.problems import ProblemError

Handler = Callable[[Request, Exception], Awaitable[Response]]
PATH = "/v1/decisions"


class Shortcut:
    """Stands before the application.

    Args:
        app: Whose state the endpoint asks for. otherwise: Takes every other request.
        on_problem, on_crash: Answer what the endpoint raises, as they do for every route.
    """

    def __init__(self, app: FastAPI, otherwise: ASGIApp, on_problem: Handler, on_crash: Handler) -> None:
        self._app, self._otherwise = app, otherwise
        self._on_problem, self._on_crash = on_problem, on_crash
        [self._route] = [
            r for r in router.routes if isinstance(r, DecideRoute) and (r.path, r.methods) == (PATH, {"POST"})
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._otherwise(scope, receive, send)
            return
        scope["app"], scope["route"] = self._app, self._route
        request = Request(scope, receive, send)
        try:
            authorise(request, DecideRoute.scope_needed)
            response = await decisions(request)
        except ProblemError as problem:
            response = await self._on_problem(request, problem)
        except Exception as error:
            response = await self._on_crash(request, error)
        await response(scope, receive, send)

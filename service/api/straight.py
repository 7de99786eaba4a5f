"""`POST /v1/outcomes` and `/v1/events` without the framework's layers around a route, which cost a third of an item.

The endpoints are those that FastAPI documents and would call; whatever is not exactly these routes goes to FastAPI.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.access import OutcomeRoute, authorise
from service.api.intake import router
from service.api.problems import ProblemError

Handler = Callable[[Request, Exception], Awaitable[Response]]


class StraightIntake:
    """Stands before the application.

    Args:
        app: Whose state the endpoints ask for. otherwise: Takes every other request.
        on_problem, on_crash: Answer what an endpoint raises, as they do for every route.
    """

    def __init__(self, app: FastAPI, otherwise: ASGIApp, on_problem: Handler, on_crash: Handler) -> None:
        self._app, self._otherwise = app, otherwise
        self._on_problem, self._on_crash = on_problem, on_crash
        self._routes: dict[str, APIRoute] = {
            route.path: route
            for route in router.routes
            if isinstance(route, OutcomeRoute) and route.methods == {"POST"} and "{" not in route.path
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self._otherwise(scope, receive, send)
            return
        scope["app"], scope["route"] = self._app, route
        request = Request(scope, receive, send)
        try:
            authorise(request, OutcomeRoute.scope_needed)
            response = await route.endpoint(request)
        except ProblemError as problem:
            response = await self._on_problem(request, problem)
        except Exception as error:
            response = await self._on_crash(request, error)
        await response(scope, receive, send)

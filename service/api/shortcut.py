"""Whole requests of the routes that are asked most, without the framework's layers, which cost more than the routes.

The endpoints are those that FastAPI documents and calls for any request that comes in pieces or otherwise than most.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import Scope

from service.api.access import GuardedRoute, authorise
from service.api.body import WholeRequest
from service.api.exchange import Answer
from service.api.observed import Observed
from service.api.problems import ProblemError

Handler = Callable[[Request, Exception], Awaitable[Response]]
PATHS = ("/v1/decisions", "/v1/outcomes", "/v1/events")
"""Whose POST has a shortcut; its endpoint takes nothing but the request."""


class Shortcut:
    """Answers one route.

    Args:
        app: Whose state the endpoint asks for. observed: Stands around it, as it does around the application.
        on_problem, on_crash: Answer what the endpoint raises, as they do for every route.
    """

    def __init__(
        self, app: FastAPI, route: GuardedRoute, observed: Observed, on_problem: Handler, on_crash: Handler
    ) -> None:
        self._app, self._route, self._observed = app, route, observed
        self._on_problem, self._on_crash = on_problem, on_crash

    async def __call__(self, headers: list[tuple[bytes, bytes]], body: bytes) -> Response:
        """Answer one request."""
        scope: Scope = {
            "type": "http", "method": "POST", "path": self._route.path, "headers": headers, "app": self._app,
            "route": self._route,
        }  # fmt: skip
        return await self._observed.whole(scope, self._answer, body)

    async def _answer(self, scope: Scope, body: bytes) -> Response:
        request = WholeRequest(scope, body)
        try:
            authorise(request, self._route.scope_needed)
            response: Response = await self._route.endpoint(request)
        except ProblemError as problem:
            response = await self._on_problem(request, problem)
        except Exception as error:
            response = await self._on_crash(request, error)
        return response


def shortcuts(
    app: FastAPI, routers: Iterable[APIRouter], observed: Observed, on_problem: Handler, on_crash: Handler
) -> Mapping[tuple[bytes, bytes], Answer]:
    """Return (method, target) -> the shortcut of each route that has one."""
    routes = [route for router in routers for route in router.routes]
    return {
        (b"POST", route.path.encode()): Shortcut(app, route, observed, on_problem, on_crash)
        for route in routes
        if isinstance(route, GuardedRoute) and route.path in PATHS and route.methods == {"POST"}
    }

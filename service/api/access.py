"""Who may use a route: asked before the route reads anything, so that a caller without a key learns nothing."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.api.body import sent
from service.api.problems import ProblemError

BEARER = {"WWW-Authenticate": 'Bearer realm="nba"'}


def authorise(request: Request, scope: str) -> None:
    """Let a request pass whose key has the scope, or any request where no key is set.

    Raises:
        ProblemError: 401 without a valid key, 403 where it lacks the scope.
    """
    ring = request.app.state.keys
    if not ring.keys:
        return
    said = sent(request, b"authorization")
    kind, _, secret = said[0].decode("latin-1").partition(" ") if len(said) == 1 else ("", "", "")
    key = ring.find(secret.strip().encode("latin-1")) if kind.lower() == "bearer" else None
    if key is None:
        raise ProblemError(401, "no-key", "Send the header Authorization: Bearer <API key>.", headers=BEARER)
    if scope not in key.scopes:
        raise ProblemError(403, "no-scope", f"This needs a key with the scope {scope}; this key has others.")


class GuardedRoute(APIRoute):
    """A route that needs a scope."""

    scope_needed: str

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Ask for the key before the path's parameters are looked at."""
        handle, scope = super().get_route_handler(), self.scope_needed

        async def guarded(request: Request) -> Response:
            authorise(request, scope)
            return await handle(request)

        return guarded


class DecideRoute(GuardedRoute):
    """Needs the scope decide."""

    scope_needed = "decide"


class OutcomeRoute(GuardedRoute):
    """Needs the scope outcome."""

    scope_needed = "outcome"


class ReadRoute(GuardedRoute):
    """Needs the scope read."""

    scope_needed = "read"


class AdminRoute(GuardedRoute):
    """Needs the scope admin."""

    scope_needed = "admin"


class EraseRoute(GuardedRoute):
    """Needs the scope erase."""

    scope_needed = "erase"

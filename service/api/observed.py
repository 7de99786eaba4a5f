"""What is seen of a request from outside: its id, its line in the log, its span. Stands around the whole application.

Decides what a line holds: route (the template, never the path), status, milliseconds, and what the route noted of its
decision. Never a body, a header but the request's id, or who asked for whom.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any

from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.draining import Draining
from service.api.shedding import Shedding
from service.logs import current_request, write_line
from service.online import Decided
from service.tracing import Tracing

log = logging.getLogger("nba.access")
NOTED = "nba.noted"
_REQUEST_ID = re.compile(rb"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}", re.IGNORECASE)
"""A UUID, with or without dashes: a free text could name a customer."""
IDS_AT_ONCE = 256
_random: list[str] = []
QUIET_ROUTES = ("/livez", "/readyz", "/metrics")
"""Asked by machines every few seconds: their lines are of level DEBUG unless they fail."""


class Observed:
    """Wraps the application: names each request, logs its end, and traces it where that is on."""

    def __init__(self, app: ASGIApp, draining: Draining, tracing: Tracing | None, shedding: Shedding) -> None:
        self._app, self._draining, self._tracing, self._shedding = app, draining, tracing, shedding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._tracing is None:
            await self._answer(scope, receive, send)
        else:
            with self._tracing.request(scope["method"], Headers(scope=scope)) as span:
                status = await self._answer(scope, receive, send)
                self._tracing.finish_request(span, scope["method"], route_of(scope), status, scope[NOTED])

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> int:
        started, status = perf_counter(), 0
        request_id = request_id_of(scope)
        token = current_request.set(request_id)
        scope[NOTED] = {}

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._mark(message["headers"], request_id)
            await send(message)

        try:
            await self._answer_or_shed(scope, receive, send_named)
        except Exception:  # answered with a 500, or cut off where an answer had begun; logged where it was met
            if not status:
                raise
        finally:
            self._say(scope, status, perf_counter() - started)
            current_request.reset(token)
        return status

    async def whole(self, scope: Scope, answer: Callable[[Scope, bytes], Awaitable[Response]], body: bytes) -> Response:
        """Answer one request that is there as a whole, in a task of its own; no span is made."""
        started, status, shedding = perf_counter(), 0, self._shedding
        request_id = request_id_of(scope)
        current_request.set(request_id)
        scope[NOTED] = {}
        try:
            refusal = shedding.refusal(scope)
            if refusal is not None:
                response = refusal.response()
            else:
                shedding.now += 1
                try:
                    response = await answer(scope, body)
                finally:
                    shedding.now -= 1
            status = response.status_code
            self._mark(response.raw_headers, request_id)
        finally:
            self._say(scope, status, perf_counter() - started)
        return response

    async def _answer_or_shed(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._shedding.refusal(scope)
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        self._shedding.now += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._shedding.now -= 1

    def _mark(self, headers: list[tuple[bytes, bytes]], request_id: str) -> None:
        """Add what every answer says: the request's id, and whether to let go of the connection."""
        headers.append((b"x-request-id", request_id.encode()))
        if self._draining.is_on:
            headers.append((b"connection", b"close"))

    def _say(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        level = logging.ERROR if status == 500 else logging.WARNING if status > 500 else logging.INFO
        if level == logging.INFO and route in QUIET_ROUTES:
            level = logging.DEBUG
        if log.isEnabledFor(level):
            said = {"method": _method(scope), "route": route, "status": status, "milliseconds": round(seconds * 1e3, 3)}
            write_line(log, level, "request", {**said, **scope[NOTED]})


def request_id_of(scope: Scope) -> str:
    """Return the caller's X-Request-Id where it is one UUID, else a new one."""
    found = b""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            found = b"" if found else value
    return found.decode().lower() if found and _REQUEST_ID.fullmatch(found) else new_id()


def new_id() -> str:
    """Return 128 random bits; the system is asked for many ids at once."""
    try:
        return _random.pop()
    except IndexError:
        drawn = secrets.token_hex(16 * IDS_AT_ONCE)
        _random.extend(drawn[at : at + 32] for at in range(32, len(drawn), 32))
        return drawn[:32]


def route_of(scope: MutableMapping[str, Any]) -> str:
    """Return the template of the route that took the request; `none` where no route did."""
    return str(getattr(scope.get("route"), "path", "none"))


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH") else "?"


def note_decision(request: Request, decided: Decided) -> None:
    """Note what the request's line and span say of its decision."""
    noted = request.scope.get(NOTED)
    if noted is None:
        return
    noted["decision_id"] = decided.decision_id
    if decided.degraded_reasons:
        noted["degraded"] = decided.degraded_reasons
    model = decided.model
    noted["versions"] = {
        "catalogue": decided.serving.catalogue.catalogue.version,
        "model": model.scorer.version,
        "features": model.bundle.features_version,
    }

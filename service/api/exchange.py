"""A whole request and its answer, which leaves in one write. Stands on a connection where uvicorn has its own cycle.

Knows no route: what answers is given. uvicorn queues it behind earlier requests of the connection, waits for it when
the process ends, and tells it when the caller is gone, as it does with its own.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

if TYPE_CHECKING:
    from service.api.wire import Wire

Answer = Callable[[list[tuple[bytes, bytes]], bytes], Awaitable[Response]]
"""Given the headers, names in lower case, and the body."""
log = logging.getLogger("uvicorn.error")


class _Nobody:
    """What uvicorn would wake when a caller goes: nobody waits for the rest of a whole request."""

    def set(self) -> None:
        pass


class Exchange:
    """One request of a connection.

    Attributes:
        keep_alive, disconnected, response_started, response_complete, message_event: As uvicorn's cycle has them.
    """

    __slots__ = (
        "_body", "_headers", "_wire", "disconnected", "keep_alive", "response_complete", "response_started",
    )  # fmt: skip
    message_event = _Nobody()

    def __init__(self, wire: Wire, body: bytes) -> None:
        self._wire, self._headers, self._body = wire, wire.headers, body
        self.keep_alive = wire.parser.get_http_version() != "1.0" and wire.parser.should_keep_alive()
        self.disconnected = self.response_started = self.response_complete = False

    async def run_asgi(self, answer: Answer) -> None:
        """Answer, and let the connection go on."""
        wire = self._wire
        try:
            response = await answer(self._headers, self._body)
            if wire.flow.write_paused and not self.disconnected:
                await wire.flow.drain()
        except BaseException as error:
            log.error("Exception in ASGI application\n", exc_info=error)
            response = _broken()
        if self.disconnected:
            return
        self.response_started = self.response_complete = True
        wire.transport.write(self._written(response))
        if not self.keep_alive:
            wire.transport.close()
        wire.on_response_complete()

    def _written(self, response: Response) -> bytes:
        """Return the answer as it goes over the wire; one that ends the connection says so."""
        lines = [STATUS_LINE[response.status_code]]
        says_close = False
        for name, value in (*self._wire.server_state.default_headers, *response.raw_headers):
            lines += (name, b": ", value, b"\r\n")
            if name == b"connection" and value == b"close":
                says_close, self.keep_alive = True, False
        if not self.keep_alive and not says_close:
            lines.append(b"connection: close\r\n")
        lines += (b"\r\n", bytes(response.body))
        return b"".join(lines)


def _broken() -> Response:
    """Return what uvicorn answers where the application could not."""
    response = Response(b"Internal Server Error", 500)
    response.raw_headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"21"),
        (b"connection", b"close"),
    ]
    return response

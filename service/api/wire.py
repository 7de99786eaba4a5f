"""The HTTP connection: how long a caller may take and how much they may send before a route is asked at all.

uvicorn waits for ever for the rest of a request, for any number of header bytes, and for a caller who does not read.
This protocol ends such connections, after an absolute time and not an idle one, so that one byte a second helps nobody.
A request that comes whole in one piece, as nearly all do, costs no timer; where it has a shortcut, it is answered as it
is and with one write, without what ASGI needs for requests that still come. Knows no route and no body's meaning.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.exchange import Answer, Exchange
from service.api.problems import MEDIA_TYPE, ProblemError
from service.logs import write_line

log = logging.getLogger("nba.access")

HEAD_SECONDS = 5.0
"""For the headers, from the first byte, and for the first byte of a new connection."""
REQUEST_SECONDS = 10.0
"""For headers and body together."""
LINGER_SECONDS = 2.0
"""For the rest of a request that was answered before it was whole: what is in flight may still come."""
WRITE_SECONDS = 10.0
"""For a caller to read when the send buffer is full, and to let go of a closed connection."""
HEAD_BYTES, REQUEST_BYTES, LINGER_BYTES = 32 * 1024, 16 * 1024 * 1024, 256 * 1024


class Wire(HttpToolsProtocol):
    """uvicorn's protocol with deadlines and limits. Give it to `uvicorn.Config(http=Wire)`."""

    on_refusal: Callable[[int], None] = staticmethod(lambda status: None)
    shortcuts: Mapping[tuple[bytes, bytes], Answer] = {}
    cycle: Any
    pipeline: Any
    _answer: Answer | None = None
    _pieces: list[bytes]
    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _started = 0.0
    _received = _after_answer = 0
    _is_whole = _has_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for a first request."""
        super().connection_made(transport)
        self._wait(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._is_whole = self._has_head = False
        self._received = self._after_answer = 0

    def on_headers_complete(self) -> None:
        """Its headers are here: see whether it has a shortcut, which it takes if the rest comes with them."""
        self._has_head = True
        self._answer = self.shortcuts.get((self.parser.get_method(), self.url))
        self._pieces = []
        if self._answer is None or self.expect_100_continue or self.parser.should_upgrade():
            self._hand_over()

    def _hand_over(self) -> None:
        """Let uvicorn begin the request, as it does as soon as the headers are here, with what is there of its body."""
        url, headers, expects, self._answer = self.url, self.headers, self.expect_100_continue, None
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()
        for piece in self._pieces:
            super().on_body(piece)

    def on_body(self, body: bytes) -> None:
        """A piece of its body is here."""
        if self._answer is None:
            super().on_body(body)
        else:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """It is whole."""
        self._is_whole = True
        if self._answer is None:
            super().on_message_complete()
            return
        before, self.cycle = self.cycle, Exchange(self, b"".join(self._pieces))
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, cast(Any, self._answer))
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self._answer))
        self._answer = None

    def data_received(self, data: bytes) -> None:
        """Take bytes; where they leave a request unfinished, see how long and how large it is."""
        super().data_received(data)
        if self._answer is not None:
            self._hand_over()
        if not self._is_whole:
            if not self.transport.is_closing():
                self._unfinished(len(data))
        elif self._is_answered():
            self._between_requests()
        elif self._timer is not None:
            self._stop_waiting()

    def _between_requests(self) -> None:
        """The rest of a request that was answered before, or blank lines: uvicorn stopped its idle timer for them."""
        self._has_head, self._received = False, 0
        if self._timer is None:
            self._wait(HEAD_SECONDS)

    def _unfinished(self, n_bytes: int) -> None:
        self._received += n_bytes
        if self._timer is None or self._received == n_bytes:
            self._stop_waiting()
            self._started = self.loop.time()
            self._wait(HEAD_SECONDS)
        if not self._has_head:
            if self._received > HEAD_BYTES:
                self._refuse(ProblemError(431, "headers", f"The headers are larger than {HEAD_BYTES} bytes."))
        elif self._is_answered():
            self._linger(n_bytes)
        elif self._received > REQUEST_BYTES:
            self._refuse(ProblemError(413, "too-large", "The request is too large, however its body is cut."))

    def _linger(self, n_bytes: int) -> None:
        if self._after_answer == 0:
            self._stop_waiting()
            self._wait(LINGER_SECONDS)
        self._after_answer += n_bytes
        if self._after_answer > LINGER_BYTES:
            self.transport.abort()

    def _is_answered(self) -> bool:
        return self.cycle is not None and bool(self.cycle.response_complete)

    def _wait(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._too_late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        left = self._started + REQUEST_SECONDS - self.loop.time()
        if self._has_head and not self._is_answered() and left > 0:
            self._wait(left)
        elif self._received == 0 or self._is_answered():
            self._close()
        else:
            self._refuse(
                ProblemError(
                    408, "too-slow", f"Headers may take {HEAD_SECONDS:g} s and a request {REQUEST_SECONDS:g} s."
                )
            )

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the form of all other problems and without repeating it."""
        if self._answer is not None:
            self._hand_over()
        self._refuse(ProblemError(400, "not-http", "This is not a valid HTTP/1.1 request."))

    def _refuse(self, problem: ProblemError) -> None:
        """Answer before any route could, unless an answer has begun, and end the connection."""
        type(self).on_refusal(problem.status)
        write_line(log, logging.INFO, "refused", {"status": problem.status, "why": problem.slug})
        cycle = self.cycle
        is_open = cycle is not None and not cycle.response_complete
        begun = is_open and cycle.response_started
        if is_open:
            cycle.disconnected = True
            cycle.message_event.set()
        if not begun and not (self._has_head and not self._is_whole and self._is_answered()):
            body = problem.body()
            head = (
                f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self._close()

    def _close(self) -> None:
        self.transport.close()
        self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def on_response_complete(self) -> None:
        """Go on to the next request, or see that a closing connection does close."""
        super().on_response_complete()
        if self.transport.is_closing():
            self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that asks nothing more, even if its caller never reads the last answer."""
        if not self.transport.is_closing():
            self._close()

    def pause_writing(self) -> None:
        """The caller does not read: give them a moment."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller reads on."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def server_options(
    on_refusal: Callable[[int], None] = lambda status: None,
    shortcuts: Mapping[tuple[bytes, bytes], Answer] | None = None,
) -> dict[str, Any]:
    """Return what every `uvicorn.Config` of this service must say.

    Args:
        on_refusal: Told the status of each request that ended before any route was asked.
        shortcuts: (method, target) -> what answers such a request where it comes whole; else the application does.
    """
    own = {"on_refusal": staticmethod(on_refusal), "shortcuts": shortcuts or {}}
    return {
        "http": type("Wire", (Wire,), own),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "proxy_headers": False,  # nothing asks who called or by which scheme
        "server_header": False,
        "timeout_graceful_shutdown": 5,
    }

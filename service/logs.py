"""The log: one JSON line an event, on stderr, and no line holds what a caller sent or what is known of a customer.

Decides which text may be written. Messages of our own loggers are; of foreign ones only the constant part, of
exceptions but a few of ours only the kind and where they arose, since both may repeat a body, a key or a value. What a
request was about is said by fields that the API chooses. Knows no route and no store.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from asyncio import _get_running_loop
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, TextIO

import msgspec

OWN = ("nba", "service", "features", "training", "uvicorn")
"""Loggers whose messages are constants of the code and harmless arguments."""
QUOTED = (
    "BundleRefused", "CatalogueError", "ClockFileError", "EmbeddedServerError", "KeysError", "LakeConflict", "NotOwner",
    "StoreUnavailable",
)  # fmt: skip
"""Our exceptions whose text is written for the log. Others, also ours, may repeat what could not be read."""
MAX_EVENT, MAX_FRAMES = 2_000, 6
current_request: ContextVar[str | None] = ContextVar("nba_request", default=None)
"""The request that the present task answers, so that each line on the way can name it."""


_encode = msgspec.json.Encoder().encode


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON.

    Args:
        trusts_all: Write foreign messages and exceptions whole; for processes that never see a customer.
    """

    def __init__(self, *, trusts_all: bool = False) -> None:
        super().__init__()
        self._trusts_all = trusts_all

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, Any] = {
            "time": _moment(record.created),
            "level": record.levelname.lower(),
            "event": record.msg if isinstance(record, _Line) else self._event(record)[:MAX_EVENT],
            "logger": record.name,
        }
        request_id = current_request.get()
        if request_id is not None:
            line["request_id"] = request_id
        fields: dict[str, Any] | None = record.__dict__.get("fields")
        if fields:
            line.update(fields)
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = self._said(record.exc_info[1])
            line["where"] = where(record.exc_info[1].__traceback__)
        elif fields:  # of a line that comes with each request: short texts of our own
            with suppress(UnicodeEncodeError):
                return _encode(line).decode()
        return json.dumps(line, default=lambda value: type(value).__name__)

    def _event(self, record: logging.LogRecord) -> str:
        if self._trusts_all or record.name.partition(".")[0] in OWN:
            arguments = record.args
            if isinstance(arguments, tuple):
                arguments = tuple(self._said(a) if isinstance(a, BaseException) else a for a in arguments)
            return str(record.msg) % arguments if arguments else str(record.msg).strip()
        if record.name == "py.warnings" and isinstance(record.args, tuple) and record.args:
            return ": ".join(str(record.args[0]).split(": ", 2)[:2])
        return str(record.msg).partition("\n")[0] if isinstance(record.msg, str) else type(record.msg).__name__

    def _said(self, error: BaseException) -> str:
        kind = type(error).__name__
        is_quoted = kind in QUOTED and type(error).__module__.startswith("service.")
        if self._trusts_all or is_quoted:
            return f"{kind}: {error}"[:MAX_EVENT]
        if isinstance(error, OSError) and error.strerror:
            return f"{kind}: {error.strerror}"
        return kind


def _moment(at: float) -> str:
    """Return a Unix time in UTC, to the millisecond below."""
    second = int(at)
    return f"{_second(second)}.{int((at - second) * 1000):03d}Z"


@lru_cache(2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


_PLAIN = vars(logging.LogRecord("", 0, "", 0, "", None, None))


class _Line(logging.LogRecord):
    """A record of `write_line`: what the standard record finds out of process, thread and caller is never asked."""

    def __init__(self, name: str, level: int, event: str, fields: dict[str, Any]) -> None:
        created = time.time()
        self.__dict__ = {
            **_PLAIN,
            "name": name,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": event,
            "created": created,
            "msecs": created % 1 * 1000,
            "fields": fields,
        }


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream; those that come with each request together, once a turn of the event loop."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line now, or at the end of the turn where it comes with a request."""
        try:
            line = self.format(record) + self.terminator
            loop = _get_running_loop() if hasattr(record, "fields") else None
            self._waiting.append(line)
            if loop is None:
                self.flush()
            elif len(self._waiting) == 1:
                loop.call_soon(self.flush)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits."""
        with self.lock or nullcontext(), suppress(OSError, ValueError):  # a reader that went away ends no request
            waiting, self._waiting = self._waiting, []
            if waiting:
                self.stream.write("".join(waiting))
            super().flush()


def where(trace: TracebackType | None) -> list[str]:
    """Return the innermost frames as `file:line function`, without the code's text or any value."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)[-MAX_FRAMES:]]


def set_up_logs(level: str, *, trusts_all: bool = False) -> None:
    """Send every logger of this process, its warnings and its last exception through one formatter to stderr.

    Args:
        level: The least level that is written.
        trusts_all: As of `JsonLines`.
    """
    handler = LineHandler(sys.stderr)
    handler.setFormatter(JsonLines(trusts_all=trusts_all))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.error").addFilter(_is_told)
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    sys.excepthook = _on_last_exception
    threading.excepthook = lambda ended: _on_last_exception(ended.exc_type, ended.exc_value, ended.exc_traceback)


def _is_told(record: logging.LogRecord) -> bool:
    """Leave out a failure to start that the server logs as a text of its stack: it is raised again, and told then."""
    return not (isinstance(record.msg, str) and record.msg.startswith("Traceback (most recent call last)"))


def write_line(logger: logging.Logger, level: int, event: str, fields: dict[str, Any]) -> None:
    """Write an event with fields, without looking for the caller in the stack: for lines that come with each request.

    Args:
        fields: Written as they are; the caller chooses them so that none says anything of a customer.
    """
    if logger.isEnabledFor(level):
        logger.handle(_Line(logger.name, level, event, fields))


def _on_last_exception(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("nba").critical("a defect ended this", exc_info=(kind, error, trace))

"""`nba serve`: one serving process here, or a supervisor of several. Imports little before it is known which.

A supervisor waits for its serving processes and they for the imports, so nothing that only the commands beside it need
(the parser of the command line, tables, progress bars) is loaded here.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack

from service.logs import set_up_logs
from service.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Stop(Exception):
    """Ends a command with one sentence."""


def serve(workers: int = 1, inherited: str = "") -> None:
    """Serve until a signal.

    Args:
        workers: Serving processes on the one port.
        inherited: Numbers of the socket and the link that a supervisor gave, with a comma; "": nobody did.

    Raises:
        Stop: Where it may not listen, or cannot.
    """
    settings = Settings()
    set_up_logs(settings.log_level)
    if settings.host not in LOOPBACK:
        _ask_for_a_key(settings)
    if inherited:
        bound, link = (socket.socket(fileno=int(number)) for number in inherited.split(","))
        _serve_here(settings, bound, link)
        return
    bound = listening_socket(settings.host, settings.port, "NBA_PORT")
    if workers == 1:
        _announce(settings, "")
        _serve_here(settings, bound, None)
    else:
        sys.exit(_supervise(settings, bound, workers))


def listening_socket(host: str, port: int, variable: str) -> socket.socket:
    """Bind a port, or say who may have it."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Stop(
                f"port {port} on {host} is taken by another program; stop that one, or choose another: "
                f"{variable}={port + 1}"
            ) from None
        raise Stop(f"cannot listen on {host}:{port} ({error.strerror}); check {variable} and NBA_HOST") from None
    return bound


def _ask_for_a_key(settings: Settings) -> None:
    from service.api.keys import read_keys

    if not read_keys(settings).keys:
        raise Stop(
            f"refusing to listen on {settings.host} without a key; set NBA_API_KEY or NBA_API_KEYS, "
            "or NBA_HOST=127.0.0.1"
        )


def _serve_here(settings: Settings, bound: socket.socket, link: socket.socket | None) -> None:
    gc.disable()  # what is loaded at the start is no garbage; `Server.startup` enables it again
    from service.api.app import create_app
    from service.api.server import run

    run(create_app(settings), bound, link, settings.log_level.lower())


def _supervise(settings: Settings, bound: socket.socket, workers: int) -> int:
    """Hold one socket, and the embedded server where it is used; start this very command for each process."""
    from service.supervisor import DRAIN_SECONDS, Supervisor

    counts = settings.var / "metrics" / str(settings.port)
    shutil.rmtree(counts, ignore_errors=True)
    counts.mkdir(parents=True)
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(counts)}

    def start(link: socket.socket) -> subprocess.Popen[bytes]:
        given = (bound.fileno(), link.fileno())
        command = [sys.executable, "-m", "service.cli", "serve", "--inherited", f"{given[0]},{given[1]}"]
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, pass_fds=given, process_group=0
        )  # a group of its own: Ctrl-C reaches the supervisor alone, which ends them in order

    stack = ExitStack()

    def on_ready() -> None:
        if settings.redis_url is None:  # held from now on, so that it outlives any serving process that started it
            from service.adapters.embedded import EmbeddedServer

            stack.enter_context(EmbeddedServer(settings.var))
        _announce(settings, f", {workers} processes")

    def on_end(pid: int) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid, str(counts))  # type: ignore[no-untyped-call]

    supervisor = Supervisor(
        workers, start, on_end=on_end, on_ready=on_ready, drain_seconds=DRAIN_SECONDS + settings.drain_seconds
    )
    with stack:
        return supervisor.run(bound)


def _announce(settings: Settings, more: str) -> None:
    has_docs = settings.host in LOOPBACK if settings.docs is None else settings.docs
    pages = ", documentation on /docs" if has_docs else ""
    said = f"decisions on http://{settings.host}:{settings.port}/v1/decisions{pages}{more}"
    if sys.stderr.isatty():
        print(f"nba: {said}", file=sys.stderr, flush=True)
    else:  # a log that machines read has nothing but its lines
        logging.getLogger("nba").info(said)

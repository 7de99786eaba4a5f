"""One serving process: uvicorn with this service's wire, and a link to the supervisor where there is one."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket

import uvicorn
from fastapi import FastAPI

from service.api.draining import DrainingServer
from service.seat import BEAT_SECONDS


class Server(DrainingServer):
    """Tells its supervisor that it is warm, then that it lives; ends when the supervisor is gone."""

    def __init__(self, config: uvicorn.Config, link: socket.socket | None = None) -> None:
        super().__init__(config)
        self._link = link

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the application, warm, then listen: who is refused until then asks another process or again."""
        await super().startup(sockets)
        gc.freeze()  # code, catalogue and model live as long as the process: no collection need walk them
        gc.enable()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.make_room)
        if self._link is not None:
            self._link.setblocking(False)
            self._beat(self._link, asyncio.get_running_loop())

    def _beat(self, link: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        try:
            link.send(b"+")
        except BlockingIOError:
            pass  # the supervisor stands still, which is no reason to stop serving
        except OSError:
            self.should_exit = True
        loop.call_later(BEAT_SECONDS, self._beat, link, loop)


def run(application: FastAPI, bound: socket.socket, link: socket.socket | None, log_level: str) -> None:
    """Serve on a bound socket until a signal.

    Raises:
        Exception: What kept the application from starting.
    """
    config = uvicorn.Config(application, log_level=log_level, **application.state.server_options)
    server = Server(config, link)
    server.draining = application.state.draining
    server.drain_seconds = application.state.settings.drain_seconds
    try:
        server.run(sockets=[bound])
    except SystemExit:  # a start that failed
        if application.state.failure is not None:
            raise application.state.failure from None
        raise
    finally:
        gc.unfreeze()  # so that the model goes before its library does, which complains of what is left

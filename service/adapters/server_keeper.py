"""Brings the embedded server back when it has died. Decides when to look; knows nothing of what is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from service.adapters.embedded import EmbeddedServer, EmbeddedServerError

LOOK_SECONDS = 0.25
RETRY_SECONDS = 5.0

log = logging.getLogger("nba")


async def keep_running(server: EmbeddedServer, url: str, stop: asyncio.Event, moved: Callable[[str], None]) -> None:
    """Look whether the server runs, a few system calls each time, and start it again with all its data where not.

    Args:
        url: Where it was. stop: Ends this, but never in the middle of a start, which would leave a server behind.
        moved: Called with the new URL where the old port was taken meanwhile.
    """
    pause = LOOK_SECONDS
    while not await _is_set_within(stop, pause):
        pause = LOOK_SECONDS
        if server.is_running():
            continue
        log.error("the embedded server is gone; starting it again")
        try:
            found = await asyncio.to_thread(server.ensure)
        except EmbeddedServerError as error:
            log.error("%s; trying again in %.0f s", error, RETRY_SECONDS)
            pause = RETRY_SECONDS
            continue
        log.warning("the embedded server is back")
        if found != url:
            url = found
            moved(url)


async def _is_set_within(stop: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await stop.wait()
    except TimeoutError:
        return False

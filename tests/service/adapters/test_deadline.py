"""A deadline is about the server: a loop that was busy reads what arrived before it gives up."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.adapters.deadline import Deadline


async def _answer_soon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.readexactly(4)
        writer.write(b"pong")
        await writer.drain()
        await reader.read()
    except asyncio.IncompleteReadError:
        pass
    finally:
        writer.close()


async def _exchange(port: int, *, is_busy: bool, is_silent: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with Deadline(0.02):
            writer.write(b"pin" if is_silent else b"ping")
            await asyncio.sleep(0)
            if is_busy:
                time.sleep(0.1)
            return await reader.readexactly(4)
    finally:
        writer.close()
        await writer.wait_closed()


async def _served(*, is_busy: bool, is_silent: bool = False) -> bytes:
    """Ask a server in a thread of its own, so that a busy loop here does not hold it up."""
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    home = asyncio.get_running_loop()
    stop = asyncio.Event()
    away: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        server = await asyncio.start_server(_answer_soon, "127.0.0.1", 0)
        away.append(asyncio.get_running_loop())
        home.call_soon_threadsafe(ready.set_result, server.sockets[0].getsockname()[1])
        await stop.wait()
        server.close()
        await server.wait_closed()

    thread = asyncio.create_task(asyncio.to_thread(asyncio.run, serve()))
    try:
        return await _exchange(await ready, is_busy=is_busy, is_silent=is_silent)
    finally:
        away[0].call_soon_threadsafe(stop.set)
        await thread


def test_a_reply_that_arrived_while_the_loop_was_busy_counts() -> None:
    """The loop was busy five times the deadline; the reply lay in the socket and is taken."""
    assert asyncio.run(_served(is_busy=True)) == b"pong"


def test_silence_ends_at_the_deadline() -> None:
    """A server that does not answer costs the deadline and ends in TimeoutError."""
    with pytest.raises(TimeoutError):
        asyncio.run(_served(is_busy=False, is_silent=True))
    with pytest.raises(TimeoutError):
        asyncio.run(_served(is_busy=True, is_silent=True))


def test_a_cancellation_from_outside_stays_one() -> None:
    """Who cancels the task gets a cancelled task, not a TimeoutError."""

    async def patient() -> None:
        async with Deadline(10):
            await asyncio.sleep(10)

    async def cancelled() -> None:
        task = asyncio.create_task(patient())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())

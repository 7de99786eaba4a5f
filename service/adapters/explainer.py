"""`ports.Explainer` by a child process: started when the first explanation is asked for, ended when none is for long.

Decides how long to wait and when to give a child up. Who asks while the child still loads is told that there is no
explanation yet, and not kept waiting beyond the deadline.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from service.adapters.explainer_child import LENGTH, Answer, Question, frame
from service.decision.model import Floats
from service.ports import ExplanationUnavailable

log = logging.getLogger("nba")
MODULE = "service.adapters.explainer_child"
HANG_SECONDS = 20.0
"""A child that owes an answer for so long is killed."""
IDLE_SECONDS = 900.0
"""A child that nobody asks for so long is ended: its memory is that of LightGBM."""
MOST_WAITING = 16
_decode = msgspec.msgpack.Decoder(Answer).decode


class ChildExplainer:
    """Asks one child process.

    Args:
        models: Folder of bundles.
    """

    def __init__(self, models: Path, *, idle_seconds: float = IDLE_SECONDS, hang_seconds: float = HANG_SECONDS) -> None:
        self._models = models
        self._idle_seconds, self._hang_seconds = idle_seconds, hang_seconds
        self._child: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._owed: dict[int, float] = {}
        self._starting = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._number = 0

    @property
    def pid(self) -> int | None:
        """Return the id of the child, or None where there is none."""
        return self._child.pid if self._child is not None else None

    async def contributions(self, digest: str, rows: Floats, deadline_seconds: float) -> Floats:
        """Return what each input adds to the raw log-odds of each row, (n_rows, n_inputs + 1), the last the base.

        Raises:
            ExplanationUnavailable: It did not come in time, or cannot come; asking again later may help.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise ExplanationUnavailable("too many explanations are asked for at once")
        try:
            answer = await asyncio.wait_for(self._ask(digest, rows), max(deadline_seconds, 0.001))
        except TimeoutError:
            raise ExplanationUnavailable("it did not come within the deadline; ask for the decision again") from None
        if answer.error:
            raise ExplanationUnavailable(f"the model of then cannot be explained ({answer.error})")
        return np.frombuffer(answer.contributions, "<f8").reshape(len(rows), -1).astype(np.float64)

    async def close(self) -> None:
        """End the child."""
        if self._idle is not None:
            self._idle.cancel()
        child, reading, self._child, self._reading = self._child, self._reading, None, None
        if child is not None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        if reading is not None:
            await reading

    async def _ask(self, digest: str, rows: Floats) -> Answer:
        stdin = (await asyncio.shield(self._running())).stdin
        self._number += 1
        number, future = self._number, asyncio.get_running_loop().create_future()
        self._waiting[number], self._owed[number] = future, time.monotonic()
        try:
            if stdin is None or stdin.is_closing():
                raise ExplanationUnavailable("the explaining process has ended; ask for the decision again")
            stdin.write(frame(Question(number, digest, len(rows), np.ascontiguousarray(rows, "<f8").tobytes())))
            answer: Answer = await future
            return answer
        finally:
            self._waiting.pop(number, None)

    async def _running(self) -> asyncio.subprocess.Process:
        """Return the child; start one where there is none, or where it hangs."""
        async with self._starting:
            self._put_off_the_end()
            oldest = min(self._owed.values(), default=None)
            if self._child is not None and oldest is not None and time.monotonic() - oldest > self._hang_seconds:
                log.error("the explaining process hangs and is killed")
                await self._end()
            if self._child is None or self._child.returncode is not None:
                self._owed.clear()
                self._child = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", MODULE, str(self._models),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                )  # fmt: skip
                self._reading = asyncio.create_task(self._read(self._child))
            return self._child

    async def _end_idle(self) -> None:
        """End the child, unless it still owes an answer."""
        if self._owed:
            self._put_off_the_end()
        else:
            await self._end()

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        """Give answers to who waits; those that nobody waits for any more are dropped."""
        if child.stdout is None:
            return
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = LENGTH.unpack(await child.stdout.readexactly(LENGTH.size))[0]
                answer = _decode(await child.stdout.readexactly(size))
                self._owed.pop(answer.number, None)
                future = self._waiting.get(answer.number)
                if future is not None and not future.done():
                    future.set_result(answer)
        await child.wait()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ExplanationUnavailable("the explaining process ended; ask for the decision again"))

    def _put_off_the_end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(self._idle_seconds, lambda: loop.create_task(self._end_idle()))

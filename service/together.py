"""Lets those who ask in the same turn of the event loop share one pass: the core and the store take many as one.

Nobody waits for company: who is alone goes on at once. Knows neither questions nor answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


class _Alone(Exception):
    """The shared pass came to nothing; each goes again by itself."""


class Together(Generic[Key, Item, Result]):
    """Collects items under equal keys and answers them together.

    The first to ask lets every other task that is ready ask as well, waits until fewer than `passes` are under way, and
    then makes the pass for all in its own task: the busier the loop, the larger the passes and the less each item
    costs. Where a pass raises, each goes alone, so that nobody fails for what another asked.

    Args:
        answer: Given a key and items, returns their results in order.
        most: Greatest number of items in a pass; 1: everybody goes alone and at once.
        passes: How many may be under way at once, whatever their keys.
    """

    def __init__(
        self, answer: Callable[[Key, Sequence[Item]], Awaitable[Sequence[Result]]], most: int, passes: int
    ) -> None:
        self.most = most
        self._answer = answer
        self._waiting: dict[Key, list[tuple[Item, asyncio.Future[Result]]]] = {}
        self._turns = asyncio.Semaphore(passes)

    async def ask(self, key: Key, item: Item) -> Result:
        """Return the item's result."""
        if self.most == 1:
            return (await self._answer(key, (item,)))[0]
        others = self._waiting.get(key)
        if others is None or len(others) == self.most - 1:
            return await self._lead(key, item)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        others.append((item, future))
        try:
            return await future
        except _Alone:
            return (await self._answer(key, (item,)))[0]

    async def _lead(self, key: Key, item: Item) -> Result:
        others = self._waiting[key] = []
        try:
            await self._gather_company(key, others)
            try:
                first, *results = await self._answer(key, [item, *(other for other, _ in others)])
            finally:
                self._turns.release()
        except BaseException as error:
            for _, future in others:
                if not future.done():
                    future.set_exception(_Alone())
            if not others or not isinstance(error, Exception):
                raise
            return (await self._answer(key, (item,)))[0]
        for (_, future), result in zip(others, results, strict=True):
            if not future.done():
                future.set_result(result)
        return first

    async def _gather_company(self, key: Key, others: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        """Wait for the next turn of the loop and for a free pass; who asks from then on begins another."""
        try:
            await asyncio.sleep(0)
            await self._turns.acquire()
        finally:
            if self._waiting.get(key) is others:
                del self._waiting[key]

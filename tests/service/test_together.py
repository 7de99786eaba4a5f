"""Those who ask at once share a pass."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from service.together import Together


class Passes:
    """Answers with tens, and notes each pass; items below zero break the pass that they are in."""

    def __init__(self, most: int = 8, passes: int = 1) -> None:
        self.seen: list[tuple[str, list[int]]] = []
        self.under_way = self.most_under_way = 0
        self.together: Together[str, int, int] = Together(self.answer, most, passes)

    async def answer(self, key: str, items: Sequence[int]) -> list[int]:
        """Answer a pass."""
        self.seen.append((key, list(items)))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0.02)
            if min(items) < 0:
                raise ValueError(f"{min(items)} is below zero")
            return [10 * item for item in items]
        finally:
            self.under_way -= 1


def test_who_asks_in_one_turn_shares_a_pass_by_key() -> None:
    """Equal keys go together in the order of asking, other keys in a pass of their own, each with its own result."""

    async def ask() -> tuple[Passes, list[int]]:
        passes = Passes()
        return passes, await asyncio.gather(*(passes.together.ask("ab"[i % 2], i) for i in range(6)))

    passes, results = asyncio.run(ask())
    assert results == [0, 10, 20, 30, 40, 50]
    assert passes.seen == [("a", [0, 2, 4]), ("b", [1, 3, 5])]
    assert passes.most_under_way == 1


def test_who_comes_while_a_pass_is_under_way_goes_in_the_next() -> None:
    """No more than the given number of passes is under way, and a pass has at most its greatest number of items."""

    async def ask() -> Passes:
        passes = Passes(most=3, passes=2)
        tasks = []
        for i in range(20):
            tasks.append(asyncio.create_task(passes.together.ask("a", i)))
            await asyncio.sleep(0)
        assert await asyncio.gather(*tasks) == [10 * i for i in range(20)]
        return passes

    passes = asyncio.run(ask())
    assert passes.most_under_way == 2
    assert max(len(items) for _, items in passes.seen) == 3
    assert sorted(i for _, items in passes.seen for i in items) == list(range(20))


def test_nobody_fails_for_what_another_asked() -> None:
    """Where a pass raises each item goes alone, and only the one at fault gets the error."""

    async def ask() -> list[int | BaseException]:
        passes = Passes()
        items = (1, -2, 3, 4)
        return await asyncio.gather(*(passes.together.ask("a", i) for i in items), return_exceptions=True)

    one, broken, three, four = asyncio.run(ask())
    assert (one, three, four) == (10, 30, 40)
    assert isinstance(broken, ValueError)


@pytest.mark.parametrize("after_turns", [0, 1, 3])
def test_who_leads_may_be_cancelled(after_turns: int) -> None:
    """The others of the pass get their results, whenever the first of them goes away, and later passes go on."""

    async def ask() -> tuple[list[int], int]:
        passes = Passes()
        tasks = [asyncio.create_task(passes.together.ask("a", i)) for i in range(3)]
        for _ in range(after_turns):
            await asyncio.sleep(0)
        tasks[0].cancel()
        rest = await asyncio.gather(*tasks[1:])
        assert tasks[0].cancelled()
        return rest, await passes.together.ask("a", 7)

    assert asyncio.run(ask()) == ([10, 20], 70)


def test_alone_means_at_once() -> None:
    """With passes of one nobody waits for anybody."""

    async def ask() -> Passes:
        passes = Passes(most=1)
        assert await asyncio.gather(*(passes.together.ask("a", i) for i in range(4))) == [0, 10, 20, 30]
        return passes

    passes = asyncio.run(ask())
    assert passes.most_under_way == 4

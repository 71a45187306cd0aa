"""Workers: one answer for equal questions, nothing kept of a failure, whoever was still there to see it."""

import asyncio
from typing import Any

import pytest

from moelab.app.workers import Workers
from moelab.errors import InputError


class Counting(Workers):
    """Answers in this process, slowly, and counts."""

    def __init__(self) -> None:
        super().__init__(1, int)
        self.begun = 0

    def _pool(self) -> Any:
        return None

    async def _run(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        self.begun += 1
        await asyncio.sleep(0.01)
        return function(*arguments)


def refuse() -> None:
    raise InputError("flops: wrong")


def test_equal_questions_share_an_answer() -> None:
    async def act() -> None:
        workers = Counting()
        assert await asyncio.gather(*(workers.ask("a", lambda: 7) for _ in range(3))) == [7, 7, 7]
        assert await workers.ask("a", lambda: 8) == 7
        assert workers.begun == 1

    asyncio.run(act())


def test_a_failure_is_not_kept_even_where_the_asker_has_left() -> None:
    async def act() -> None:
        workers = Counting()
        with pytest.raises(InputError):
            await workers.ask("a", refuse)
        assert not workers.kept
        left = asyncio.ensure_future(workers.ask("a", refuse))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0.05)
        assert not workers.kept
        assert await workers.ask("a", lambda: 9) == 9

    asyncio.run(act())

"""Workers: one answer for equal questions, nothing kept of a failure, whoever was still there to see it."""

import asyncio
from typing import Any

import pytest

from moelab.app.workers import LATER, Process, Workers
from moelab.errors import InputError, MoelabError


class Slow(Process):
    """Answers in this process, slowly, and counts."""

    begun: list[Any]

    def __init__(self, warm: Any) -> None:
        super().__init__(warm)
        self.begun = []

    def _pool(self) -> Any:
        return None

    async def _run(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        self.begun.append(arguments)
        await asyncio.sleep(0.01)
        return function(*arguments)


def slow(count: int = 1) -> Workers:
    return Workers(count, int, Slow)


def begun(workers: Workers) -> list[list[Any]]:
    """The first argument of each question that every process began, in order."""
    return [[each[0] for each in process.begun] for process in workers.processes]  # type: ignore[attr-defined]


def refuse() -> None:
    raise InputError("flops: wrong")


def test_equal_questions_share_an_answer() -> None:
    async def act() -> None:
        workers = slow()
        assert await asyncio.gather(*(workers.ask("a", lambda: 7) for _ in range(3))) == [7, 7, 7]
        assert await workers.ask("a", lambda: 8) == 7
        assert len(workers.processes[0].begun) == 1  # type: ignore[attr-defined]

    asyncio.run(act())


def test_a_failure_is_not_kept_even_where_the_asker_has_left() -> None:
    async def act() -> None:
        workers = slow()
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


def test_what_follows_goes_to_the_process_of_its_answer() -> None:
    async def act() -> None:
        workers = slow(2)
        await asyncio.gather(*(workers.ask(("answer", n), int, n, home=n) for n in range(4)))
        await asyncio.gather(*(workers.ask(("changes", n), int, n, home=n) for n in range(4)))
        assert begun(workers) == [[0, 2, 0, 2], [1, 3, 1, 3]]

    asyncio.run(act())


def test_an_idle_process_that_has_the_planner_is_preferred() -> None:
    async def act() -> None:
        workers = slow(2)
        await asyncio.gather(workers.ask("a", int, 1, kin="dense"), workers.ask("b", int, 2, kin="moe"))
        await workers.ask("c", int, 3, kin="moe")
        await workers.ask("d", int, 4, kin="dense")
        assert begun(workers) == [[1, 4], [2, 3]]

    asyncio.run(act())


def test_answers_come_before_what_is_shown_below_them() -> None:
    async def act() -> None:
        workers = slow()
        asked = [workers.ask(("changes", n), int, 10 + n, rank=LATER) for n in range(3)]
        await asyncio.gather(*asked, workers.ask("answer", int, 1))
        assert begun(workers)[0] == [10, 1, 11, 12] or begun(workers)[0] == [1, 10, 11, 12]

    asyncio.run(act())


def test_work_in_several_calls_lets_answers_pass() -> None:
    async def act() -> None:
        workers, calls = slow(), [None, None, "done"]
        long = asyncio.ensure_future(workers.ask("changes", lambda _: calls.pop(0), 10, rank=LATER))
        assert await workers.ask("answer", int, 1) == 1
        assert await long == "done"
        assert begun(workers)[0].index(1) <= 1
        assert begun(workers)[0].count(10) == 3

    asyncio.run(act())


def test_a_question_that_nobody_waits_for_is_not_computed() -> None:
    async def left() -> bool:
        return True

    async def here() -> bool:
        return False

    async def act() -> None:
        workers = slow()
        first = asyncio.ensure_future(workers.ask("first", int, 1))
        gone = workers.ask("gone", int, 2, gone=left)
        shared = [workers.ask("shared", int, 3, gone=each) for each in (left, here)]
        with pytest.raises(MoelabError, match="has left"):
            await gone
        assert await asyncio.gather(first, *shared) == [1, 3, 3]
        assert begun(workers)[0] == [1, 3]
        assert await workers.ask("gone", int, 5) == 5

    asyncio.run(act())

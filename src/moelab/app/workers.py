"""Processes that plan for the page, kept warm: what follows an answer goes to the process that has its plan."""

import asyncio
import heapq
import itertools
import multiprocessing
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from moelab.errors import MoelabError

KEPT = 256
"""Answers that are kept: about 100 KB each."""
REMEMBERED = 1024
"""Homes whose process is remembered."""
KIN = 3
"""Kin of a process that are remembered, as many as it keeps planners."""
FIRST, NEXT, LATER = 0, 1, 2
"""Ranks: answers are computed before what is shown below them."""

Gone = Callable[[], Awaitable[bool]]


@dataclass
class Job:
    """A question in a process's queue: whoever asked it waits for `found`; all of them may have left."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    found: "asyncio.Future[Any]"
    askers: list[Gone | None]

    async def wanted(self) -> bool:
        """Whether anyone still waits."""
        return not all([each is not None and await each() for each in self.askers])


class Process:
    """One process with a queue, lowest rank first. It answers in the order asked within a rank."""

    def __init__(self, warm: Callable[[], None]) -> None:
        self.warm, self.number = warm, itertools.count()
        self.queue: list[tuple[int, int, Job]] = []
        self.task: asyncio.Task[None] | None = None
        self.kin: OrderedDict[Any, None] = OrderedDict()
        self.pool = self._pool()

    def _pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, context, initializer=self.warm)

    @property
    def load(self) -> int:
        """Questions that wait or are worked on."""
        return len(self.queue) + (self.task is not None)

    def put(self, job: Job, rank: int) -> None:
        """Queue a question."""
        heapq.heappush(self.queue, (rank, next(self.number), job))
        if self.task is None:
            self.task = asyncio.ensure_future(self._work())

    async def _work(self) -> None:
        try:
            while self.queue:
                rank, _, job = heapq.heappop(self.queue)
                if await job.wanted():
                    await self._answer(job, rank)
                else:
                    job.found.set_exception(MoelabError("whoever asked has left"))
        finally:
            self.task = None

    async def _answer(self, job: Job, rank: int) -> None:
        """A result of None stands for work that is not done: it is called again after what has waited meanwhile."""
        try:
            found = await self._run(job.function, job.arguments)
            if found is None:
                heapq.heappush(self.queue, (rank, next(self.number), job))
                return
        except BrokenProcessPool:
            self.pool = self._pool()
            why = "this question ended the process that worked on it, perhaps for want of memory"
            job.found.set_exception(MoelabError(why))
        except Exception as error:
            job.found.set_exception(error)
        else:
            job.found.set_result(found)

    async def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)


class Workers:
    """Runs functions of plain arguments in `count` processes and keeps the newest results.

    Equal questions that are asked while one of them is answered wait for that answer.
    """

    def __init__(self, count: int, warm: Callable[[], None], process: Callable[..., Process] = Process) -> None:
        self.processes = [process(warm) for _ in range(count)]
        self.kept: OrderedDict[Any, Job] = OrderedDict()
        self.homes: OrderedDict[Any, Process] = OrderedDict()

    def start(self) -> None:
        """Start all processes now."""
        for process in self.processes:
            process.pool.submit(int)

    async def ask(
        self, key: Any, function: Callable[..., Any], *arguments: Any,
        home: Any = None, kin: Any = None, rank: int = FIRST, gone: Gone | None = None,
    ) -> Any:  # fmt: skip
        """The result of function(*arguments), from memory where `key` was asked before. Errors are not kept.

        Questions of one `home` are answered by one process, those of one `kin` if possible; whoever is `gone` when a
        question's turn comes does not count as waiting for it.
        """
        job = self.kept.get(key)
        if job is None:
            job = Job(function, arguments, asyncio.get_running_loop().create_future(), [])
            job.found.add_done_callback(lambda done: self._forget_failed(key, done))
            self.kept[key] = job
            while len(self.kept) > KEPT:
                self.kept.popitem(last=False)
            self._process(home, kin).put(job, rank)
        self.kept.move_to_end(key)
        job.askers.append(gone)
        return await asyncio.shield(job.found)

    def _process(self, home: Any, kin: Any) -> Process:
        """The home's process, else the least busy one, of those the one that served this kin."""
        found = self.homes.get(home) if home is not None else None
        if found is None:
            found = min(self.processes, key=lambda process: (process.load, kin not in process.kin))
        if kin is not None:
            found.kin[kin] = None
            found.kin.move_to_end(kin)
            if len(found.kin) > KIN:
                found.kin.popitem(last=False)
        if home is not None:
            self.homes[home] = found
            self.homes.move_to_end(home)
            while len(self.homes) > REMEMBERED:
                self.homes.popitem(last=False)
        return found

    def _forget_failed(self, key: Any, done: "asyncio.Future[Any]") -> None:
        """Whoever asked may have left before the error came: the next one who asks starts anew."""
        kept = self.kept.get(key)
        if (done.cancelled() or done.exception() is not None) and kept is not None and kept.found is done:
            del self.kept[key]

    def stop(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.pool.shutdown(wait=True, cancel_futures=True)

"""Processes that plan for the page, kept warm; a visitor waits for no more than two of them."""

import asyncio
import multiprocessing
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from moelab.errors import MoelabError

KEPT = 256
"""Answers that are kept: about 100 KB each."""


class Workers:
    """Runs functions of plain arguments in `count` processes and keeps the newest results.

    Equal questions that are asked while one of them is answered wait for that answer.
    """

    def __init__(self, count: int, warm: Callable[[], None]) -> None:
        self.count, self.warm = count, warm
        self.kept: OrderedDict[Any, asyncio.Future[Any]] = OrderedDict()
        self.pool = self._pool()

    def _pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.count, context, initializer=self.warm)

    def start(self) -> None:
        """Start all processes now."""
        for _ in range(self.count):
            self.pool.submit(int)

    async def ask(self, key: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of function(*arguments), from memory where `key` was asked before. Errors are not kept."""
        if key in self.kept:
            self.kept.move_to_end(key)
            return await asyncio.shield(self.kept[key])
        future = asyncio.ensure_future(self._run(function, arguments))
        future.add_done_callback(lambda done: self._forget_failed(key, done))
        self.kept[key] = future
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return await asyncio.shield(future)

    def _forget_failed(self, key: Any, done: "asyncio.Future[Any]") -> None:
        """Whoever asked may have left before the error came: the next one who asks starts anew."""
        if (done.cancelled() or done.exception() is not None) and self.kept.get(key) is done:
            del self.kept[key]

    async def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        loop = asyncio.get_running_loop()
        pool = self.pool
        try:
            return await loop.run_in_executor(pool, function, *arguments)
        except BrokenProcessPool:
            if self.pool is pool:
                self.pool = self._pool()
            raise MoelabError("this question ended the process that worked on it, perhaps for want of memory") from None

    def stop(self) -> None:
        """End all processes."""
        self.pool.shutdown(wait=True, cancel_futures=True)

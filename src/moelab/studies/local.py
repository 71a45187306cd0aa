"""Many runs on this machine: one process per worker, pinned to its own core, each run's outcome in its own folder."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moelab.errors import MoelabError
from moelab.runs import RunConfig, RunFolder, RunRecord

_POLL_SECONDS = 0.5
_POOL_RESTARTS = 3


@dataclass(kw_only=True)
class Board:
    """What a live display needs: how many runs stand where, and the live numbers of those at work."""

    total: int
    finished: list[RunRecord] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    running: dict[str, dict[str, float]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    done_flops: float = 0.0
    total_flops: float = 0.0


Observer = Callable[[Board], None]


def run_all(
    configs: list[RunConfig],
    root: Path,
    data: Path,
    *,
    workers: int,
    observe: Observer | None = None,
    checkpoint_seconds: float = 15.0,
) -> list[RunRecord]:
    """Train every resolved config that is not finished yet; the records in the order of `configs`.

    Runs start in order of falling cost, which keeps the workers busy to the end. A worker that is killed is replaced
    and its run continues from its checkpoint. Raises MoelabError naming the runs that failed, after all others ended.
    """
    board = _board(configs, root)
    todo = [config for config in _dearest_first(configs) if not RunFolder(root / config.run_id).finished]
    for attempt in range(_POOL_RESTARTS + 1):
        try:
            _run_pool(todo, root, data, workers, board, observe, checkpoint_seconds)
            break
        except BrokenProcessPool:
            if attempt == _POOL_RESTARTS:
                raise MoelabError("study: a worker died again and again; is there enough memory?") from None
            todo = [c for c in todo if not RunFolder(root / c.run_id).finished and c.run_id not in board.failed]
            board.running.clear()
    if board.failed:
        first = next(iter(board.failed.items()))
        raise MoelabError(f"study: {len(board.failed)} of {board.total} runs failed; first {first[0]}: {first[1]}")
    return [RunFolder(root / config.run_id).load_record() for config in configs]


def _run_pool(
    todo: list[RunConfig],
    root: Path,
    data: Path,
    workers: int,
    board: Board,
    observe: Observer | None,
    checkpoint_seconds: float,
) -> None:
    if not todo:
        return
    context = multiprocessing.get_context("spawn")
    counter = context.Value("i", 0)
    with (
        _one_thread_each(),
        ProcessPoolExecutor(
            min(workers, len(todo)), mp_context=context, initializer=_start_worker, initargs=(counter, os.getpid())
        ) as pool,
    ):
        futures: dict[Future[dict[str, Any]], RunConfig] = {
            pool.submit(_train_one, config.to_dict(), str(root), str(data), checkpoint_seconds): config
            for config in todo
        }
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                _collect(future, futures[future], board)
            board.running = _live(futures, waiting, root)
            if observe is not None:
                observe(board)


def _collect(future: Future[dict[str, Any]], config: RunConfig, board: Board) -> None:
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise error
    if error is not None:
        board.failed[config.run_id] = f"{type(error).__name__}: {error}"
        return
    record = RunRecord.parse(future.result())
    board.finished.append(record)
    board.done_flops += record.train_flops


def _live(
    futures: dict[Future[dict[str, Any]], RunConfig], waiting: Iterable[Future[dict[str, Any]]], root: Path
) -> dict[str, dict[str, float]]:
    running = {}
    for future in waiting:
        run_id = futures[future].run_id
        numbers = RunFolder(root / run_id).load_progress() if future.running() else {}
        if numbers:
            running[run_id] = numbers
    return running


def _board(configs: list[RunConfig], root: Path) -> Board:
    folders = [RunFolder(root / config.run_id) for config in configs]
    finished = [folder.load_record() for folder in folders if folder.finished]
    return Board(
        total=len(configs),
        finished=finished,
        names={config.run_id: config.name or config.run_id for config in configs},
        done_flops=sum(record.train_flops for record in finished),
        total_flops=sum(_cost(config) for config in configs),
    )


def _cost(config: RunConfig) -> float:
    from moelab.runs import run_columns

    return float(run_columns(config)["train_flops"])


def _dearest_first(configs: list[RunConfig]) -> list[RunConfig]:
    unique = {config.run_id: config for config in configs}
    return sorted(unique.values(), key=_cost, reverse=True)


class _one_thread_each:
    """Give child processes one thread each from their first import on; the parent's environment comes back after."""

    _names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self._names}
        os.environ.update(dict.fromkeys(self._names, "1"))

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start_worker(counter: Any, parent: int) -> None:
    """In a new worker: take a core of one's own, and die when the study dies."""
    with counter.get_lock():
        index = counter.value
        counter.value += 1
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[index % len(cores)]})
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _train_one(config: dict[str, Any], root: str, data: str, checkpoint_seconds: float) -> dict[str, Any]:
    """Runs in a worker: plain data in, plain data out."""
    from moelab.data import Dataset
    from moelab.training import train_run

    record = train_run(RunConfig.parse(config), root, Dataset.open(data), checkpoint_seconds=checkpoint_seconds)
    return record.to_dict()

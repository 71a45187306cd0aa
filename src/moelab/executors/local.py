"""Workers on this machine: processes pinned to their own cores, with a device of their own where there are several."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from moelab.errors import MoelabError
from moelab.executors.memory import free_memory
from moelab.executors.options import ExecutorConfig
from moelab.executors.order import End, Needs, Order
from moelab.executors.worker import work
from moelab.machine import usable_cores
from moelab.quantities import format_bytes
from moelab.signals import interrupts_held


class LocalPool:
    """Worker processes of this machine; they die with the process that started them."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[str, tuple[BaseProcess, Connection, int]] = {}

    def start(self, worker: str) -> None:
        """A new process on the first core that no other worker of this study has."""
        taken = {slot for _, _, slot in self._workers.values()}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_main, args=(self.order, worker, slot, os.getpid(), sender), name=worker)
        with thread_limits(self.order.needs.cores), interrupts_held():
            process.start()
            sender.close()
            self._workers[worker] = (process, receiver, slot)  # known before an interrupt is answered: `close` ends it

    @property
    def at_work(self) -> set[str]:
        """The workers that have not been seen to end."""
        return set(self._workers)

    def ended(self) -> list[End]:
        """Those that ended since the last call."""
        gone = [name for name, (process, _, _) in self._workers.items() if not process.is_alive()]
        return [self._revoke_dead(name) for name in gone]

    def close(self) -> None:
        """End all workers."""
        for process, _, _ in self._workers.values():
            process.terminate()
        for name, (process, _, _) in list(self._workers.items()):
            process.join(5)
            if process.is_alive():
                process.kill()
            self._revoke_dead(name)

    def _revoke_dead(self, name: str) -> End:
        process, receiver, _ = self._workers.pop(name)
        process.join()
        result: Any = None
        with suppress(EOFError, OSError):
            result = receiver.recv() if receiver.poll() else None
        receiver.close()
        code = process.exitcode
        process.close()
        if isinstance(result, dict):
            return End(worker=name, failures=result)
        return End(worker=name, failures={}, death=result or f"exit code {code}")


@contextmanager
def open_local(order: Order, options: ExecutorConfig) -> Iterator[LocalPool]:
    """A pool of this machine's processes."""
    pool = LocalPool(order)
    try:
        yield pool
    finally:
        pool.close()


def local_workers(needs: Needs, options: ExecutorConfig, wanted: int) -> int:
    """How many runs may be trained at a time here: as many as asked for, or as have cores or devices, and memory.

    Raises MoelabError where the memory does not hold the largest run.
    """
    most = wanted or max(1, cuda_devices() if needs.cuda else usable_cores() // needs.cores)
    if needs.cuda:
        return most
    free = options.memory or free_memory()
    if free is None or needs.memory * most <= free:
        return most
    fitting = int(free // needs.memory)
    if fitting == 0:
        raise MoelabError(
            f"study: the largest run needs about {format_bytes(needs.memory)}, {format_bytes(free)} are free; "
            "take smaller models or micro batches, or set --executor-option memory=..."
        )
    return fitting


def cuda_devices() -> int:
    """CUDA devices that this process sees."""
    import torch

    return int(torch.cuda.device_count())


@contextmanager
def thread_limits(cores: int) -> Iterator[None]:
    """Give a child process its threads from its first import on; the parent's environment comes back after."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(cores)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _main(order: Order, worker: str, slot: int, parent: int, sender: Connection) -> None:
    """The main function of a worker process: pin its cores, exit with the study, work, and send the failures."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    if order.pin:
        _pin(slot, order.needs.cores)
    if order.needs.cuda and cuda_devices() > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(slot % cuda_devices())
    try:
        sender.send(work(order, worker))
    except MoelabError as error:
        sender.send(str(error))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is exiting


def _pin(slot: int, cores: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        there = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {there[(slot * cores + i) % len(there)] for i in range(cores)})


def _exit(*_: object) -> None:
    raise SystemExit(1)


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)

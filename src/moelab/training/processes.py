"""The processes that train one run together: joined, ended and reported on. torchrun starts them, or `launch` does."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from moelab.errors import InputError, MoelabError
from moelab.signals import interrupts_held

Result = TypeVar("Result")
_TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others, evaluations of the first one included."""

_POLL_SECONDS = 0.2
GOES_ON = "the others were ended with it; the same command goes on from the newest checkpoint"
"""What follows where a process is gone."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes that train one run; the first (`main`) evaluates and writes."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process is the one that evaluates and writes."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor summed over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def agree(self, value: bool, device: str) -> bool:
        """The value of the first process; all wait for it."""
        if self.size == 1:
            return value
        agreed = torch.tensor(int(value), device=device)
        dist.broadcast(agreed, 0)
        return bool(agreed)

    def first(self, look: Callable[[], Result]) -> Result:
        """What the first process finds, plain data; all wait for it, and all raise the MoelabError that it raised."""
        if self.size == 1:
            return look()
        found: list[Any] = [None, None]
        if self.main:
            try:
                found[0] = look()
            except MoelabError as error:
                found[1] = error
        dist.broadcast_object_list(found, 0)
        if found[1] is not None:
            raise found[1]
        return cast(Result, found[0])

    def all(self, value: Any) -> list[Any]:
        """The plain data of every process, in the order of their ranks."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def share(self, rows: int) -> slice:
        """This process's part of a batch of `rows` sequences."""
        each = rows // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


def world() -> World:
    """The processes that were joined, or this one alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(rank=dist.get_rank(), size=dist.get_world_size())


def started_by_torchrun() -> int | None:
    """How many processes torchrun started, None where it did not."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return None
    return int(os.environ["WORLD_SIZE"])


def join(device: str, place: str = "env://", rank: int = -1, size: int = -1) -> World:
    """Join the other processes: over NCCL on CUDA, each with its own device, else over gloo."""
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", max(rank, 0))) % torch.cuda.device_count())
    backend = "nccl" if device == "cuda" else "gloo"
    if place == "env://" and os.environ.get("GROUP_WORLD_SIZE") == "1":
        _join_anew(backend)
    else:
        dist.init_process_group(backend, init_method=place, rank=rank, world_size=size, timeout=_TIMEOUT)
    return world()


def _join_anew(backend: str) -> None:
    """Join those that one torchrun started. Its store outlives a restart, and the addresses of processes that are gone
    would be found there: each start has keys of its own. Of several torchruns each counts its own restarts."""
    store, rank, size = next(rendezvous("env://", timeout=_TIMEOUT))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = dist.PrefixStore(f"start-{start}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=_TIMEOUT)


def leave() -> None:
    """Undo `join`."""
    if dist.is_initialized():
        dist.destroy_process_group()


def lost_partner(error: RuntimeError) -> bool:
    """Whether another process went away: NCCL has an error of its own for it, gloo names itself."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def launch(processes: int, device: str, work: Callable[..., None], arguments: tuple[Any, ...], tick: Any) -> None:
    """Run `work(*arguments)` in joined processes on this machine; `tick()` is called while they run.

    Raises the first failure as InputError or MoelabError, after ending the others.
    """
    context = get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="moelab-") as folder:
        rendezvous = (Path(folder) / "rendezvous").as_uri()
        started: list[Any] = []
        receivers: list[Connection] = []
        try:
            with interrupts_held():  # all of them are known before an interrupt is answered
                for rank in range(processes):
                    receiver, sender = context.Pipe(duplex=False)
                    joined = (sender, os.getpid(), rank, processes, device, rendezvous, work, arguments)
                    process = context.Process(target=_join_and_work, args=joined)
                    process.start()
                    sender.close()
                    started.append(process)
                    receivers.append(receiver)
            while any(process.is_alive() for process in started):
                if any(process.exitcode for process in started):
                    break
                tick()
                time.sleep(_POLL_SECONDS)
            _raise_failure(receivers, [process.exitcode for process in started])
        finally:
            for process in started:
                process.terminate()
                process.join()


def _raise_failure(receivers: list[Connection], codes: list[int | None]) -> None:
    """The failure that a process reported, or that one died without a word."""
    reported = []
    for receiver in receivers:
        try:
            reported += [receiver.recv()] if receiver.poll() else []
        except EOFError:
            continue
    # A process that lost its partner complains too: the one that knows what was wrong comes first.
    known = [each for each in reported if each[0]]
    if known:
        wrong, message = known[0]
        raise (InputError if wrong == "input" else MoelabError)(message)
    died = {rank: code for rank, code in enumerate(codes) if code is not None and code < 0}
    if died:
        rank, code = next(iter(died.items()))
        raise MoelabError(f"process {rank} of {len(codes)} was ended by {signal.Signals(-code).name}; {GOES_ON}")
    if reported:
        raise MoelabError(reported[0][1])
    if any(codes):
        raise MoelabError(f"train.processes: a process died with exit code {next(code for code in codes if code)}")


def _join_and_work(
    sender: Connection,
    parent: int,
    rank: int,
    size: int,
    device: str,
    rendezvous: str,
    work: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    try:
        join(device, rendezvous, rank, size)
        work(*arguments)
    except MoelabError as error:
        sender.send(("input" if isinstance(error, InputError) else "work", str(error)))
        sender.close()
        os._exit(1)
    except Exception as error:
        sender.send(("", f"process {rank}: {type(error).__name__}: {str(error).splitlines()[0]}"))
        sender.close()
        os._exit(1)
    leave()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)

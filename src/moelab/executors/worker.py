"""What a worker does: it trains the free runs of an order, each under a lease, one by one or several in turns."""

import math
import time
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from moelab.errors import MoelabError
from moelab.executors.memory import free_device_memory, shared_memory
from moelab.executors.order import Order
from moelab.lease import Busy, LeaseLost, Terms
from moelab.machine import freed_memory_kept
from moelab.runs import RunConfig, RunFolder

_LOOK_SECONDS = 1.0
"""Time between looks for another free run while others train: a study of thousands has as many folders."""


def work(order: Order, worker: str) -> dict[str, str]:
    """Train until nothing is left to claim; returns the reasons of runs that could not be trained. Only a dead worker
    raises."""
    return Worker(order, worker).until_done()


class Worker:
    """The runs that one process has open, at most `order.sharing.turns` of them."""

    def __init__(self, order: Order, name: str) -> None:
        from moelab.data import Dataset

        self.order, self.root = order, Path(order.root)
        self.dataset = Dataset.open(order.data)
        self.terms = Terms(holder=name, patience=order.patience, judge=False)
        self.failures: dict[str, str] = {}
        self.live: dict[str, Any] = {}
        self._left = [RunConfig.parse(plain) for plain in order.configs]
        self._folders = [RunFolder(self.root / config.run_id) for config in self._left]
        self._memory = order.memory
        self._asks_device = order.memory is None
        self._looked = -math.inf
        self.device_lost = False

    def until_done(self) -> dict[str, str]:
        """Take runs and train them, a step of each in turn."""
        with freed_memory_kept(), ExitStack() as stack:
            stack.callback(self._close)
            while not self.device_lost and (self._take() or self.live or self._wait()):
                for run_id in list(self.live):
                    self._step(run_id)
        return self.failures

    def _take(self) -> bool:
        """Begin with free runs while there is room for them; whether a run was trained whole on the way."""
        if self.live and (time.monotonic() - self._looked < _LOOK_SECONDS or self._full()):
            return False
        self._looked = time.monotonic()
        for config in list(self._left):
            folder = RunFolder(self.root / config.run_id)
            if folder.finished or folder.load_failure() is not None:
                self._left.remove(config)
            elif config.run_id not in self.live and _free(folder) and self._fits(config, folder):
                if config.train.processes > 1:
                    self._train_whole(config)
                    return True
                self._begin(config)
                if self._full():
                    break
        return False

    def _full(self) -> bool:
        alone = any(RunFolder(self.root / run_id).alone for run_id in self.live)
        return alone or len(self.live) >= self.order.sharing.turns

    def _wait(self) -> bool:
        """Whether a run that is to be trained alone is left, and waits for those of other workers of the device."""
        waits = any(self._held_back(RunFolder(self.root / config.run_id)) for config in self._left)
        if waits:
            time.sleep(_LOOK_SECONDS)
        return waits

    def _held_back(self, folder: RunFolder) -> bool:
        return self.order.beside > 1 and folder.alone and _free(folder) and self._others_train()

    def _others_train(self) -> bool:
        """Whether other workers of this order have runs open."""
        return any(not _free(folder) for folder in self._folders)

    def _fits(self, config: RunConfig, folder: RunFolder) -> bool:
        """Whether there is room for a run beside those that are open; a run of several processes, or one whose worker
        died, is trained with no other.

        Every open run takes what was counted for it, whether it has allocated that or not, out of what was free on the
        device when none was open.
        """
        if not self.live:
            if self._held_back(folder):
                return False
            if self._asks_device and config.train.device == "cuda":
                self._memory = free_device_memory() / self.order.beside
            return True
        if config.train.processes > 1 or folder.alone:
            return False
        needed = sum(shared_memory(run.config) for run in self.live.values()) + shared_memory(config)
        return self._memory is None or needed <= self._memory

    def _begin(self, config: RunConfig) -> None:
        from moelab.training.turns import LiveRun

        seconds, recorded = self.order.checkpoint_seconds, self.order.sharing.by == "streams"
        how: dict[str, Any] = {"checkpoint_seconds": seconds, "terms": self.terms, "recorded": recorded}
        how["shared"] = self.order.sharing.runs if self.order.sharing.runs > 1 else None
        self._left.remove(config)
        self.live[config.run_id] = LiveRun(config, self.root, self.dataset, **how)

    def _step(self, run_id: str) -> None:
        """A step of a run; where it was the last one, or ends with an error, the run is closed."""
        run = self.live[run_id]
        try:
            if run.step():
                return
        except (Busy, LeaseLost):
            pass
        except Exception as error:
            self.device_lost = _is_lost_device(error)
            if self.device_lost and len(self.live) > 1:
                self._leave_alone()
            elif _is_out_of_memory(error) and self._has_neighbours(run_id):
                RunFolder(self.root / run_id).set_alone()
                self._left.append(run.config)
            else:
                self._fail(run_id, error)
        self._looked = -math.inf  # there is room for another run
        self.live.pop(run_id).close()

    def _has_neighbours(self, run_id: str) -> bool:
        """Whether other runs may have taken the memory that this one lacks: those of this worker, or of another."""
        beside = self.order.beside > 1 and not RunFolder(self.root / run_id).alone
        return len(self.live) > 1 or beside

    def _leave_alone(self) -> None:
        """After an error of the device, which may be any run's: all of them go on alone, in other processes."""
        for run_id in self.live:
            RunFolder(self.root / run_id).set_alone()

    def _train_whole(self, config: RunConfig) -> None:
        """A run of several processes, which are started for it."""
        from moelab.training import train_run

        self._left.remove(config)
        seconds = self.order.checkpoint_seconds
        try:
            train_run(config, self.root, self.dataset, checkpoint_seconds=seconds, terms=self.terms)
        except (Busy, LeaseLost):
            pass
        except Exception as error:
            self._fail(config.run_id, error)

    def _fail(self, run_id: str, error: Exception) -> None:
        """Note the reason, also in the run's folder if the disk lets us."""
        known = isinstance(error, MoelabError)
        reason = " ".join((str(error) if known else f"{type(error).__name__}: {error}").split())
        self.failures[run_id] = reason
        lines = "" if known else "".join(traceback.format_exception(error))
        with suppress(MoelabError):
            RunFolder(self.root / run_id).save_failure(reason, lines)

    def _close(self) -> None:
        """Give back what is still open, whatever ended the worker."""
        for run in self.live.values():
            run.close()


def _is_lost_device(error: Exception) -> bool:
    """Whether a CUDA device refuses everything from now on in this process."""
    import torch

    return isinstance(error, getattr(torch, "AcceleratorError", ()))


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a device had too little memory left; it goes on computing."""
    import torch

    return isinstance(error, torch.OutOfMemoryError)


def _free(folder: RunFolder) -> bool:
    claim = folder.claim
    return claim is None or claim.free

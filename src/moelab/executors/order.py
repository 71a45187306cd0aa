"""What a worker receives and does: it trains the free runs of an order, most expensive first, each under a lease."""

import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from moelab.errors import MoelabError
from moelab.executors.memory import run_memory
from moelab.lease import Busy, LeaseLost, Terms
from moelab.runs import RunConfig, RunFolder


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a worker needs for any of its runs: cores (threads x processes), bytes of memory, a CUDA device."""

    n_runs: int
    cores: int
    memory: int
    cuda: bool

    @classmethod
    def of(cls, configs: list[RunConfig]) -> "Needs":
        """The needs of the largest runs."""
        return cls(
            n_runs=len(configs),
            cores=max(max(config.train.threads, 1) * config.train.processes for config in configs),
            memory=max(run_memory(config) for config in configs),
            cuda=any(config.train.device == "cuda" for config in configs),
        )


@dataclass(frozen=True, kw_only=True)
class Order:
    """Runs to train, as plain data that can be sent to any machine which shares the folder. All paths are absolute."""

    name: str
    configs: list[dict[str, Any]]
    root: str
    data: str
    checkpoint_seconds: float
    patience: float
    needs: Needs
    pin: bool = False
    """Whether the workers of one machine are pinned to their own cores; not where other studies already work there."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How a worker ended: the runs it could not train, with reasons; `death` is the reason of an early end."""

    worker: str
    failures: dict[str, str]
    death: str | None = None


class Pool(Protocol):
    """The workers of one order, wherever they are."""

    def start(self, worker: str) -> None:
        """Start a worker of this name."""

    @property
    def at_work(self) -> set[str]:
        """The workers that have not been seen to end."""

    def ended(self) -> list[End]:
        """Those that ended since the last call. A worker named here exists no more."""

    def close(self) -> None:
        """End all workers."""


Work = Callable[[Order, str], dict[str, str]]


def work(order: Order, worker: str) -> dict[str, str]:
    """What a worker does; returns the reasons of those runs that it could not train. Only a dead worker raises."""
    from moelab.data import Dataset

    dataset = Dataset.open(order.data)
    failures: dict[str, str] = {}
    for plain in order.configs:
        config = RunConfig.parse(plain)
        folder = RunFolder(Path(order.root) / config.run_id)
        if folder.finished or folder.load_failure() is not None or not _free(folder):
            continue
        reason = _train(order, config, dataset, worker)
        if reason is not None:
            failures[config.run_id] = reason
    return failures


def _train(order: Order, config: RunConfig, dataset: Any, worker: str) -> str | None:
    """Train one run; the reason where that fails, also noted in its folder if the disk lets us."""
    from moelab.training import train_run

    terms = Terms(holder=worker, patience=order.patience, judge=False)
    try:
        train_run(config, order.root, dataset, checkpoint_seconds=order.checkpoint_seconds, terms=terms)
    except (Busy, LeaseLost):
        return None
    except Exception as error:
        known = isinstance(error, MoelabError)
        reason = " ".join((str(error) if known else f"{type(error).__name__}: {error}").split())
        with suppress(MoelabError):
            folder = RunFolder(Path(order.root) / config.run_id)
            folder.save_failure(reason, "" if known else traceback.format_exc())
        return reason
    return None


def _free(folder: RunFolder) -> bool:
    claim = folder.claim
    return claim is None or claim.free

"""What a worker receives and what it leaves: the runs of an order, how they share a device, and how it ended."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from moelab.executors.memory import run_memory
from moelab.runs import RunConfig

Way = Literal["streams", "processes"]


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
class Sharing:
    """How many runs share a device: in turns on streams of one process, or one each in several processes."""

    by: Way = "processes"
    runs: int = 1

    @property
    def turns(self) -> int:
        """Runs that one worker trains in turns."""
        return self.runs if self.by == "streams" else 1

    @property
    def processes(self) -> int:
        """Workers of one device."""
        return self.runs if self.by == "processes" else 1


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
    sharing: Sharing = Sharing()
    memory: float | None = None
    """Bytes for the runs that one worker trains in turns on a CPU; on CUDA each worker asks its device."""
    beside: int = 1
    """Workers of one CUDA device, which share its memory out."""
    pin: bool = False
    """Whether the workers of one machine are pinned to their own cores; not where other studies already work there."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How a worker ended: the runs it could not train, with reasons; `death` is the reason of an early end."""

    worker: str
    failures: dict[str, str]
    death: str | None = None


class Pool(Protocol):
    """The workers of one order, wherever they are; `order` is what those that start from now on receive."""

    order: Order

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

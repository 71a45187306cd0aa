"""Several runs trained by one process, a step of each in turn.

On CUDA each run has a stream of its own and its steps are repeated as a graph, so that the kernels of one run fill what
those of another leave idle. No run sees another: each has its own model, optimiser, batches and checkpoints, and
nothing draws from a generator that two of them share.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from moelab.data import Dataset
from moelab.lease import DEFAULT, Terms
from moelab.runs import RunConfig, TrainConfig
from moelab.training.graphs import Capture, capture_cuda
from moelab.training.kernels import computed_by
from moelab.training.run import run_steps

_ENDED = object()


class Place:
    """Where one of several runs is computed: its threads, its kernels and, on CUDA, a stream of its own."""

    def __init__(self, train: TrainConfig, recorded: bool) -> None:
        self.train = train
        own = recorded and train.device == "cuda"
        self._stream: Any = torch.cuda.Stream() if own else None
        self.capture: Capture | None = capture_cuda if own else None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within this block the process computes this run."""
        if torch.get_num_threads() != self.train.threads:
            torch.set_num_threads(self.train.threads)
        with computed_by(self.train), torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            yield


class LiveRun:
    """A run that is trained a step at a time. It holds its lease from the first step until it ends or is closed.

    On CUDA a `recorded` one has a stream and graphs. `shared` is for its record.
    """

    def __init__(
        self,
        config: RunConfig,
        root: str | Path,
        dataset: Dataset,
        *,
        checkpoint_seconds: float = 30.0,
        terms: Terms = DEFAULT,
        recorded: bool = True,
        shared: int | None = None,
    ) -> None:
        self.config, self.place = config, Place(config.train, recorded)
        how: dict[str, Any] = {"terms": terms, "capture": self.place.capture, "shared": shared}
        self._steps = run_steps(config, root, dataset, checkpoint_seconds, **how)

    def step(self) -> bool:
        """One step; False where the run has ended, with its record written. Raises what `train_run` raises."""
        with self.place.entered():
            return next(self._steps, _ENDED) is not _ENDED

    def close(self) -> None:
        """Stop here: what the last checkpoint holds stays, and the lease is given back."""
        with self.place.entered():
            self._steps.close()

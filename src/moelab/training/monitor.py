"""What is noted of a run while it trains: losses as they become known, spikes, norms, the log, the live numbers."""

import math
import time
from collections.abc import Callable

import numpy as np
from torch import Tensor

from moelab.evaluation import Evaluation
from moelab.runs import RunConfig, RunFolder
from moelab.training.late import LateLosses
from moelab.training.log import Log, evaluation_numbers, logs_step
from moelab.training.progress import Progress
from moelab.training.schedule import learning_rate_at
from moelab.training.spikes import is_spike

Watcher = Callable[[dict[str, float]], None]
"""Called about once a second with step, steps, loss, tokens_per_second."""

_RECENT = 50
_LARGEST = 1e30
"""Stands for a gradient norm beyond it, infinite or not a number: JSON has none of these."""


class Monitor:
    """Writes into a run's progress, its log where there is one, and its live numbers."""

    def __init__(self, config: RunConfig, folder: RunFolder, watch: Watcher | None, processes: int) -> None:
        self.config, self.folder, self.watch = config, folder, watch
        self.log: Log | None = None
        self.losses, self.norms = LateLosses(processes), LateLosses(processes)
        self._shown = time.monotonic()

    def put(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """The loss and the gradient norm of a step; they may still be on a device."""
        self.losses.put(step, loss)
        self.norms.put(step, norm)

    def note_losses(self, progress: Progress, all_of_them: bool) -> bool:
        """Take note of the losses and norms that are there, or of all; False where a loss is not finite: the run ends
        with it."""
        wanted = all_of_them or self._logs(progress)
        for (step, loss), (_, norm) in zip(self.losses.take(wanted), self.norms.take(wanted), strict=True):
            if is_spike(loss, progress.recent_losses):
                progress.spikes.append(step)
            progress.recent_losses = [*progress.recent_losses[1 - _RECENT :], loss]
            progress.recent_norms = [*progress.recent_norms[1 - _RECENT :], norm if norm < _LARGEST else _LARGEST]
            if len(progress.first_norms) < _RECENT:
                progress.first_norms.append(progress.recent_norms[-1])
            if not math.isfinite(loss):
                progress.step = step
                return False
        return True

    def evaluated(self, progress: Progress, found: Evaluation) -> None:
        """Enter an evaluation in the curve and the log."""
        row = {
            "step": progress.step,
            "tokens": progress.step * self.config.train.batch_tokens,
            "loss": found.loss,
        }
        if found.loss_leak_free is not None:
            row["loss_leak_free"] = found.loss_leak_free
        churns = [layer["churn"] for layer in found.routing if "churn" in layer]
        progress.curve.append({**row, "churn": float(np.mean(churns))} if churns else row)
        if self.log is not None:
            self.log.write(progress.step, evaluation_numbers(found))

    def log_step(self, progress: Progress, norm: Tensor, seconds: float) -> None:
        """Log a step whose turn it is."""
        if self.log is not None and self._logs(progress):
            numbers = {
                "train/loss": progress.recent_losses[-1],
                "train/learning_rate": learning_rate_at(progress.step - 1, self.config.train),
                "train/grad_norm": float(norm),
                "train/tokens_per_second": self._rate(progress, seconds),
            }
            self.log.write(progress.step, numbers)

    def show(self, progress: Progress, seconds: float) -> None:
        """Write the live numbers, about once a second."""
        if time.monotonic() - self._shown <= 1:
            return
        self._shown = time.monotonic()
        numbers = {
            "step": float(progress.step),
            "steps": float(self.config.train.steps),
            "loss": float(np.mean(progress.recent_losses or [math.nan])),
            "tokens_per_second": self._rate(progress, seconds),
        }
        self.folder.save_progress(**numbers)
        if self.watch is not None:
            self.watch(numbers)

    def _logs(self, progress: Progress) -> bool:
        return self.log is not None and logs_step(progress.step, self.config.train.steps)

    def _rate(self, progress: Progress, seconds: float) -> float:
        """Tokens per second of this run, a parent's steps left out."""
        start = self.config.parent.step if self.config.parent else 0
        return (progress.step - start) * self.config.train.batch_tokens / seconds

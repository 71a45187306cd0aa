"""One run, from a resolved config to a run record: killed at any moment and started again, it ends the same.

The batch of a step depends on seed and step alone, checkpoints hold everything else, and nothing reads the clock
but the timings, so on a CPU a resumed run's weights are bit-identical to an undisturbed one's.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from moelab.data import Dataset, TrainBatches, ValidationBatches
from moelab.errors import InputError, MoelabError
from moelab.evaluation import Evaluation, evaluate
from moelab.lease import DEFAULT, Terms
from moelab.model import LanguageModel, build_model, to_token_choice
from moelab.runs import RunConfig, RunFolder, RunRecord
from moelab.runs.folder import CHECKPOINTS, WEIGHTS
from moelab.training.checkpoint import Progress, load_newest, save_checkpoint, save_weights
from moelab.training.memory import reset_peak_memory
from moelab.training.optimizer import Optimizer
from moelab.training.record import make_record
from moelab.training.schedule import learning_rate_at

Watcher = Callable[[dict[str, float]], None]
"""Called about once a second with step, steps, loss, tokens_per_second."""

_RECENT = 50
_EVAL_ROWS = 32
"""Sequences per evaluation batch; part of the numbers only through rounding."""


class Trainer:
    """Holds one run's model, optimiser and progress while it trains."""

    def __init__(self, config: RunConfig, folder: RunFolder, dataset: Dataset, watch: Watcher | None = None) -> None:
        train = config.train
        torch.set_num_threads(train.threads)
        self.config, self.folder, self.watch = config, folder, watch
        self.model = build_model(config.model, seed=train.seed, dispatch=train.dispatch).to(train.device)
        self.optimizer = Optimizer(self.model, train)
        self.batches = TrainBatches(
            dataset,
            seq_len=train.seq_len,
            batch_size=train.batch_size,
            seed=train.seed,
            unique_tokens=config.data.unique_tokens,
        )
        self.validation = ValidationBatches(dataset, train.seq_len, _EVAL_ROWS, train.eval_tokens)
        self.progress = Progress()
        self.messages: list[str] = []

    def restore(self) -> None:
        """Continue from the newest whole checkpoint, if there is one."""
        found = load_newest(self.folder.path / CHECKPOINTS)
        if found is None:
            return
        self.progress, weights, state, self.messages = found
        switch = self.config.train.switch_step
        if switch is not None and self.progress.step > switch:
            self._turn()
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            raise MoelabError(f"checkpoint: does not fit the model: {str(error).splitlines()[0]}") from error
        self.optimizer.load_state({name: tensor.to(self.config.train.device) for name, tensor in state.items()})
        self.progress.resumed += 1

    def save(self, seconds: float) -> None:
        """Write a checkpoint of this moment."""
        self.progress.seconds = seconds
        save_checkpoint(self.folder.path / CHECKPOINTS, self.progress, self.model.state_dict(), self.optimizer.state())

    def _turn(self) -> None:
        """The transition: the same weights and optimiser state, as token choice from the next step on."""
        train, state = self.config.train, self.optimizer.state()
        self.model = to_token_choice(self.model, train.dispatch)
        self.optimizer = Optimizer(self.model, train)
        if state:
            self.optimizer.load_state(state)

    def step(self) -> float:
        """One optimiser step; returns the mean cross-entropy of its batch, nats per token."""
        train = self.config.train
        if self.progress.step == train.switch_step:
            self._turn()
        inputs, targets = self.batches.batch(self.progress.step)
        pieces = train.batch_size // (train.micro_batch or train.batch_size)
        total = 0.0
        for x, y in zip(np.split(inputs, pieces), np.split(targets, pieces), strict=True):
            with torch.autocast(train.device, torch.bfloat16, enabled=train.precision == "bf16"):
                output = self.model.loss(
                    torch.from_numpy(x).to(train.device),
                    torch.from_numpy(y).to(train.device),
                    logit_z_loss=train.logit_z_loss,
                )
            (output.total / pieces).backward()
            total += float(output.loss.detach()) / pieces
        self.optimizer.step(learning_rate_at(self.progress.step, train))
        self.model.update_routers()
        self.progress.step += 1
        return total

    def evaluate(self) -> Evaluation:
        """The validation loss now."""
        train = self.config.train
        return evaluate(self.model, self.validation, device=train.device, precision=train.precision)

    def run(self, checkpoint_seconds: float) -> tuple[Evaluation | None, float]:
        """Train to the end (or to divergence): the last evaluation, None if diverged, and the seconds it took."""
        train, progress = self.config.train, self.progress
        started = time.monotonic() - progress.seconds
        saved = shown = time.monotonic()
        marks = evaluation_steps(train.steps, train.evaluations)
        evaluation: Evaluation | None = None
        while progress.step < train.steps:
            self.folder.check()
            loss = self.step()
            progress.recent_losses = [*progress.recent_losses[1 - _RECENT :], loss]
            if not math.isfinite(loss):
                return None, time.monotonic() - started
            if progress.step in marks:
                evaluation = self.evaluate()
                progress.curve.append(self._curve_row(evaluation))
            now = time.monotonic()
            if now - saved > checkpoint_seconds and progress.step < train.steps:
                self.save(now - started)
                saved = time.monotonic()
            if now - shown > 1:
                self._show(now - started)
                shown = now
        return evaluation or self.evaluate(), time.monotonic() - started

    def _curve_row(self, evaluation: Evaluation) -> dict[str, float]:
        done = self.progress.step
        row = {"step": done, "tokens": done * self.config.train.batch_tokens, "loss": evaluation.loss}
        if evaluation.loss_leak_free is not None:
            row["loss_leak_free"] = evaluation.loss_leak_free
        return row

    def _show(self, seconds: float) -> None:
        done, train = self.progress.step, self.config.train
        numbers = {
            "step": float(done),
            "steps": float(train.steps),
            "loss": float(np.mean(self.progress.recent_losses)),
            "tokens_per_second": done * train.batch_tokens / seconds,
        }
        self.folder.save_progress(**numbers)
        if self.watch is not None:
            self.watch(numbers)


def train_run(
    config: RunConfig,
    root: str | Path,
    dataset: Dataset,
    *,
    checkpoint_seconds: float = 30.0,
    watch: Watcher | None = None,
    terms: Terms = DEFAULT,
) -> RunRecord:
    """Train one resolved run in its folder under `root` and write its record; a finished run is only read.

    A run interrupted at any moment continues from its newest whole checkpoint. A run whose loss stops being finite
    is recorded as `diverged` with no loss. Raises InputError for a config that
    cannot be trained, Busy while another process trains the run: it holds a lease on it, on `terms`.
    """
    if config.model.unbuildable:
        raise InputError(f"model: moelab counts but cannot train {config.model.unbuildable}")
    folder = RunFolder.create(root, config)
    with folder.hold(terms):
        if folder.finished:
            return folder.load_record()
        reset_peak_memory()
        trainer = Trainer(config, folder, dataset, watch)
        trainer.restore()
        evaluation, seconds = trainer.run(checkpoint_seconds)
        folder.check()
        save_weights(folder.path / WEIGHTS, trainer.model.state_dict())
        record = make_record(config, trainer.progress, evaluation, seconds)
        folder.save_record(record)
        folder.remove_checkpoints()
    return record


def evaluation_steps(steps: int, evaluations: int) -> set[int]:
    """The steps after which a run is evaluated: evenly spread, the last step always among them."""
    evaluations = min(evaluations, steps)
    return {math.ceil(steps * (i + 1) / evaluations) for i in range(evaluations)}


def load_trained(path: str | Path) -> tuple[RunConfig, LanguageModel]:
    """A finished run's config and its model with the trained weights, in evaluation mode.

    After a transition that is the token-choice model: its own `config` says what it is.
    """
    from safetensors.torch import load_file

    folder = RunFolder.open(path)
    config = folder.load_config()
    weights = folder.path / WEIGHTS
    if not weights.exists():
        raise InputError(f"run: {path} holds no {WEIGHTS}; is it finished?")
    model = build_model(config.final_model, seed=0, dispatch=config.train.dispatch)
    model.load_state_dict(load_file(weights))
    return config, model.eval()

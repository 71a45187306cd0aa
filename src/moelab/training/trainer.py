"""One run, from a resolved config to a run record: killed at any moment and started again, it ends the same.

The batch of a step depends on seed and step alone, checkpoints hold everything else, and nothing reads the clock
but the timings, so on a CPU a resumed run's weights are bit-identical to an undisturbed one's.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moelab.data import Dataset, TrainBatches
from moelab.errors import MoelabError
from moelab.evaluation import Evaluation, evaluate, validation_batches
from moelab.model import LanguageModel, build_model, to_token_choice
from moelab.printable import warn
from moelab.runs import RunConfig, RunFolder
from moelab.runs.folder import CHECKPOINTS
from moelab.training.balance import sum_loads, whole_counts
from moelab.training.branch import load_parent
from moelab.training.checkpoint import Checkpoint, Progress, load_newest, save_checkpoint
from moelab.training.kernels import check_kernels, kernels_of
from moelab.training.late import LateLosses
from moelab.training.log import Log, evaluation_numbers, logs_step
from moelab.training.optimizer import Optimizer
from moelab.training.parallel import hold_back, world, wrap
from moelab.training.schedule import evaluation_steps, learning_rate_at
from moelab.training.spikes import is_spike
from moelab.training.vocabulary import count_vocabulary

Watcher = Callable[[dict[str, float]], None]
"""Called about once a second with step, steps, loss, tokens_per_second."""

_RECENT = 50
_LARGEST = 1e30
"""Stands for a gradient norm beyond it, infinite or not a number: JSON has none of these."""


class Trainer:
    """Holds one run's model, optimiser and progress while it trains."""

    model: LanguageModel
    network: torch.nn.Module
    optimizer: Optimizer

    def __init__(self, config: RunConfig, folder: RunFolder, dataset: Dataset, watch: Watcher | None = None) -> None:
        train = config.train
        torch.set_num_threads(train.threads)
        self.config, self.folder, self.watch, self.world = config, folder, watch, world()
        self.dataset = dataset
        model = build_model(config.model, seed=train.seed, dispatch=train.dispatch)
        count_vocabulary(model, dataset, config.data.unique_tokens)
        self._take(model.to(train.device))
        self.batches = TrainBatches(
            dataset,
            seq_len=train.seq_len,
            batch_size=train.batch_size,
            seed=train.seed,
            unique_tokens=config.data.unique_tokens,
        )
        self.validation = validation_batches(
            dataset,
            config.model,
            seq_len=train.seq_len,
            trained_rows=train.micro_batch or train.local_batch_size,
            max_tokens=train.eval_tokens,
        )
        self.progress = Progress(run_id=config.run_id, kernels=kernels_of(train))
        self.choices: list[Tensor] = []
        self.log: Log | None = None
        self.losses, self.norms = LateLosses(self.world.size), LateLosses(self.world.size)
        self.grad_norm = torch.zeros(())

    def restore(self) -> None:
        """Continue from the newest whole checkpoint, if there is one; a branch starts from its parent's.

        Damaged checkpoints are reported on stderr and in the record's notes. Raises InputError for another run's
        checkpoint, and for one of this run that other kernels computed.
        """
        found, notes = load_newest(self.folder.path / CHECKPOINTS, self.config.run_id)
        for note in notes if self.world.main else []:
            warn(f"run {self.config.run_id}: {note}")
        if found is None and self.config.parent is not None:
            found = load_parent(self.config, self.folder.path.parent, self.dataset)
        if found is not None:
            self._continue(found)
        self.progress.notes += notes

    def _continue(self, found: Checkpoint) -> None:
        kernels = self.progress.kernels
        self.progress, weights, state, routing = found
        adopted = self.config.parent is not None and self.config.parent.adopted
        if not (adopted and self.progress.run_id != self.config.run_id):
            check_kernels(self.progress.kernels, self.config.train)
        self.progress.run_id, self.progress.kernels = self.config.run_id, kernels
        switch = self.config.train.switch_step
        if switch is not None and self.progress.step > switch:
            self._turn()
        self.choices = list(routing.get("choices", ()))
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            raise MoelabError(f"checkpoint: does not fit the model: {str(error).splitlines()[0]}") from error
        self.optimizer.load_state({name: tensor.to(self.config.train.device) for name, tensor in state.items()})
        self.progress.resumed += 1

    def save(self, seconds: float) -> None:
        """Write a checkpoint of this moment."""
        self.progress.seconds = seconds
        self._count_expert_steps()
        train = self.config.train
        save_checkpoint(
            self.folder.path / CHECKPOINTS,
            self.progress,
            self.model.state_dict(),
            self.optimizer.state(),
            {"choices": torch.stack(self.choices)} if self.choices else None,
            keep=train.keep_checkpoints,
            keep_steps=train.keep_steps,
        )

    def _take(self, model: LanguageModel) -> None:
        """Train this model from now on, with a fresh optimiser."""
        if self.config.train.compile == "blocks":
            for layer in model.model.layers:
                layer.compile()
        self.model, self.network = model, wrap(model, self.world)
        self.optimizer = Optimizer(model, self.config.train)

    def _turn(self) -> None:
        """The transition: the same weights and optimiser state, as token choice from the next step on."""
        self._count_expert_steps()
        state, self.choices = self.optimizer.state(), []
        self._take(to_token_choice(self.model, self.config.train.dispatch))
        if state:
            self.optimizer.load_state(state)

    def step(self) -> Tensor:
        """One optimiser step; returns the mean cross-entropy of its batch, nats per token, where the model lies."""
        train = self.config.train
        if self.progress.step == train.switch_step:
            self._turn()
        pieces = self._pieces()
        with self._precision():
            counts = whole_counts(self.model, train, [x for x, _ in pieces], self.world)
        loss = torch.zeros((), device=train.device)
        for number, (x, y) in enumerate(pieces, 1):
            with hold_back(self.network, last=number == len(pieces)):
                with self._precision():
                    output = self.network(
                        x,
                        y,
                        logit_z_loss=train.logit_z_loss,
                        mtp_loss=train.mtp_loss,
                        balance_over="sequence" if train.balance_over == "sequence" else "batch",
                        whole_counts=counts,
                    )
                (output.total / len(pieces)).backward()
            loss += output.loss.detach() / len(pieces)
        self.grad_norm = self.optimizer.step(learning_rate_at(self.progress.step, train))
        sum_loads(self.model, self.world)
        self.model.update_routers()
        self.progress.step += 1
        return self.world.sum(loss) / self.world.size

    def _pieces(self) -> list[tuple[Tensor, Tensor]]:
        """This process's share of the step's batch, cut into forward passes: inputs and targets."""
        train = self.config.train
        share = self.world.share(train.batch_size)
        both = [self._to_device(part[share]) for part in self.batches.batch(self.progress.step)]
        size = train.micro_batch or train.local_batch_size
        return list(zip(*(part.split(size) for part in both), strict=True))

    def _to_device(self, tokens: NDArray[np.int64]) -> Tensor:
        """The tokens where the model lies; a CUDA device fetches them while the host goes on."""
        tensor = torch.from_numpy(tokens)
        if self.config.train.device != "cuda":
            return tensor.to(self.config.train.device)
        return tensor.pin_memory().to("cuda", non_blocking=True)

    def _precision(self) -> torch.autocast:
        train = self.config.train
        return torch.autocast(train.device, torch.bfloat16, enabled=train.precision == "bf16")

    def evaluate(self) -> Evaluation:
        """The validation loss now, entered in the curve."""
        train, progress = self.config.train, self.progress
        found = evaluate(
            self.model, self.validation, device=train.device, precision=train.precision, before=self.choices
        )
        self.choices = found.choices
        progress.evaluation = None
        if math.isfinite(found.loss):
            progress.evaluation = found.to_dict()
            progress.curve.append(self._curve_row(found))
            if self.log is not None:
                self.log.write(progress.step, evaluation_numbers(found))
        return found

    def run(self, checkpoint_seconds: float) -> tuple[Evaluation | None, float]:
        """Train to the end (or to divergence): the last evaluation, None if diverged, and the seconds it took."""
        train, progress = self.config.train, self.progress
        started = time.monotonic() - progress.seconds
        saved = shown = time.monotonic()
        marks = evaluation_steps(train.steps, train.evaluations)
        while progress.step < train.steps:
            self.folder.check()
            self.losses.put(progress.step + 1, self.step())
            self.norms.put(progress.step, self.grad_norm)
            due = time.monotonic() - saved > checkpoint_seconds and progress.step < train.steps
            writes = due or progress.step in marks or progress.step in train.keep_steps
            if not self._note_losses(writes or self._logs() or progress.step == train.steps):
                self._count_expert_steps()
                return None, time.monotonic() - started
            self._log_step(time.monotonic() - started)
            if not self.world.main:
                continue
            if progress.step in marks:
                self.evaluate()
            now = time.monotonic()
            if due or progress.step in train.keep_steps:
                self.save(now - started)
                saved = time.monotonic()
            if now - shown > 1:
                self._show(now - started)
                shown = now
        self._count_expert_steps()
        last = Evaluation(**progress.evaluation) if progress.evaluation else None
        return last, time.monotonic() - started

    def _note_losses(self, all_of_them: bool) -> bool:
        """Take note of the losses and gradient norms that are there, or of all; False where a loss is not finite: the
        run ends with it."""
        progress = self.progress
        for (step, loss), (_, norm) in zip(self.losses.take(all_of_them), self.norms.take(all_of_them), strict=True):
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

    def _logs(self) -> bool:
        return self.log is not None and logs_step(self.progress.step, self.config.train.steps)

    def _count_expert_steps(self) -> None:
        """Move what the optimiser has counted since the last time into the progress."""
        steps, idle = self.optimizer.take_expert_steps()
        self.progress.expert_steps += steps
        self.progress.idle_expert_steps += idle

    def _log_step(self, seconds: float) -> None:
        train, done = self.config.train, self.progress.step
        if self.log is not None and self._logs():
            numbers = {
                "train/loss": self.progress.recent_losses[-1],
                "train/learning_rate": learning_rate_at(done - 1, train),
                "train/grad_norm": float(self.grad_norm),
                "train/tokens_per_second": self._rate(seconds),
            }
            self.log.write(done, numbers)

    def _rate(self, seconds: float) -> float:
        """Tokens per second of this run, a parent's steps left out."""
        start = self.config.parent.step if self.config.parent else 0
        return (self.progress.step - start) * self.config.train.batch_tokens / seconds

    def _curve_row(self, evaluation: Evaluation) -> dict[str, float]:
        done = self.progress.step
        row = {"step": done, "tokens": done * self.config.train.batch_tokens, "loss": evaluation.loss}
        if evaluation.loss_leak_free is not None:
            row["loss_leak_free"] = evaluation.loss_leak_free
        churns = [layer["churn"] for layer in evaluation.routing if "churn" in layer]
        return {**row, "churn": float(np.mean(churns))} if churns else row

    def _show(self, seconds: float) -> None:
        done, train = self.progress.step, self.config.train
        numbers = {
            "step": float(done),
            "steps": float(train.steps),
            "loss": float(np.mean(self.progress.recent_losses or [math.nan])),
            "tokens_per_second": self._rate(seconds),
        }
        self.folder.save_progress(**numbers)
        if self.watch is not None:
            self.watch(numbers)

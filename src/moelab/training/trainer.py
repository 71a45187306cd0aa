"""One run, from a resolved config to a run record: killed at any moment and started again, it ends the same.

The batch of a step depends on seed and step alone, checkpoints hold everything else, and nothing reads the clock
but the timings, so on a CPU a resumed run's weights are bit-identical to an undisturbed one's.
"""

import math
import time
from collections.abc import Generator
from datetime import UTC, datetime
from typing import TypeVar

import torch
from torch import Tensor

from moelab.data import Dataset, TrainBatches
from moelab.errors import MoelabError
from moelab.evaluation import Evaluation, evaluate, validation_batches
from moelab.model import LanguageModel, to_token_choice
from moelab.printable import warn
from moelab.runs import RunConfig, RunFolder
from moelab.runs.folder import CHECKPOINTS
from moelab.training.branch import load_parent
from moelab.training.checkpoint import Checkpoint, load_newest, save_checkpoint
from moelab.training.graphs import Capture
from moelab.training.kernels import check_kernels, kernels_of
from moelab.training.layout import lay_out
from moelab.training.monitor import Monitor, Watcher
from moelab.training.optimizer import Optimizer
from moelab.training.processes import world
from moelab.training.progress import Progress
from moelab.training.schedule import evaluation_steps, learning_rate_at
from moelab.training.step import Step
from moelab.training.vocabulary import count_vocabulary

T = TypeVar("T")


class Trainer:
    """Holds one run's model, optimiser and progress while it trains.

    `layout` is how the processes of the run hold the model; `dtype` that of the weights, of which proofs ask for fp64.
    With a `capture` the steps of a run in one process are recorded and repeated.
    """

    optimizer: Optimizer

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        dataset: Dataset,
        watch: Watcher | None = None,
        dtype: torch.dtype = torch.float32,
        capture: Capture | None = None,
    ) -> None:
        train = config.train
        torch.set_num_threads(train.threads)
        self.config, self.folder, self.dataset, self.world = config, folder, dataset, world()
        self.layout, self.files = lay_out(config, self.world, dtype)
        count_vocabulary(self.model, dataset, config.data.unique_tokens)
        self.optimizer = Optimizer(self.layout.parts, train)
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
        self.monitor = Monitor(config, folder, watch, self.world.size)
        self.grad_norm = torch.zeros(())
        self._capture = capture if self.world.size == 1 else None
        self._compute = self._computing()

    @property
    def model(self) -> LanguageModel:
        """This process's model; on a mesh, its part of it."""
        return self.layout.model

    def restore(self) -> None:
        """Continue from the newest whole checkpoint, if there is one; a branch starts from its parent's.

        Damaged checkpoints are reported on stderr and in the record's notes. Raises InputError for another run's
        checkpoint, and for one of this run that other kernels computed.
        """
        found, notes = load_newest(self.folder.path / CHECKPOINTS, self.config.run_id, self.files)
        for note in notes if self.world.main else []:
            warn(f"run {self.config.run_id}: {note}")
        if found is None and self.config.parent is not None:
            found = load_parent(self.config, self.folder.path.parent, self.dataset, self.files)
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
            self.layout.load(weights)
        except RuntimeError as error:
            raise MoelabError(f"checkpoint: does not fit the model: {str(error).splitlines()[0]}") from error
        self.optimizer.load_state({name: tensor.to(self.config.train.device) for name, tensor in state.items()})
        self.progress.resumed += 1

    def save(self, seconds: float) -> None:
        """Write a checkpoint of this moment; on a mesh all processes do it together."""
        self.progress.seconds = seconds
        self._count_expert_steps()
        train = self.config.train
        save_checkpoint(
            self.folder.path / CHECKPOINTS,
            self.progress,
            self.layout.state(),
            self.optimizer.state(),
            {"choices": torch.stack(self.choices)} if self.choices else None,
            keep=train.keep_checkpoints,
            keep_steps=train.keep_steps,
            files=self.files,
        )

    def _turn(self) -> None:
        """The transition: the same weights and optimiser state, as token choice from the next step on."""
        self._count_expert_steps()
        state, self.choices = self.optimizer.state(), []
        self.layout.take(to_token_choice(self.model, self.config.train.dispatch))
        self.optimizer = Optimizer(self.layout.parts, self.config.train)
        self._compute = self._computing()
        if state:
            self.optimizer.load_state(state)

    def step(self) -> Tensor:
        """One optimiser step; returns the mean cross-entropy of its batch, nats per token, where the model lies."""
        train = self.config.train
        if self.progress.step == train.switch_step:
            self._turn()
        rate = learning_rate_at(self.progress.step, train)
        loss, self.grad_norm = self._compute(self.batches.batch(self.progress.step), rate)
        self.progress.step += 1
        return self.world.sum(loss) / self.world.size

    def _computing(self) -> Step:
        """What computes a step of the model as it is now."""
        return Step(self.config.train, self.layout, self.optimizer, self.world, self._capture)

    def evaluate(self) -> Evaluation:
        """The validation loss now, entered in the curve; on a mesh all processes take part, with the same tokens."""
        train, progress = self.config.train, self.progress
        found = evaluate(
            self.model, self.validation, device=train.device, precision=train.precision, before=self.choices
        )
        self.choices = found.choices
        progress.evaluation = None
        if math.isfinite(found.loss):
            progress.evaluation = found.to_dict()
            self.monitor.evaluated(progress, found)
        return found

    def run(self, checkpoint_seconds: float) -> tuple[Evaluation | None, float]:
        """Train to the end (or to divergence): the last evaluation, None if diverged, and the seconds it took."""
        return to_the_end(self.steps(checkpoint_seconds))

    def steps(self, checkpoint_seconds: float) -> Generator[None, None, tuple[Evaluation | None, float]]:
        """`run`, stopping after each step."""
        train, progress, monitor = self.config.train, self.progress, self.monitor
        if progress.step == (self.config.parent.step if self.config.parent else 0):
            progress.started = progress.started or datetime.now(UTC).isoformat(timespec="seconds")
        started = time.monotonic() - progress.seconds
        saved = time.monotonic()
        marks = evaluation_steps(train.steps, train.evaluations)
        while progress.step < train.steps:
            self.folder.check()
            monitor.put(progress.step + 1, self.step(), self.grad_norm)
            due = self._agreed(time.monotonic() - saved > checkpoint_seconds) and progress.step < train.steps
            writes = due or progress.step in marks or progress.step in train.keep_steps
            if not monitor.note_losses(progress, all_of_them=writes or progress.step == train.steps):
                self._count_expert_steps()
                return None, time.monotonic() - started
            monitor.log_step(progress, self.grad_norm, time.monotonic() - started)
            if self.world.main or self.layout.sharded:
                if progress.step in marks:
                    self.evaluate()
                if due or progress.step in train.keep_steps:
                    self.save(time.monotonic() - started)
                    saved = time.monotonic()
            if self.world.main:
                monitor.show(progress, time.monotonic() - started)
            yield
        self._count_expert_steps()
        self.progress.notes += self.not_recorded()
        last = Evaluation(**progress.evaluation) if progress.evaluation else None
        return last, time.monotonic() - started

    def _agreed(self, due: bool) -> bool:
        """Where all write a checkpoint together, the first process's clock decides when."""
        return self.world.agree(due, self.config.train.device) if self.layout.sharded else due

    def not_recorded(self) -> list[str]:
        """Why steps were not repeated from a recording, where that was wanted."""
        failure = self._compute.failure
        return [failure] if failure is not None else []

    def _count_expert_steps(self) -> None:
        """Move what the optimiser has counted since the last time into the progress."""
        steps, idle = self.optimizer.take_expert_steps()
        self.progress.expert_steps += steps
        self.progress.idle_expert_steps += idle


def to_the_end(steps: Generator[None, None, T]) -> T:
    """What steps return when nothing stops between them."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result

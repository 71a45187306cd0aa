"""A run's numbers for TensorBoard or Weights & Biases, by the same names in both; neither package is needed else.

Names: `train/loss`, `train/learning_rate`, `train/grad_norm`, `train/tokens_per_second`; `eval/loss`,
`eval/loss_leak_free`, `eval/bits_per_byte`, `eval/churn`; `routing/LAYER/NAME` for every number of the routing record,
LAYER counting the MoE layers from 0. The x axis is the optimiser step.
"""

import importlib
from typing import Any, Protocol

from moelab.config import dump_yaml
from moelab.errors import InputError
from moelab.evaluation import Evaluation
from moelab.printable import fenced, printable
from moelab.runs import RunConfig, RunFolder
from moelab.runs.config import Tracker, check_tracker

FOLDER = "tensorboard"
"""Where in a run's folder the event files lie; W&B makes its own, `wandb`."""

_ENTRIES = 1000
"""About how many training steps of a run are logged, evenly spread."""


class Log(Protocol):
    """Takes numbers by name at a step."""

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Log them."""

    def close(self) -> None:
        """Flush what is left."""


class _TensorBoard:
    def __init__(self, folder: RunFolder, config: RunConfig, resumed_at: int) -> None:
        writer = _package("torch.utils.tensorboard", "tensorboard").SummaryWriter
        # Entries of a step beyond the checkpoint, written before a kill, are purged.
        self.writer = writer(str(folder.path / FOLDER), purge_step=resumed_at + 1)
        self.writer.add_text("config", fenced(dump_yaml(config.to_dict())))

    def write(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _WandB:
    def __init__(self, folder: RunFolder, config: RunConfig, resumed_at: int) -> None:
        wandb = _package("wandb", "wandb")
        self.run = wandb.init(
            project="moelab",
            id=config.run_id,
            name=printable(config.name or config.run_id),
            dir=str(folder.path),
            config=config.to_dict(),
            resume="allow",
        )

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self.run.log(numbers, step=step)

    def close(self) -> None:
        self.run.finish()


def open_log(kind: Tracker, folder: RunFolder, config: RunConfig, resumed_at: int = 0) -> Log:
    """A log of the run in its own folder (W&B: online or offline by WANDB_MODE).

    Raises InputError where the package is not installed.
    """
    if kind == "tensorboard":
        return _TensorBoard(folder, config, resumed_at)
    return _WandB(folder, config, resumed_at)


def check_log(name: str) -> Tracker:
    """The name itself. Raises InputError for another one, or where its package is not installed."""
    kind = check_tracker(name)
    _package("torch.utils.tensorboard" if kind == "tensorboard" else kind, kind)
    return kind


def logs_step(step: int, steps: int) -> bool:
    """Whether the training loss of this step is logged."""
    return step % max(1, steps // _ENTRIES) == 0 or step == steps


def evaluation_numbers(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation by the names of the log."""
    numbers = {"eval/loss": evaluation.loss, "eval/bits_per_byte": evaluation.bits_per_byte}
    if evaluation.loss_leak_free is not None:
        numbers["eval/loss_leak_free"] = evaluation.loss_leak_free
    churns = [row["churn"] for row in evaluation.routing if "churn" in row]
    if churns:
        numbers["eval/churn"] = sum(churns) / len(churns)
    for layer, row in enumerate(evaluation.routing):
        numbers |= {f"routing/{layer}/{name}": value for name, value in row.items()}
    return numbers


def _package(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"--log: the package {package} is not installed; pip install 'moelab[log]'") from None

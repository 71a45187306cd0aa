"""A tiny run that is killed at a step; the data set and the runs are those of tests/conftest.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moelab.data import Dataset
from moelab.runs import RunConfig, RunFolder
from moelab.runs.config import Tracker
from moelab.training import Trainer, train_run
from moelab.training.kernels import computed_by
from moelab.training.log import open_log


@pytest.fixture(scope="session")
def dataset(tiny_dataset: Dataset) -> Dataset:
    """The tiny data set, which `make_run` trains on."""
    return tiny_dataset


@pytest.fixture(scope="session")
def undisturbed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunConfig], Path]:
    """A function that trains a run without a break, once for all tests, and returns its folder. Read only."""
    root = tmp_path_factory.mktemp("undisturbed")

    def train(config: RunConfig) -> Path:
        folder = root / config.run_id
        if not (folder / "record.json").exists():
            train_run(config, root, dataset)
        return folder

    return train


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.fixture
def train_until() -> Any:
    """A function that trains, checkpointing at every step, and dies before optimiser step `step`."""

    def train(config: RunConfig, root: Path, dataset: Dataset, step: int, log: Tracker | None = None) -> None:
        trainer = Trainer(config, RunFolder.create(root, config), dataset)
        trainer.restore()
        monitor = trainer.monitor
        monitor.log = open_log(log, trainer.folder, config, trainer.progress.step) if log else None
        inner = trainer.step

        def step_or_die() -> float:
            if trainer.progress.step == step:
                raise Killed
            return inner()

        trainer.step = step_or_die  # type: ignore[method-assign]
        with pytest.raises(Killed), computed_by(config.train):
            trainer.run(checkpoint_seconds=0)
        if monitor.log is not None:
            monitor.log.close()

    return train

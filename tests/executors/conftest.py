"""Runs that take a fraction of a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moelab.data import Dataset
from moelab.executors import ExecutorConfig, Order, Outcome, run_all, work
from moelab.runs import RunConfig, RunFolder
from moelab.training import train_run

SHARED = ExecutorConfig(patience=1.0, checkpoint_seconds=0.0, share=4)


@pytest.fixture(scope="session")
def dataset(tiny_dataset: Dataset) -> Dataset:
    """The tiny data set, which `a_run` and `make_run` train on."""
    return tiny_dataset


@pytest.fixture
def a_run(make_run: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    """Like `make_run`, of one layer, width 8 and eight steps."""

    def make(model: dict[str, Any] | None = None, **train: Any) -> RunConfig:
        shape = {"d_model": 8, "n_layers": 1, "n_heads": 1, "d_ff": 16, **(model or {})}
        return make_run(shape, **{"tokens": 512, "eval_tokens": 64, "evaluations": 1, **train})

    return make


@pytest.fixture
def train(threads: Callable[..., None], dataset: Dataset, tmp_path: Path) -> Callable[..., Outcome]:
    """run_all with threads that do `act`, four runs at a time."""

    def call(configs: list[RunConfig], act: Callable[[Order, str], dict[str, str]] = work, **options: Any) -> Outcome:
        threads(act)
        options = {"executor": SHARED, "workers": 1, **options}
        return run_all(configs, tmp_path / "runs", dataset.folder, **options)

    return call


def outcome(config: RunConfig, root: Path) -> dict[str, Any]:
    """A record without its times, its memory, how often it was interrupted and who shared its device."""
    record = RunFolder(root / config.run_id).load_record().to_dict()
    own = ("seconds", "started", "tokens_per_second", "peak_memory_bytes", "resumed", "shared")
    return {name: value for name, value in record.items() if name not in own}


@pytest.fixture
def same_as_alone(tmp_path: Path, dataset: Dataset) -> Callable[[list[RunConfig]], None]:
    """Asserts that runs of `train` have the records of runs alone: losses, curves, routing statistics and the digest of
    the weights."""

    def check(configs: list[RunConfig]) -> None:
        for config in configs:
            train_run(config, tmp_path / "alone", dataset)
            assert outcome(config, tmp_path / "runs") == outcome(config, tmp_path / "alone"), config.run_id

    return check

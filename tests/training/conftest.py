"""A tiny prepared corpus and tiny runs on it."""

from pathlib import Path
from typing import Any

import pytest

from moelab.data import Dataset, PrepareConfig, prepare
from moelab.runs import RunConfig, RunFolder
from moelab.training import Trainer, resolve_run
from moelab.training.log import Tracker, open_log

TEXTS = Path(__file__).parent.parent / "data" / "texts"
TEXT = "the cat sat on a mat while two dogs ran past seven tall trees and over an old wall"
WORDS = TEXT.split(" ")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Sixty short documents of a small grammar, vocabulary 300: learnable in a few steps."""
    folder = tmp_path_factory.mktemp("texts")
    for index in range(60):
        words = [WORDS[(index * 7 + i * i) % len(WORDS)] for i in range(120)]
        (folder / f"{index:02d}.txt").write_text(" ".join(words))
    config = PrepareConfig(sources=(str(folder),), vocab_size=300, validation_share=0.2)
    return prepare(config, tmp_path_factory.mktemp("prepared") / "data").dataset


@pytest.fixture
def make_run(dataset: Dataset) -> Any:
    """A function of changes to `train` and `model` that returns a resolved tiny run."""

    def make(model: dict[str, Any] | None = None, **train: Any) -> RunConfig:
        base_model = {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32}
        base_train = {
            "tokens": 40 * 64,
            "seq_len": 16,
            "batch_tokens": 64,
            "learning_rate": 0.02,
            "eval_tokens": 500,
            "evaluations": 2,
            "threads": 1,
            "precision": "fp32",
        }
        config = {
            "model": {**base_model, **(model or {})},
            "data": {"path": str(dataset.folder)},
            "train": {**base_train, **train},
        }
        return resolve_run(RunConfig.parse(config), dataset)

    return make


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.fixture
def train_until() -> Any:
    """A function that trains, checkpointing at every step, and dies before optimiser step `step`."""

    def train(config: RunConfig, root: Path, dataset: Dataset, step: int, log: Tracker | None = None) -> None:
        trainer = Trainer(config, RunFolder.create(root, config), dataset)
        trainer.restore()
        trainer.log = open_log(log, trainer.folder, config, trainer.progress.step) if log else None
        inner = trainer.step

        def step_or_die() -> float:
            if trainer.progress.step == step:
                raise Killed
            return inner()

        trainer.step = step_or_die  # type: ignore[method-assign]
        with pytest.raises(Killed):
            trainer.run(checkpoint_seconds=0)
        if trainer.log is not None:
            trainer.log.close()

    return train

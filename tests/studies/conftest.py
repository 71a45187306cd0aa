"""Finished runs with given losses, nothing trained."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moelab.runs import RunConfig, RunRecord, run_columns

MODEL: dict[str, Any] = {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32}
RESOLVED = {"device": "cpu", "precision": "fp32", "threads": 1, "dispatch": "none"}


def finished_run(loss: float | None, seed: int = 0, **model: Any) -> tuple[RunConfig, RunRecord]:
    config = RunConfig.parse(
        {
            "model": {**MODEL, **model},
            "data": {"path": "x", "manifest_hash": "h"},
            "train": {"tokens": 640, "seq_len": 16, "batch_tokens": 64, "seed": seed, **RESOLVED},
        }
    )
    measured = {
        "run_id": config.run_id,
        "status": "diverged" if loss is None else "finished",
        "loss": loss,
        "seconds": 1.0,
        "tokens_per_second": 1.0,
        "peak_memory_bytes": 1,
        "data_hash": "h",
        **RESOLVED,
    }
    return config, RunRecord.parse({**run_columns(config), **measured})


@pytest.fixture(autouse=True, scope="module")
def _pages_without_script_and_stills(pages_without_library: None) -> Iterator[None]:
    """A still takes a third of a second; tests/report looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vl_convert.vegalite_to_svg", lambda spec: "<svg/>")
        yield


@pytest.fixture
def with_data(tiny_dataset: Any) -> Callable[[Path], Path]:
    """A function of a study's folder: it puts the tiny data set there, prepared as the study would, and returns it."""

    def put(out: Path) -> Path:
        shutil.copytree(tiny_dataset.folder, out / "data")
        return out

    return put


@pytest.fixture
def trained() -> Callable[..., tuple[RunConfig, RunRecord]]:
    """A function of a loss (None: diverged), a seed and changes of the model that returns a run and its record."""
    return finished_run

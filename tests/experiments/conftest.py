"""A small study whose entries are planned, nothing trained."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from moelab.runs import RunConfig
from moelab.studies import StudyConfig, build_runs

BASE: dict[str, Any] = {
    "model": {"vocab_size": 512, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 96},
    "train": {"tokens": 400_000, "seq_len": 128, "batch_tokens": 1024, "learning_rate": 0.02},
}


@pytest.fixture
def base() -> dict[str, Any]:
    """The base of the studies that `plan` plans: two dense layers of width 32, 390 steps."""
    return copy.deepcopy(BASE)


@pytest.fixture(scope="session")
def plan() -> Callable[..., list[RunConfig]]:
    """A function of entries and of changes to the rest of a study that returns its runs, nothing trained."""

    def make(*entries: dict[str, Any], base: dict[str, Any] | None = None, **changes: Any) -> list[RunConfig]:
        whole = {"name": "s", "title": "t", "data": {"sources": ["texts"]}, "base": base or BASE}
        study = StudyConfig.parse({**whole, "runs": list(entries), **changes})
        return build_runs(study, study.runs, "data", {})

    return make

"""Runs that take a fraction of a second."""

from collections.abc import Callable
from typing import Any

import pytest

from moelab.data import Dataset
from moelab.runs import RunConfig


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

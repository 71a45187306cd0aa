"""Fixtures for several rooms: designs and coefficients that every law can be tried on, and published tables."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moelab.laws import Law

FORMS: dict[str, dict[str, float]] = {
    "yun2024": {
        "A": 50.0, "alpha": 0.2, "B": 0.5, "beta": 0.5, "C": 100.0, "gamma": 0.2, "d": -0.001,
        "E_start": 1.5, "E_max": 300.0, "E_0": 1.2,
    },
    "wang2024": {"A": 100.0, "alpha": 0.25, "gamma": 0.1, "B": 400.0, "beta": 0.28, "E_0": 1.7},
    "clark2022-bilinear": {"a": -0.08, "b": -0.1, "c": 0.01, "d": 1.1},
    "clark2022-separable": {"a": -0.08, "b": -0.03, "d": 1.1},
}  # fmt: skip
"""Plausible coefficients of our own for laws that ship without: only for trying the formulas."""


def some_coefficients(law: Law) -> dict[str, float]:
    """The published coefficients, or ours where there are none."""
    return dict(law.published or FORMS[law.id.removesuffix("+reuse")])


def some_variables(n: int = 60, seed: int = 0) -> dict[str, Any]:
    """n random designs with every variable any law asks for."""
    rng = np.random.default_rng(seed)
    params = np.exp(rng.uniform(np.log(2e7), np.log(5e9), n))
    tokens = params * np.exp(rng.uniform(np.log(3), np.log(300), n))
    return {
        **dict.fromkeys(
            ("params_total", "params_non_embedding", "params_active_non_embedding", "params_dense", "params_nonzero"),
            params,
        ),
        "params_active": params * rng.uniform(0.1, 1, n),
        "tokens": tokens,
        "unique_tokens": tokens * rng.uniform(0.02, 1, n),
        "granularity": 2.0 ** rng.integers(0, 6, n),
        "sparsity": rng.choice([0, 0.5, 0.75, 0.9, 0.95], n),
        "expert_ratio": 2.0 ** rng.integers(0, 7, n),
        "n_experts": 2.0 ** rng.integers(0, 6, n),
        "expert_activation": rng.uniform(0.01, 1, n),
        "granularity_ling": rng.uniform(2, 16, n),
        "train_flops": 10 ** rng.uniform(18, 21, n),
        "active_experts": rng.uniform(1, 16, n),
        "shared_share": rng.uniform(0, 0.6, n),
        "weight_sparsity": rng.uniform(0, 0.9, n),
    }


@pytest.fixture
def coefficients_of() -> Callable[[Law], dict[str, float]]:
    return some_coefficients


@pytest.fixture
def variables_of() -> Callable[..., dict[str, Any]]:
    return some_variables


@pytest.fixture
def published_runs() -> Path:
    """The folder of published tables of runs, named by MOELAB_PUBLISHED_RUNS."""
    folder = os.environ.get("MOELAB_PUBLISHED_RUNS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MOELAB_PUBLISHED_RUNS names no folder of published runs")
    return Path(folder)

"""Runs of our own making: random designs with the losses that a law gives them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from moelab.laws import Law, get_law


@pytest.fixture(scope="session")
def synthetic(variables_of: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, np.ndarray]]:
    """(law, coefficients, n, noise, seed) -> a table of n runs, their losses off by `noise` (relative)."""

    def make(
        law: Law, coefficients: Mapping[str, float], n: int, noise: float = 0.0, seed: int = 0
    ) -> dict[str, np.ndarray]:
        designs = variables_of(n, seed)
        table = {name: designs[name] for name in law.variables}
        off = np.exp(noise * np.random.default_rng(seed + 1).standard_normal(n))
        return {**table, law.kind: law.loss(coefficients, table) * off}

    return make


@pytest.fixture
def clean(synthetic: Callable[..., Any]) -> dict[str, Any]:
    """Thirty runs without anything to warn of."""
    law = get_law("hoffmann2022")
    return dict(synthetic(law, law.published, 30, 0.005))

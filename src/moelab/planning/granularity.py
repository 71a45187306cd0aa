"""What laws that see the granularity of experts make of it, in compute, within the ranges they were fitted on.

Krajewski et al. (arXiv 2402.07871) give loss against G = d_ff / d_expert at an expansion of 16 or 64. Tian et al.
(Ling, 2507.17702) give the leverage over dense against 2 d_model / d_expert. Sizes, data and compute beyond a law's
runs are clipped to them: only the effect of granularity is asked for.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.laws import get_law
from moelab.laws.design import Design

Array = NDArray[Any]

STEP = 0.1
"""Step in log compute, size and data growing together, over which a law's own slope is taken."""

EXPANSIONS = {"krajewski2024": 64.0, "krajewski2024-x16": 16.0}
"""Krajewski's laws by the expansion that their coefficients hold for."""

SEES = ("tian2025", *EXPANSIONS)
"""The published laws that see granularity at all sizes of experts."""


def granularity_excess(design: Design) -> dict[str, Array]:
    """By law, the excess log compute (n,) of each design's granularity over the law's best within its range.

    NaN where the design's granularity lies outside that range. Dense designs have none: 0.
    """
    found = {name: rule(design) for name, rule in _RULES.items()}
    return {name: np.where(design.dense, 0.0, excess) for name, excess in found.items()}


def _grid(name: str) -> Array:
    """Granularities over a law's fitted range, even in the logarithm."""
    low, high = (2.0, 16.0) if name == "tian2025" else (1.0, 16.0)
    return np.exp(np.linspace(np.log(low), np.log(high), 43))


def _clipped(values: Any, ends: tuple[float, float]) -> Array:
    return np.clip(np.asarray(values, float), *ends)


def _log_leverage(design: Design, granularity: Array) -> Array:
    """Log of Tian's leverage at these granularities, compute and activation clipped to the law's runs."""
    law = get_law("tian2025")
    own = law.read(design, published=True).variables
    ranges = {name: ends for name, ends in law.ranges.items() if ends}
    variables = {
        "granularity_ling": granularity,
        "train_flops": _clipped(own["train_flops"], ranges["train_flops"]),
        "expert_activation": _clipped(own["expert_activation"], ranges["expert_activation"]),
    }
    assert law.published is not None
    return np.asarray(np.log(law.loss(law.published, variables)))


def _tian(design: Design) -> Array:
    """Excess log compute: equal loss takes C_dense / EL."""
    own = 2 * np.asarray(design.shape.d_model, float) / np.maximum(np.asarray(design.shape.d_expert, float), 1.0)
    grid = _grid("tian2025")
    best = _log_leverage(design, grid[:, None]).max(axis=0)
    inside = (own >= grid[0] * 0.99) & (own <= grid[-1] * 1.01)
    return np.where(inside, best - _log_leverage(design, own), np.nan)


def _krajewski_loss(design: Design, granularity: Array, grown: float) -> Array:
    """Loss by the law of the nearest expansion (64 or 16); size and data clipped, then grown together."""
    narrow = np.abs(np.log(np.maximum(design.expansion, 1.0) / 16)) < np.abs(
        np.log(np.maximum(design.expansion, 1.0) / 64)
    )
    ranges = get_law("krajewski2024").ranges
    params, tokens = ranges["params_non_embedding"], ranges["tokens"]
    assert params is not None
    assert tokens is not None
    growth = np.exp(grown / 2)
    variables = {
        "params_non_embedding": _clipped(design.params_without_router, params) * growth,
        "tokens": _clipped(design.tokens, tokens) * growth,
        "granularity": granularity,
    }
    losses = []
    for name in EXPANSIONS:
        law = get_law(name)
        assert law.published is not None
        losses.append(np.asarray(law.loss(law.published, variables)))
    return np.where(narrow, losses[1], losses[0])


def _krajewski(design: Design) -> Array:
    """Excess log compute: extra loss over the law's own slope against compute, size and data growing together."""
    own, grid = design.granularity, _grid("krajewski2024")
    here = _krajewski_loss(design, own, 0.0)
    best = _krajewski_loss(design, grid[:, None], 0.0).min(axis=0)
    slope = (here - _krajewski_loss(design, own, STEP)) / STEP
    inside = (own >= grid[0] * 0.99) & (own <= grid[-1] * 1.01)
    return np.where(inside, (here - best) / slope, np.nan)


_RULES: dict[str, Callable[[Design], Array]] = {"tian2025": _tian, "krajewski2024": _krajewski}

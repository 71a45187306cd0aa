"""What practice prefers: the experts of released models, and Li et al.'s rules (arXiv 2506.12119)."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture.released import released_models

Array = NDArray[Any]

SINCE = "2024-12"
"""Month from which on released models count as today's practice."""

MANY = 16
"""Routed experts per token from which Li et al. and released models find no gain."""

SINGLE, TOO_MANY, SHARED, SIZE = 2.0, 1.0, 0.25, 0.25
"""Distances of one routed expert per token, of every doubling beyond `MANY`, of one more or fewer shared expert, and of
every doubling of the model's size, in doublings of the number of experts."""


@cache
def released_experts() -> tuple[tuple[int, int, int, float], ...]:
    """(n_experts, top_k, n_shared_experts, all parameters) of released MoE models since `SINCE`, several experts per
    token."""
    found = set()
    for model in released_models().values():
        moe = model.config.moe
        if moe is not None and moe.top_k > 1 and model.released >= SINCE:
            found.add((moe.n_experts, moe.top_k, moe.n_shared_experts, model.params_total))
    return tuple(sorted(found))


def distance_from_practice(lattice: Any) -> Array:
    """Distance (n,) of every MoE design's experts from those of the nearest released model, in doublings.

    Larger models have more experts (64 at 16B, 128 at 30B to 235B, 160 to 384 from 355B on), so size counts too.
    """
    s, n = lattice.shape, len(lattice)
    experts, top_k, shared = (
        np.broadcast_to(np.asarray(column, float), n) for column in (s.n_experts, s.top_k, s.n_shared_experts)
    )
    log_e, log_k = np.log2(np.maximum(experts, 1)), np.log2(np.maximum(top_k, 1))
    nearest = np.full(n, np.inf)
    log_n = np.log2(lattice.params_total)
    for e, k, extra, total in released_experts():
        away = np.abs(log_e - np.log2(e)) + np.abs(log_k - np.log2(k)) + SHARED * np.abs(shared - extra)
        away = away + SIZE * np.abs(log_n - np.log2(total))
        nearest = np.minimum(nearest, away)
    return np.asarray(nearest + SINGLE * (top_k == 1) + TOO_MANY * np.maximum(0, log_k - np.log2(MANY)))

"""Equivalent designs, with equal law inputs, and how far each is from Li et al.'s rules (arXiv 2506.12119)."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.lattice import Lattice
from moelab.planning.ranking import Ranking

Array = NDArray[Any]

SAME = 0.005
"""Relative difference in every law input below which two designs are equivalent."""

AXES = ("d_model", "n_layers", "n_heads", "n_kv_heads", "n_experts", "top_k", "n_shared_experts", "d_expert")

LI_ASPECT = 88.0
"""The best d_model / n_layers (zeta) in arXiv 2506.12119."""


def distinct(ranking: Ranking) -> Array:
    """The best design of each group with equal law inputs (positions, in no order), among the ranked ones."""
    order = ranking.order
    key = np.zeros(len(order), np.uint64)
    for column in ranking.criteria:
        logs = np.log(np.maximum(column[order], 1e-300))
        cell = np.floor(logs / SAME).astype(np.int64).astype(np.uint64)
        key = (key ^ cell) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    _, first = np.unique(key, return_index=True)
    return np.asarray(order[first])


def equivalents(ranking: Ranking, index: int) -> Array:
    """Positions of the ranked designs whose law inputs equal those of `index`, itself among them."""
    positions, values = ranking.by_first_input
    value = float(ranking.criteria[0][index])
    # Wider than `SAME` by a rounding: the exact comparison follows.
    ends = np.sort([value * (1 - SAME * (1 + 1e-9)), value * (1 + SAME * (1 + 1e-9))])
    same = positions[np.searchsorted(values, ends[0], "left") : np.searchsorted(values, ends[1], "right")]
    for column in ranking.criteria:
        same = same[np.abs(column[same] - column[index]) <= SAME * np.abs(column[index])]
    return np.sort(same) if len(same) else np.array([index])


def top(ranking: Ranking, positions: Array, count: int) -> list[int]:
    """The `count` best of the positions that differ from each other in some law input."""
    return list(islice(_different(ranking, positions), count))


def _different(ranking: Ranking, positions: Array) -> Iterator[int]:
    """Positions, best first, each different in some law input from all before it."""
    order = positions[np.argsort(ranking.score[positions], kind="stable")]
    columns = [column[order] for column in ranking.criteria]
    free = np.ones(len(order), bool)
    while free.any():
        first = int(np.argmax(free))
        yield int(order[first])
        same = np.ones(len(order), bool)
        for column in columns:
            same &= np.abs(column - column[first]) <= SAME * np.abs(column[first])
        free &= ~same


def undetermined(lattice: Lattice, positions: Array) -> tuple[str, ...]:
    """Axes on which these equivalent designs differ."""
    some = lattice.take(positions)
    shape = some.shape
    values = {name: np.asarray(getattr(shape, name)) for name in AXES} | {
        "n_dense_layers": some.n_dense_layers,
        "attention": some.pattern,
        "head_dim": np.asarray(shape.head_dim),
    }
    return tuple(name for name, column in values.items() if np.ndim(column) and len(np.unique(column)) > 1)


def distance_from_rules(lattice: Lattice) -> Array:
    """Distance from Li et al.'s rules (n,): zeta 88, one leading dense layer, shared experts, K from 2 to 8. Heads are
    128 wide from d_model 2,048 on, else 64."""
    s = lattice.shape
    moe = lattice.is_moe
    aspect = np.abs(np.log(s.d_model / np.asarray(s.n_layers) / LI_ASPECT))
    leading = np.abs(lattice.n_dense_layers - 1) * moe
    few_or_many = moe * (1.0 * (np.asarray(s.top_k) == 1) + 0.5 * (np.asarray(s.top_k) > 8))
    shared = moe * (np.asarray(s.n_shared_experts) == 0)
    head = np.abs(np.log2(np.asarray(s.head_dim) / np.where(np.asarray(s.d_model) >= 2048, 128, 64)))
    return np.asarray(aspect + few_or_many + 0.2 * leading + 0.2 * shared + 0.1 * head)

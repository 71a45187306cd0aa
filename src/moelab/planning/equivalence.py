"""Designs that the laws cannot tell apart, and which of them to build: Li et al.'s rules (arXiv 2506.12119) decide."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.lattice import Lattice
from moelab.planning.ranking import Ranking

Array = NDArray[Any]

SAME = 0.005
"""Relative difference in every law input below which two designs are one to the laws."""

AXES = ("d_model", "n_layers", "n_heads", "n_kv_heads", "n_experts", "top_k", "n_shared_experts", "d_expert")

LI_ASPECT = 88.0
"""d_model / n_layers (zeta) that won in arXiv 2506.12119."""


def distinct(ranking: Ranking) -> Array:
    """The best design of each group with equal law inputs (positions, in no order), among the ranked ones."""
    order = ranking.order
    key = np.zeros(len(order), np.uint64)
    for column in ranking.seen:
        logs = np.log(np.maximum(column[order], 1e-300))
        cell = np.floor(logs / SAME).astype(np.int64).astype(np.uint64)
        key = (key ^ cell) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    _, first = np.unique(key, return_index=True)
    return np.asarray(order[first])


def equivalents(ranking: Ranking, index: int) -> Array:
    """Positions of the ranked designs whose law inputs equal those of `index`, itself among them."""
    same = ranking.order
    for column in ranking.seen:
        same = same[np.abs(column[same] - column[index]) <= SAME * np.abs(column[index])]
    return np.sort(same) if len(same) else np.array([index])


def top(ranking: Ranking, positions: Array, count: int) -> list[int]:
    """The `count` best of the positions that differ from each other in some law input."""
    return list(islice(_different(ranking, positions), count))


def listing(ranking: Ranking, positions: Array, count: int) -> list[int]:
    """The `count` best designs as they should be built: for each of `top`, the twin that Li et al.'s rules prefer.

    Being one to the laws is not transitive, so two of the best may lead to the same twin, or to two that are one to the
    laws: only the first is listed.
    """
    listed: list[int] = []
    for index in _different(ranking, positions):
        twin = preferred(ranking.feasible.lattice, equivalents(ranking, index))
        if not any(_one(ranking, other, twin) for other in listed):
            listed.append(twin)
        if len(listed) == count:
            break
    return listed


def _different(ranking: Ranking, positions: Array) -> Iterator[int]:
    """Positions, best first, each different in some law input from all before it."""
    order = positions[np.argsort(ranking.score[positions], kind="stable")]
    columns = [column[order] for column in ranking.seen]
    free = np.ones(len(order), bool)
    while free.any():
        first = int(np.argmax(free))
        yield int(order[first])
        same = np.ones(len(order), bool)
        for column in columns:
            same &= np.abs(column - column[first]) <= SAME * np.abs(column[first])
        free &= ~same


def _one(ranking: Ranking, first: int, second: int) -> bool:
    return all(abs(column[second] - column[first]) <= SAME * abs(column[first]) for column in ranking.seen)


def preferred(lattice: Lattice, positions: Array) -> int:
    """Of designs that are one to the laws, the one that Li et al.'s rules pick; ties go to the first."""
    return int(positions[np.argmin(_against_rules(lattice.take(positions)))])


def undetermined(lattice: Lattice, positions: Array) -> tuple[str, ...]:
    """Axes on which these designs differ although the laws see no difference."""
    some = lattice.take(positions)
    values = {name: np.asarray(getattr(some.shape, name)) for name in AXES} | {
        "n_dense_layers": some.n_dense_layers,
        "head_dim": np.asarray(some.shape.head_dim),
    }
    return tuple(name for name, column in values.items() if np.ndim(column) and len(np.unique(column)) > 1)


def _against_rules(lattice: Lattice) -> Array:
    """Distance from Li et al.: depth for width (zeta 88), one leading dense layer, shared experts, K neither 1 nor very
    large. Widths of heads: 128 from d_model 2,048 on, else 64."""
    s = lattice.shape
    moe = lattice.is_moe
    aspect = np.abs(np.log(s.d_model / np.asarray(s.n_layers) / LI_ASPECT))
    leading = np.abs(lattice.n_dense_layers - 1) * moe
    few_or_many = moe * (1.0 * (np.asarray(s.top_k) == 1) + 0.5 * (np.asarray(s.top_k) > 8))
    shared = moe * (np.asarray(s.n_shared_experts) == 0)
    head = np.abs(np.log2(np.asarray(s.head_dim) / np.where(np.asarray(s.d_model) >= 2048, 128, 64)))
    return np.asarray(aspect + few_or_many + 0.2 * leading + 0.2 * shared + 0.1 * head)

"""The two halves of a lattice's designs: backbones and MoE options, counted before any is written out."""

import math
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.planning.space import Space

Band = tuple[int, range, list[tuple[int, int, int]]]
"""A width, the positions of its depths within the space's aspect, and its rows of (head_dim, heads_per_kv, d_ff)."""


def check_counts(space: Space) -> None:
    """Raises InputError where the parameters of the largest design would overflow a whole number of 64 bits."""
    widest = max(space.ffn_ratio) * space.d_model[-1] + space.d_expert_step
    if 3.0 * space.n_layers[-1] * space.d_model[-1] * widest * space.n_experts[-1] > 2**62:
        raise InputError("space: the largest design would have over 4e18 parameters; shorten d_model or n_experts")


def bands_of(space: Space) -> list[Band]:
    """The backbones by width: cheap to count before they are written out."""
    low, high = space.aspect
    bands = []
    for d in space.d_model:
        rest = [
            (head, min(group, d // head), _rounded(ratio * d, space.d_ff_step))
            for head in space.head_dim
            if d % head == 0
            for group in space.heads_per_kv
            if d // head % min(group, d // head) == 0
            for ratio in space.ffn_ratio
        ]
        first = bisect_left(space.n_layers, True, key=lambda depth: d / depth <= high)
        last = bisect_left(space.n_layers, True, key=lambda depth: d / depth < low)
        bands.append((d, range(first, max(first, last)), list(dict.fromkeys(rest))))
    return bands


def backbones_of(space: Space, bands: list[Band]) -> NDArray[np.int64]:
    """Rows of (d_model, n_layers, head_dim, heads_per_kv, d_ff)."""
    blocks = [np.zeros((0, 5), np.int64)]
    for d, depths, rest in bands:
        block = np.empty((len(depths), len(rest), 5), np.int64)
        block[..., 0] = d
        block[..., 1] = np.array(space.n_layers[depths.start : depths.stop], np.int64)[:, None]
        block[..., 2:] = np.array(rest, np.int64).reshape(-1, 3)
        blocks.append(block.reshape(-1, 5))
    rows = np.concatenate(blocks)
    if not len(rows):
        raise InputError(
            f"space: no backbone has d_model / n_layers within {list(space.aspect)}, d_model a multiple of head_dim "
            f"{list(space.head_dim)} and heads a multiple of heads_per_kv {list(space.heads_per_kv)}"
        )
    return rows


def _rounded(width: float, step: int) -> int:
    return max(step, math.floor(width / step + 0.5) * step)


def count_moe_options(space: Space) -> int:
    """How many rows `moe_options` has."""
    pairs = sum(bisect_left(space.top_k, experts) for experts in space.n_experts)
    return pairs * len(space.n_shared_experts) * len(space.n_dense_layers)


def moe_options(space: Space) -> NDArray[np.int64]:
    """Rows of (n_experts, top_k, n_shared_experts, n_dense_layers)."""
    rows = [
        (experts, top_k, shared, leading)
        for experts in space.n_experts
        for top_k in space.top_k[: bisect_left(space.top_k, experts)]
        for shared in space.n_shared_experts
        for leading in space.n_dense_layers
    ]
    if not rows:
        raise InputError("space: no n_experts is larger than the smallest top_k; add experts or kinds: [dense]")
    return np.array(rows, np.int64)

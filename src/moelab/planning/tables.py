"""The rows of a space: its backbones and its choices of experts, counted first, then as arrays."""

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.planning.attention_axis import AttentionOption, LayerPattern
from moelab.planning.space import Space

BACKBONE = ("d_model", "n_layers", "head_dim", "n_heads", "n_kv_heads", "d_ff", "pattern", "mtp_layers")
"""Columns of a backbone; `pattern` counts through the space's patterns of attention."""

OPTION = ("n_experts", "top_k", "n_shared_experts", "n_dense_layers", "moe_every", "d_shared", "d_expert")
"""Columns of a choice of experts, all 0 for dense; `d_shared` and `d_expert` 0: from the backbone's d_ff."""

Rest = tuple[int, ...]


@dataclass(frozen=True)
class Band:
    """A width, the positions of its depths within the space's aspect, and its rows of the columns from head_dim on."""

    d_model: int
    depths: range
    rest: tuple[Rest, ...]

    def __len__(self) -> int:
        return len(self.depths) * len(self.rest)


def patterns_of(space: Space) -> tuple[LayerPattern, ...]:
    """The patterns of attention of a space, each once."""
    return tuple(dict.fromkeys(_pattern(option) for option in space.attention_options))


def _pattern(option: AttentionOption) -> LayerPattern:
    return LayerPattern(option.kind, option.layers or ("full",), option.window or 0, option.mla)


def check_counts(space: Space) -> None:
    """Raises InputError where the parameters of the largest design would overflow a whole number of 64 bits."""
    ratio = max(max(option.ffn_ratio or (0.0,)) for option in space.attention_options)
    widest = max(ratio * space.d_model[-1], *(space.d_ff or (0,)), *(space.d_expert or (0,))) + space.d_expert_step
    if 3.0 * space.n_layers[-1] * space.d_model[-1] * widest * space.n_experts[-1] > 2**62:
        raise InputError("space: the largest design would have over 4e18 parameters; shorten d_model or n_experts")


def bands_of(space: Space) -> list[Band]:
    """The backbones by width, which are counted before the arrays are built."""
    low, high = space.aspect
    options, patterns, bands = space.attention_options, patterns_of(space), []
    for d in space.d_model:
        rest = dict.fromkeys(
            (*heads, d_ff, patterns.index(_pattern(option)), mtp)
            for option in options
            if option.allows(d)
            for heads in option.heads(d)
            for d_ff in space.d_ff or [rounded(ratio * d, space.d_ff_step) for ratio in option.ffn_ratio or ()]
            for mtp in space.mtp_layers
        )
        first = bisect_left(space.n_layers, True, key=lambda depth: d / depth <= high)
        last = bisect_left(space.n_layers, True, key=lambda depth: d / depth < low)
        bands.append(Band(d, range(first, max(first, last)), tuple(rest)))
    return bands


def backbones_of(space: Space, bands: list[Band]) -> NDArray[np.int64]:
    """Rows of the columns `BACKBONE`."""
    blocks = [np.zeros((0, len(BACKBONE)), np.int64)]
    for band in bands:
        block = np.empty((len(band.depths), len(band.rest), len(BACKBONE)), np.int64)
        block[..., 0] = band.d_model
        block[..., 1] = np.array(space.n_layers[band.depths.start : band.depths.stop], np.int64)[:, None]
        block[..., 2:] = np.array(band.rest, np.int64).reshape(-1, len(BACKBONE) - 2)
        blocks.append(block.reshape(-1, len(BACKBONE)))
    rows = np.concatenate(blocks)
    if not len(rows):
        heads = sorted({head for option in space.attention_options for head in option.head_dim or ()})
        groups = sorted({group for option in space.attention_options for group in option.heads_per_kv or ()})
        raise InputError(
            f"space: no backbone has d_model / n_layers within {list(space.aspect)}, d_model a multiple of head_dim "
            f"{heads} and heads a multiple of heads_per_kv {groups}"
        )
    return rows


def rounded(width: float, step: int) -> int:
    """The multiple of `step` that is nearest to a width, at least one step."""
    return max(step, math.floor(width / step + 0.5) * step)


def _pairs(space: Space) -> Iterator[tuple[int, range]]:
    """Every number of experts with the positions of the top_k that go with it."""
    low, high = space.experts_per_choice or (1.0, math.inf)
    for experts in space.n_experts:
        first = bisect_left(space.top_k, True, key=lambda k: experts / k <= high)
        last = bisect_left(space.top_k, True, key=lambda k: k >= experts or experts / k < low)
        yield experts, range(first, max(first, last))


def _widths(space: Space) -> list[tuple[int, int, int, int, int]]:
    """Every layout with its widths: (n_shared_experts, n_dense_layers, moe_every, d_shared, d_expert)."""
    rows = [
        (layout.n_shared_experts, layout.n_dense_layers, layout.moe_every, shared, expert)
        for layout in space.expert_layouts
        for shared in (space.d_shared if layout.n_shared_experts and space.d_shared else (0,))
        if shared % max(1, layout.n_shared_experts) == 0
        for expert in space.d_expert or (0,)
    ]
    return list(dict.fromkeys(rows))


def count_moe_options(space: Space) -> int:
    """How many rows `moe_options` has."""
    return sum(len(chosen) for _, chosen in _pairs(space)) * len(_widths(space))


def moe_options(space: Space) -> NDArray[np.int64]:
    """Rows of the columns `OPTION`."""
    widths = _widths(space)
    rows = [
        (experts, space.top_k[at], *layout) for experts, chosen in _pairs(space) for at in chosen for layout in widths
    ]
    if not rows:
        bounds = f" within {list(space.experts_per_choice)} of experts per choice" if space.experts_per_choice else ""
        raise InputError(
            f"space: no n_experts is larger than the smallest top_k{bounds}; add experts or kinds: [dense]"
        )
    return np.array(rows, np.int64)

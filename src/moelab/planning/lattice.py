"""Every design of a space as arrays: exact parameters and FLOPs of a million architectures in a second."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, Shape
from moelab.errors import InputError
from moelab.planning.attention_axis import LayerPattern
from moelab.planning.emit import config_of
from moelab.planning.lattice_columns import COLUMNS, counted_block
from moelab.planning.shapes import ShapeTable
from moelab.planning.space import Space
from moelab.planning.tables import (
    BACKBONE,
    OPTION,
    backbones_of,
    bands_of,
    check_counts,
    count_moe_options,
    moe_options,
)

MAX_DESIGNS = 20_000_000
CHUNK = 32_768
"""Designs processed together, so that their columns stay in a core's cache."""

FEW = 20_000
"""Designs whose shapes are kept; of more they would take more memory than their counts."""

KEPT_LATTICES, MOST_KEPT = 4, 2_000_000
"""Spaces whose designs stay counted for the next plan of the same process, and the most designs of such a space."""


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """n designs: each a row of the backbones with a row of the experts in `table`, and its exact counts (n,).

    FLOPs are per token at `space.seq_len`, as the full square of attention scores. `flops_train` includes multi-token
    prediction, which no other count does. `width_ratio` is the feed-forward width of all layers over that in use,
    `token_credit` the share of the tokens that laws read (`credit.py`).
    """

    space: Space
    table: ShapeTable
    backbone: NDArray[np.int32]
    option: NDArray[np.int32]
    params_total: NDArray[np.float64]
    params_active: NDArray[np.float64]
    params_non_embedding: NDArray[np.float64]
    params_active_non_embedding: NDArray[np.float64]
    params_router: NDArray[np.float64]
    params_experts: NDArray[np.float64]
    flops_forward: NDArray[np.float64]
    flops_train: NDArray[np.float64]
    width_ratio: NDArray[np.float64]
    token_credit: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.params_total)

    @cached_property
    def root(self) -> "tuple[Lattice, Any]":
        """The whole lattice of which these designs were taken, and their positions in it; None where it is this one."""
        return self, None

    @property
    def backbones(self) -> NDArray[np.int64]:
        """Rows of the columns `BACKBONE`: width, depth, heads, d_ff, kind of attention, further predictions."""
        return self.table.backbones

    @property
    def options(self) -> NDArray[np.int64]:
        """Rows of the columns `OPTION`: experts, choices, layouts and widths; zeros are dense."""
        return self.table.options

    @property
    def patterns(self) -> tuple[LayerPattern, ...]:
        """The kinds of attention, to which `pattern` counts."""
        return self.table.patterns

    @cached_property
    def n_experts(self) -> NDArray[np.int64]:
        """Routed experts, 0 where dense (n,)."""
        return self.of_option("n_experts")

    @cached_property
    def n_dense_layers(self) -> NDArray[np.int64]:
        """Leading dense layers of MoE designs (n,)."""
        return self.of_option("n_dense_layers")

    @cached_property
    def is_moe(self) -> NDArray[np.bool_]:
        """Which designs have experts (n,)."""
        return np.asarray((self.options[:, 0] > 0)[self.option])

    @cached_property
    def flops_head(self) -> NDArray[np.float64]:
        """Forward FLOPs of the output head, per token (n,)."""
        return np.asarray(2.0 * self.space.vocab_size * self.of_backbone("d_model"), np.float64)

    @cached_property
    def pattern(self) -> NDArray[np.int64]:
        """The kind of attention of each design (n,), a position in `patterns`."""
        return self.of_backbone("pattern")

    @property
    def shape(self) -> Shape:
        """The designs as the counting formulas read them, columns of (n,); kept for few designs."""
        if "_shape" in vars(self):
            return vars(self)["_shape"]
        shape = self.table.shape(self.backbone, self.option)
        if len(self) <= FEW:
            vars(self)["_shape"] = shape
        return shape

    def of_option(self, name: str) -> NDArray[np.int64]:
        """A column of the experts for every design (n,), one of `OPTION`."""
        return np.asarray(np.ascontiguousarray(self.options[:, OPTION.index(name)])[self.option])

    def of_experts(self, name: str) -> NDArray[np.float64]:
        """What laws read of the experts (n,), one of the table's `experts`; kept for the next plan."""
        kept = vars(self).setdefault("_of_experts", {})
        if name not in kept:
            kept[name] = self.table.experts[name][self.option]
        return np.asarray(kept[name])

    def of_backbone(self, name: str) -> NDArray[np.int64]:
        """A column of the backbones for every design (n,), one of `BACKBONE`."""
        return np.asarray(np.ascontiguousarray(self.backbones[:, BACKBONE.index(name)])[self.backbone])

    def kv_elements(self, context: int) -> NDArray[np.float64]:
        """Numbers in the KV cache of one sequence of `context` tokens (n,)."""
        return np.asarray(self.table.kv_elements(context)[self.backbone])

    def chunks(self) -> Iterator[slice]:
        """Slices that together visit every design."""
        return (slice(start, start + CHUNK) for start in range(0, len(self), CHUNK))

    def take(self, index: Any) -> "Lattice":
        """The designs `index` (a mask, a slice or positions). The same slice is the same lattice, with all it keeps."""
        if not isinstance(index, slice):
            return self._taken(index)
        kept = vars(self).setdefault("_slices", {})
        key = (index.start, index.stop, index.step)
        if key not in kept:
            kept[key] = self._taken(index)
        return kept[key]

    def _taken(self, index: Any) -> "Lattice":
        some = self._with({name: getattr(self, name)[index] for name in COLUMNS})
        vars(some)["root"] = (self.root[0], self.positions(index))
        return some

    def positions(self, index: Any) -> NDArray[np.int64]:
        """Positions in the whole lattice of the designs `index`."""
        _, at = self.root
        if at is not None:
            return np.asarray(at[index])
        if isinstance(index, slice):
            return np.arange(len(self))[index]
        index = np.asarray(index)
        return np.flatnonzero(index) if index.dtype == bool else index

    def join(self, other: "Lattice") -> "Lattice":
        """These designs and the others, of the same lattice."""
        both = self._with({name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in COLUMNS})
        (whole, here), (same, there) = self.root, other.root
        if whole is same and here is not None and there is not None:
            vars(both)["root"] = (whole, np.concatenate([here, there]))
        return both

    def _with(self, columns: dict[str, Any]) -> "Lattice":
        return Lattice(space=self.space, table=self.table, **columns)

    def config(self, i: int) -> ModelConfig:
        """Design number `i` as a validated architecture."""
        row = dict(zip(BACKBONE, map(int, self.backbones[self.backbone[i]]), strict=True))
        row |= dict(zip(OPTION, map(int, self.options[self.option[i]]), strict=True))
        shape = self.take([i]).shape.take(0)
        row |= {"d_expert": int(shape.d_expert), "d_shared": int(shape.d_shared)}
        return config_of(self.space, self.table.model, self.patterns[row["pattern"]], row)


def enumerate_designs(space: Space) -> Lattice:
    """All designs of the space, dense ones first; read only, and counted once for equal spaces that are not too large.

    Raises InputError naming the axis that leaves none.
    """
    return _kept(space) if _most_designs(space) <= MOST_KEPT else _enumerate(space)


@lru_cache(maxsize=KEPT_LATTICES)
def _kept(space: Space) -> Lattice:
    return _enumerate(space)


@lru_cache(maxsize=KEPT_LATTICES)
def _most_designs(space: Space) -> int:
    """Combinations of backbones and experts, those that do not exist included."""
    options = int("dense" in space.kinds) + (count_moe_options(space) if "moe" in space.kinds else 0)
    return sum(len(band) for band in bands_of(space)) * options


def _enumerate(space: Space) -> Lattice:
    most = _most_designs(space)
    if most > MAX_DESIGNS:
        raise InputError(
            f"space: {most:,} designs, more than the {MAX_DESIGNS:,} that fit in memory; "
            "widen the steps of d_model and n_layers or shorten n_experts and top_k"
        )
    check_counts(space)
    backbones = backbones_of(space, bands_of(space))
    dense = np.zeros((int("dense" in space.kinds), len(OPTION)), np.int64)
    moe = moe_options(space) if "moe" in space.kinds else np.zeros((0, len(OPTION)), np.int64)
    table = ShapeTable(space, backbones, np.concatenate([dense, moe]))
    rows = max(1, CHUNK // max(1, len(moe)))
    blocks = [counted_block(table, slice(0, len(backbones)), slice(0, len(dense)))]
    blocks += [
        counted_block(table, slice(start, min(start + rows, len(backbones))), slice(len(dense), len(table.options)))
        for start in range(0, len(backbones), rows)
    ]
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in COLUMNS}
    if not len(columns["option"]):
        raise InputError(
            "space: no design fits together; min_d_expert, top_k and n_dense_layers exclude every combination"
        )
    for column in columns.values():
        column.flags.writeable = False
    return Lattice(space=space, table=table, **columns)

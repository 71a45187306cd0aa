"""Every design of a space as arrays: exact parameters and FLOPs of a million architectures in a second."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, Shape, count_flops, count_parameters
from moelab.architecture.memory import kv_elements_per_token
from moelab.errors import InputError
from moelab.planning.space import Space, backbones_of, bands_of, check_counts, count_moe_options, moe_options

MAX_DESIGNS = 20_000_000
CHUNK = 32_768
"""Designs processed together, so that their columns stay in a core's cache."""

_COLUMNS = (
    "backbone",
    "option",
    "params_total",
    "params_active",
    "params_non_embedding",
    "params_active_non_embedding",
    "flops_forward",
    "kv_elements",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """n designs: each one row of `backbones` (d_model, n_layers, head_dim, heads_per_kv, d_ff) with one of `options`
    (n_experts, top_k, n_shared_experts, n_dense_layers; zeros are dense), and its exact counts as columns (n,).

    FLOPs are per token at `space.seq_len`; KV elements per token.
    """

    space: Space
    backbones: NDArray[np.int64]
    options: NDArray[np.int64]
    backbone: NDArray[np.int32]
    option: NDArray[np.int32]
    params_total: NDArray[np.float64]
    params_active: NDArray[np.float64]
    params_non_embedding: NDArray[np.float64]
    params_active_non_embedding: NDArray[np.float64]
    flops_forward: NDArray[np.float64]
    kv_elements: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.params_total)

    @property
    def n_experts(self) -> NDArray[np.int64]:
        """Routed experts, 0 where dense (n,)."""
        return np.asarray(self.options[:, 0][self.option])

    @property
    def n_dense_layers(self) -> NDArray[np.int64]:
        """Leading dense layers of MoE designs (n,)."""
        return np.asarray(self.options[:, 3][self.option])

    @property
    def is_moe(self) -> NDArray[np.bool_]:
        """Which designs have experts (n,)."""
        return np.asarray((self.options[:, 0] > 0)[self.option])

    @property
    def flops_train(self) -> NDArray[np.float64]:
        """Training FLOPs per token, three times the forward (n,)."""
        return 3.0 * self.flops_forward

    @property
    def shape(self) -> Shape:
        """The designs as the counting formulas read them, columns of (n,)."""
        return _shape(self.space, self.backbones[self.backbone].T, self.options[self.option].T)

    def chunks(self) -> Iterator[slice]:
        """Slices that together visit every design."""
        return (slice(start, start + CHUNK) for start in range(0, len(self), CHUNK))

    def take(self, index: Any) -> "Lattice":
        """The designs `index` (a mask, a slice or positions)."""
        columns = {name: getattr(self, name)[index] for name in _COLUMNS}
        return Lattice(space=self.space, backbones=self.backbones, options=self.options, **columns)

    def join(self, other: "Lattice") -> "Lattice":
        """These designs and the others, of the same lattice."""
        columns = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in _COLUMNS}
        return Lattice(space=self.space, backbones=self.backbones, options=self.options, **columns)

    def config(self, i: int) -> ModelConfig:
        """Design number `i` as a validated architecture."""
        shape, space = self.take([i]).shape.take(0), self.space
        return shape.config(activation=space.activation, normalize_gates=space.normalize_gates)


def enumerate_designs(space: Space) -> Lattice:
    """All designs of the space, dense ones first. Raises InputError naming the axis that leaves none."""
    bands = bands_of(space)
    n_backbones = sum(len(depths) * len(rest) for _, depths, rest in bands)
    n_dense, n_moe = int("dense" in space.kinds), count_moe_options(space) if "moe" in space.kinds else 0
    if n_backbones * (n_dense + n_moe) > MAX_DESIGNS:
        raise InputError(
            f"space: {n_backbones * (n_dense + n_moe):,} designs, more than the {MAX_DESIGNS:,} that fit in memory; "
            "widen the steps of d_model and n_layers or shorten n_experts and top_k"
        )
    check_counts(space)
    backbones = backbones_of(space, bands)
    dense = np.zeros((n_dense, 4), np.int64)
    moe = moe_options(space) if "moe" in space.kinds else np.zeros((0, 4), np.int64)
    options = np.concatenate([dense, moe])
    rows = max(1, CHUNK // max(1, len(moe)))
    blocks = [_block(space, backbones, options, slice(0, len(backbones)), slice(0, len(dense)))]
    blocks += [
        _block(space, backbones, options, slice(start, start + rows), slice(len(dense), len(options)))
        for start in range(0, len(backbones), rows)
    ]
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in _COLUMNS}
    if not len(columns["option"]):
        raise InputError(
            "space: no design fits together; min_d_expert, top_k and n_dense_layers exclude every combination"
        )
    return Lattice(space=space, backbones=backbones, options=options, **columns)


def _shape(space: Space, backbone: Any, option: Any) -> Shape:
    """Designs from the five columns of backbones and the four of options, which broadcast."""
    d, depth, head, group, d_ff = backbone
    experts, top_k, shared, leading = option
    slots = np.maximum(top_k + shared, 1)
    step = space.d_expert_step
    d_expert = (experts > 0) * np.maximum(step, (2 * d_ff + slots * step) // (2 * slots * step) * step)
    return Shape.of_widths(
        d,
        depth,
        d_ff,
        vocab_size=space.vocab_size,
        head_dim=head,
        heads_per_kv=group,
        activation=space.activation,
        qk_norm=space.qk_norm,
        tie_embeddings=space.tie_embeddings,
        n_dense_layers=leading,
        n_experts=experts,
        top_k=top_k,
        d_expert=d_expert,
        n_shared_experts=shared,
        d_shared=shared * d_expert,
    )


def _block(
    space: Space, backbones: NDArray[np.int64], options: NDArray[np.int64], rows: slice, picks: slice
) -> dict[str, Any]:
    """Backbones (B, 1) against options (M,): the formulas broadcast, then the combinations that exist are kept."""
    shape = _shape(space, (column[:, None] for column in backbones[rows].T), options[picks].T)
    params = count_parameters(shape)
    columns = {
        "backbone": np.arange(rows.start, min(rows.stop, len(backbones)), dtype=np.int32)[:, None],
        "option": np.arange(picks.start, picks.stop, dtype=np.int32),
        "params_total": params.params_total * 1.0,
        "params_active": params.params_active * 1.0,
        "params_non_embedding": params.params_non_embedding * 1.0,
        "params_active_non_embedding": params.params_active_non_embedding * 1.0,
        "flops_forward": count_flops(shape, space.seq_len).forward * 1.0,
        "kv_elements": kv_elements_per_token(shape) * 1.0,
    }
    moe = np.asarray(shape.n_experts) > 0
    exists = ~moe | ((shape.d_expert >= space.min_d_expert) & (np.asarray(shape.n_moe_layers) > 0))
    exists = np.broadcast_to(exists, np.broadcast_shapes(*(np.shape(column) for column in columns.values())))
    if exists.all():
        return {name: np.broadcast_to(column, exists.shape).ravel() for name, column in columns.items()}
    return {name: np.broadcast_to(column, exists.shape)[exists] for name, column in columns.items()}

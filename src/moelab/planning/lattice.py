"""Every design of a space as arrays: exact parameters and FLOPs of a million architectures in a second."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, MoEConfig, Shape, count_flops, count_parameters
from moelab.architecture.memory import kv_elements_per_token
from moelab.errors import InputError
from moelab.planning.space import Space

MAX_DESIGNS = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """Designs as columns of equal length (n,). FLOPs are per token at `space.seq_len`; `shape` rebuilds the configs."""

    space: Space
    shape: Shape
    n_dense_layers: NDArray[np.int64]
    params_total: NDArray[np.float64]
    params_active: NDArray[np.float64]
    params_non_embedding: NDArray[np.float64]
    params_active_non_embedding: NDArray[np.float64]
    flops_forward: NDArray[np.float64]
    kv_elements: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.params_total)

    @property
    def is_moe(self) -> NDArray[np.bool_]:
        """Which designs have experts."""
        return np.asarray(self.shape.n_experts) > 0

    @property
    def flops_train(self) -> NDArray[np.float64]:
        """Training FLOPs per token, three times the forward."""
        return 3.0 * self.flops_forward

    def take(self, index: Any) -> "Lattice":
        """The designs `index` (a mask, a slice or positions)."""
        return Lattice(
            space=self.space,
            shape=self.shape.take(index),
            **{name: getattr(self, name)[index] for name in _COLUMNS},
        )

    def join(self, other: "Lattice") -> "Lattice":
        """These designs and the others, of the same space."""
        names = Shape.__dataclass_fields__
        mine, yours = ({name: getattr(part.shape, name) for name in names} for part in (self, other))
        both = {name: np.concatenate([value, yours[name]]) if np.ndim(value) else value for name, value in mine.items()}
        columns = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in _COLUMNS}
        return Lattice(space=self.space, shape=Shape(**both), **columns)

    def config(self, i: int) -> ModelConfig:
        """Design number `i` as a validated architecture."""
        space, s = self.space, self.shape.take(int(i))
        moe = None
        if s.n_experts:
            moe = MoEConfig(
                n_experts=int(s.n_experts),
                top_k=int(s.top_k),
                d_expert=int(s.d_expert),
                n_shared_experts=int(s.n_shared_experts),
                d_shared=int(s.d_shared),
                normalize_gates=(s.top_k > 1) if space.normalize_gates is None else space.normalize_gates,
            )
        leading = int(self.n_dense_layers[i])
        return ModelConfig(
            vocab_size=space.vocab_size,
            d_model=int(s.d_model),
            n_layers=int(s.n_layers),
            n_heads=int(s.n_heads),
            n_kv_heads=int(s.n_kv_heads),
            head_dim=int(s.head_dim),
            d_ff=int(s.d_ff) if moe is None or leading else 0,
            n_dense_layers=leading,
            moe=moe,
            activation=space.activation,
            qk_norm=space.qk_norm,
            tie_embeddings=space.tie_embeddings,
        )


_COLUMNS = (
    "n_dense_layers",
    "params_total",
    "params_active",
    "params_non_embedding",
    "params_active_non_embedding",
    "flops_forward",
    "kv_elements",
)


def enumerate_designs(space: Space) -> Lattice:
    """All designs of the space, dense ones first. Raises InputError naming the axis that leaves none."""
    backbones = _backbones(space)
    blocks = []
    if "dense" in space.kinds:
        blocks.append(_block(space, backbones, np.zeros((1, 4), np.int64)))
    if "moe" in space.kinds:
        options = _moe_options(space)
        if len(backbones) * len(options) > MAX_DESIGNS:
            raise InputError(
                f"space: {len(backbones) * len(options):,} designs, more than the {MAX_DESIGNS:,} that fit in memory; "
                "widen the steps of d_model and n_layers or shorten n_experts and top_k"
            )
        blocks.append(_block(space, backbones, options))
    lattice = _join(space, blocks)
    if not len(lattice):
        raise InputError(
            "space: no design fits together; min_d_expert, top_k and n_dense_layers exclude every combination"
        )
    return lattice


def _backbones(space: Space) -> NDArray[np.int64]:
    """Rows of (d_model, n_layers, head_dim, heads_per_kv, d_ff)."""
    low, high = space.aspect
    rows = [
        (d, depth, head, math.gcd(d // head, group), _rounded(ratio * d, space.d_ff_step))
        for d in space.d_model
        for depth in space.n_layers
        if low <= d / depth <= high
        for head in space.head_dim
        if d % head == 0
        for group in space.heads_per_kv
        for ratio in space.ffn_ratio
    ]
    if not rows:
        raise InputError(
            f"space: no backbone has d_model / n_layers within {list(space.aspect)} and d_model a multiple of head_dim "
            f"{list(space.head_dim)}"
        )
    return np.array(list(dict.fromkeys(rows)), np.int64)


def _rounded(width: float, step: int) -> int:
    return max(step, math.floor(width / step + 0.5) * step)


def _moe_options(space: Space) -> NDArray[np.int64]:
    """Rows of (n_experts, top_k, n_shared_experts, n_dense_layers)."""
    rows = [
        (experts, top_k, shared, leading)
        for experts in space.n_experts
        for top_k in space.top_k
        if top_k < experts
        for shared in space.n_shared_experts
        for leading in space.n_dense_layers
    ]
    if not rows:
        raise InputError("space: no n_experts is larger than the smallest top_k; add experts or kinds: [dense]")
    return np.array(rows, np.int64)


def _block(space: Space, backbones: NDArray[np.int64], options: NDArray[np.int64]) -> dict[str, Any]:
    """Backbones (B, 1) against options (M,): the formulas broadcast, then the combinations that exist are kept."""
    d, depth, head, group, d_ff = (column[:, None] for column in backbones.T)
    experts, top_k, shared, leading = options.T
    moe = experts > 0
    slots = np.maximum(top_k + shared, 1)
    step = space.d_expert_step
    d_expert = moe * np.maximum(step, (2 * d_ff + slots * step) // (2 * slots * step) * step)
    exists = ~moe | ((d_expert >= space.min_d_expert) & (leading < depth))
    shape = Shape(
        vocab_size=space.vocab_size,
        d_model=d,
        n_layers=depth,
        n_heads=d // head,
        n_kv_heads=d // head // group,
        head_dim=head,
        d_ff=d_ff,
        n_moe_layers=moe * (depth - leading),
        n_experts=experts,
        top_k=top_k,
        d_expert=d_expert,
        n_shared_experts=shared,
        d_shared=shared * d_expert,
        ffn_matrices=3 if space.activation == "swiglu" else 2,
        tied=int(space.tie_embeddings),
        qk_norm_head=int(space.qk_norm == "head"),
        qk_norm_full=int(space.qk_norm == "full"),
    )
    params = count_parameters(shape)
    columns = {
        "n_dense_layers": leading,
        "params_total": params.params_total,
        "params_active": params.params_active,
        "params_non_embedding": params.params_non_embedding,
        "params_active_non_embedding": params.params_active_non_embedding,
        "flops_forward": count_flops(shape, space.seq_len).forward,
        "kv_elements": kv_elements_per_token(shape),
    }
    flat: dict[str, Any] = {name: getattr(shape, name) for name in Shape.__dataclass_fields__} | columns
    size = exists.shape
    return {
        name: value if name not in columns and np.ndim(value) == 0 else np.broadcast_to(value, size)[exists]
        for name, value in flat.items()
    }


def _join(space: Space, blocks: list[dict[str, Any]]) -> Lattice:
    first = blocks[0]
    joined = {
        name: np.concatenate([block[name] for block in blocks]) if np.ndim(value) else value
        for name, value in first.items()
    }
    counts: dict[str, Any] = {
        name: joined[name] if name == "n_dense_layers" else joined[name].astype(np.float64) for name in _COLUMNS
    }
    shape = Shape(**{name: joined[name] for name in Shape.__dataclass_fields__})
    return Lattice(space=space, shape=shape, **counts)

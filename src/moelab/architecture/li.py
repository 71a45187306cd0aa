"""Li et al.'s calculator (arXiv 2506.12119): sizes from a few ratios; an architecture for a size, a rate and a compute.

alpha = d_ff / d, beta = (d_shared + K d_expert) / d, mu = (d_shared + E d_expert) / d, zeta = d / n_layers, with d =
d_model. N = (4 + 3 mu) d^2 L_moe + (4 + 3 alpha) d^2 L_dense counts matrices without vocabulary, norms and routers, for
SwiGLU and full multi-head attention; N_a has beta for mu; training FLOPs a token are
M = 3 (2 N_a + 4 d seq n_layers) and C = M D. Our exact counts add norms, routers and the head.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture.config import ModelConfig
from moelab.architecture.shape import Shape
from moelab.errors import InputError
from moelab.quantities import check_at_most, format_number

Array = NDArray[Any]
MAX_DEPTH = 160
MOST_PARAMS = 1e18
"""More parameters would overflow a whole number of 64 bits."""

ALPHA, ZETA, MU = 8 / 3, 88.0, 22.0
"""The usual SwiGLU width, and the best ratios in that paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiSize:
    """The paper's quantities for one architecture: ratios, N, N_a, r_a and M (at `seq_len`)."""

    alpha: float
    beta: float
    mu: float
    zeta: float
    params: int
    params_active: int
    activation_rate: float
    flops_per_token: int

    def tokens(self, flops: float) -> float:
        """D = C / M."""
        return flops / self.flops_per_token


def li_size(model: ModelConfig, seq_len: int) -> LiSize:
    """The paper's counts of an architecture. Raises InputError where its formulas do not apply."""
    if model.activation != "swiglu" or model.mla is not None or model.n_kv_heads != model.n_heads:
        raise InputError("li: the formulas hold for SwiGLU and full multi-head attention only")
    if model.n_heads * model.head_dim != model.d_model:
        raise InputError("li: the formulas hold where n_heads x head_dim = d_model")
    params, params_active, beta, mu = _counts(Shape.of(model))
    return LiSize(
        alpha=model.d_ff / model.d_model,
        beta=beta,
        mu=mu,
        zeta=model.d_model / model.n_layers,
        params=params,
        params_active=params_active,
        activation_rate=params_active / params,
        flops_per_token=3 * (2 * params_active + 4 * model.d_model * seq_len * model.n_layers),
    )


def _counts(shape: Shape) -> tuple[Any, Any, Any, Any]:
    """N, N_a, beta and mu of one shape, or of many as arrays."""
    d, layers, moe_layers = shape.d_model, shape.n_layers, shape.n_moe_layers
    active = shape.d_shared + shape.top_k * shape.d_expert
    total = shape.d_shared + shape.n_experts * shape.d_expert
    common = 4 * d * d * layers + 3 * d * shape.d_ff * (layers - moe_layers)
    params, params_active = (common + 3 * d * width * moe_layers for width in (total, active))
    return params, params_active, active / d, total / d


@dataclass(frozen=True, slots=True, kw_only=True)
class LiSolution:
    """An architecture for given N, r_a and C, its size by the paper's formulas, and D = C / M."""

    config: ModelConfig
    size: LiSize
    tokens: float


def li_solve(
    params: float,
    activation_rate: float,
    flops: float,
    *,
    seq_len: int = 2048,
    vocab_size: int = 65536,
    top_k: int = 4,
    n_dense_layers: int = 1,
    alpha: float = ALPHA,
    zeta: float = ZETA,
    head_dim: int = 128,
    d_expert_step: int = 8,
) -> LiSolution:
    """Given N (without vocabulary), r_a and C, the architecture and D by the paper's rules.

    For every depth, the width follows from zeta (in multiples of `head_dim`). The active part then fixes K d_expert,
    with d_shared = K d_expert and leading dense layers ("1dense+SE"), and the number of experts follows from N. The
    result is the nearest to N and r_a, with zeta and mu (22) near theirs. Raises InputError where none is within 5 %.
    """
    if not 0 < activation_rate < 1:
        raise InputError(f"activation_rate: must lie between 0 and 1, got {activation_rate}")
    check_at_most(params, MOST_PARAMS, "params")
    if flops <= 0 or top_k < 1:
        raise InputError("flops, top_k: must be positive")
    depth = np.arange(n_dense_layers + 1, MAX_DEPTH + 1)[:, None]
    heads = np.maximum(np.round(zeta * depth / head_dim).astype(np.int64) + np.arange(-1, 2), 1)
    shape, exists = _shapes(
        depth,
        heads * head_dim,
        params,
        activation_rate,
        top_k=top_k,
        n_dense=n_dense_layers,
        alpha=alpha,
        step=d_expert_step,
        head_dim=head_dim,
        vocab_size=vocab_size,
    )
    if not exists.any():
        raise InputError(
            f"li: no architecture has {format_number(params, 4)} parameters "
            f"at an activation rate of {activation_rate:g}"
        )
    total, active, _, mu = _counts(shape)
    with np.errstate(all="ignore"):
        off = np.abs(np.log(total / params)) + np.abs(np.log(active / total / activation_rate))
        off += 0.1 * np.abs(np.log(shape.d_model / depth / zeta)) + 0.1 * np.abs(np.log(mu / MU))
    best = np.unravel_index(np.argmin(np.where(exists, off, np.inf)), off.shape)
    config = shape.take(best).config(normalize_gates=False)
    size = li_size(config, seq_len)
    if abs(size.params / params - 1) > 0.05 or abs(size.activation_rate / activation_rate - 1) > 0.05:
        raise InputError(
            f"li: the nearest architecture has {format_number(size.params, 4)} parameters "
            f"at a rate of {size.activation_rate:.3f}; change top_k, alpha or zeta"
        )
    return LiSolution(config=config, size=size, tokens=size.tokens(flops))


def _shapes(
    depth: Array,
    d: Array,
    params: float,
    rate: float,
    *,
    top_k: int,
    n_dense: int,
    alpha: float,
    step: int,
    head_dim: int,
    vocab_size: int,
) -> tuple[Shape, Array]:
    """Shapes of these depths (L, 1) and widths (L, 3) with about these parameters, and which have enough experts."""
    depth = np.broadcast_to(depth, d.shape)
    d_ff = np.round(alpha * d / step).astype(np.int64) * step
    common = 4 * d * d * depth + 3 * d * d_ff * n_dense
    per_width = 3 * d * (depth - n_dense)
    active, total = (rate * params - common) / per_width, (params - common) / per_width
    d_expert = np.floor(active / (2 * top_k) / step + 0.5).astype(np.int64) * step
    exists = d_expert >= step
    n_experts = np.round((total - top_k * d_expert) / np.where(exists, d_expert, 1)).astype(np.int64)
    exists &= n_experts > top_k
    return Shape.of_widths(
        d,
        depth,
        d_ff,
        vocab_size=vocab_size,
        head_dim=head_dim,
        n_dense_layers=n_dense,
        n_experts=np.where(exists, n_experts, 0),
        top_k=top_k,
        d_expert=d_expert,
        n_shared_experts=1,
        d_shared=top_k * d_expert,
    ), exists

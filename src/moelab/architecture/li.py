"""Li et al.'s calculator (arXiv 2506.12119): sizes from a few ratios; an architecture for a size, a rate and a compute.

alpha = d_ff / d, beta = (d_shared + K d_expert) / d, mu = (d_shared + E d_expert) / d, zeta = d / n_layers, with d =
d_model. N = (4 + 3 mu) d^2 L_moe + (4 + 3 alpha) d^2 L_dense counts matrices without vocabulary, norms and routers, for
SwiGLU and full multi-head attention; N_a has beta for mu; training FLOPs a token are
M = 3 (2 N_a + 4 d seq n_layers) and C = M D. Our exact counts add norms, routers and the head.
"""

import math
from dataclasses import dataclass

from moelab.architecture.config import ModelConfig
from moelab.architecture.experts import MoEConfig
from moelab.errors import InputError

ALPHA, ZETA, MU = 8 / 3, 88.0, 22.0
"""A usual SwiGLU width, and the ratios that won there."""


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
    d, moe, dense_layers = model.d_model, model.moe, model.n_layers - model.n_moe_layers
    active = moe.d_shared + moe.top_k * moe.d_expert if moe else 0
    total = moe.d_shared + moe.n_experts * moe.d_expert if moe else 0
    common = 4 * d * d * model.n_layers + 3 * d * model.d_ff * dense_layers
    params = common + 3 * d * total * model.n_moe_layers
    params_active = common + 3 * d * active * model.n_moe_layers
    return LiSize(
        alpha=model.d_ff / d,
        beta=active / d,
        mu=total / d,
        zeta=d / model.n_layers,
        params=params,
        params_active=params_active,
        activation_rate=params_active / params,
        flops_per_token=3 * (2 * params_active + 4 * d * seq_len * model.n_layers),
    )


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

    For every depth, the width follows from zeta (in multiples of `head_dim`); the active part then fixes K d_expert,
    with d_shared = K d_expert and leading dense layers ("1dense+SE"), and experts fill up N. Of all depths the nearest
    to N and r_a with zeta and mu (22) near theirs is taken. Raises InputError where none comes within 5 %.
    """
    if not 0 < activation_rate < 1:
        raise InputError(f"activation_rate: must lie between 0 and 1, got {activation_rate}")
    if params <= 0 or flops <= 0 or top_k < 1:
        raise InputError("params, flops, top_k: must be positive")
    rules = _Rules(params, activation_rate, top_k, n_dense_layers, alpha, head_dim, d_expert_step, vocab_size)
    best: tuple[float, ModelConfig] | None = None
    for depth in range(n_dense_layers + 1, 161):
        for heads in _heads_near(zeta * depth, head_dim):
            config = rules.build(depth, heads * head_dim)
            if config is None:
                continue
            size = li_size(config, seq_len)
            off = abs(math.log(size.params / params)) + abs(math.log(size.activation_rate / activation_rate))
            off += 0.1 * abs(math.log(size.zeta / zeta)) + 0.1 * abs(math.log(size.mu / MU))
            if best is None or off < best[0]:
                best = off, config
    if best is None:
        raise InputError(
            f"li: no architecture has {params:.4g} parameters at an activation rate of {activation_rate:g}"
        )
    size = li_size(best[1], seq_len)
    if abs(size.params / params - 1) > 0.05 or abs(size.activation_rate / activation_rate - 1) > 0.05:
        raise InputError(
            f"li: the nearest architecture has {size.params:.4g} parameters at a rate of {size.activation_rate:.3f}; "
            "change top_k, alpha or zeta"
        )
    return LiSolution(config=best[1], size=size, tokens=size.tokens(flops))


def _heads_near(width: float, head_dim: int) -> range:
    near = max(1, round(width / head_dim))
    return range(max(1, near - 1), near + 2)


@dataclass(frozen=True)
class _Rules:
    """What every depth and width has in common."""

    params: float
    rate: float
    top_k: int
    leading: int
    alpha: float
    head_dim: int
    step: int
    vocab_size: int

    def build(self, depth: int, d: int) -> ModelConfig | None:
        """The architecture of this depth and width with about these parameters; None where its experts would vanish."""
        d_ff = round(self.alpha * d / self.step) * self.step
        common = 4 * d * d * depth + 3 * d * d_ff * self.leading
        per_width = 3 * d * (depth - self.leading)
        active, total = (self.rate * self.params - common) / per_width, (self.params - common) / per_width
        d_expert = int(active / (2 * self.top_k) / self.step + 0.5) * self.step
        if d_expert < self.step:
            return None
        shared = self.top_k * d_expert
        experts = round((total - shared) / d_expert)
        if experts <= self.top_k:
            return None
        heads = d // self.head_dim
        return ModelConfig(
            vocab_size=self.vocab_size,
            d_model=d,
            n_layers=depth,
            n_heads=heads,
            n_kv_heads=heads,
            head_dim=self.head_dim,
            d_ff=d_ff if self.leading else 0,
            n_dense_layers=self.leading,
            moe=MoEConfig(
                n_experts=experts,
                top_k=self.top_k,
                d_expert=d_expert,
                n_shared_experts=1,
                d_shared=shared,
                normalize_gates=False,
            ),
        )

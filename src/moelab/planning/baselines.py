"""The dense baseline of a MoE: equal parameters and FLOPs, with strict or loose reuse of data.

Li et al. (arXiv 2506.12119): a MoE has fewer active parameters than the dense model of equal total parameters N. So at
equal compute C it processes more tokens. Under strict reuse it trains on the dense model's tokens only, under loose
reuse for two epochs.
"""

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from moelab.architecture import ModelConfig, Shape, count_flops, count_parameters
from moelab.errors import InputError
from moelab.planning.attention_axis import MOST_KV_HEADS
from moelab.planning.candidate import Candidate
from moelab.quantities import format_flops

Reuse = Literal["strict", "loose"]
Part = tuple[ModelConfig, int, int]
"""A model, the tokens it processes, and how many of them are distinct."""

SIZES = ("d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff")
MOE_OPTIONS = ("moe", "n_dense_layers", "moe_every", "mla")
"""Options of a model that its dense baseline does not have."""


def dense_baseline(model: ModelConfig, params_total: int | None = None) -> ModelConfig:
    """The dense model with the same total parameters (or `params_total`), vocabulary, head size and kind of layers.

    It has the model's query heads per key-value head; beside latent attention, the `MOST_KV_HEADS` key-value heads of
    released dense models. Depth, width and FFN are scaled together, near the model's own width over depth and an FFN
    of about three widths. The FFN is then set to match the total, to 0.5 % where its step allows. Raises InputError
    where no model fits.
    """
    target = params_total or count_parameters(model).params_total
    head = model.head_dim
    widths = np.arange(1, max(8, 6 * model.d_model // head)) * head
    depths = np.arange(1, 4 * model.n_layers + 9)
    d, depth = (axis.ravel() for axis in np.meshgrid(widths, depths))
    step = 64 if model.d_model >= 512 else 8
    base = _shape(model, d, depth, np.zeros_like(d))
    room = target - np.asarray(count_parameters(base).params_total)
    d_ff = np.maximum(np.round(room / (base.ffn_matrices * d * depth * step)), 0).astype(np.int64) * step
    exists = (d_ff >= 1.5 * d) & (d_ff <= 6 * d)
    if not exists.any():
        raise InputError(f"dense baseline: no dense model has about {target:,} parameters and a shape near this one's")
    whole = exists & (d // head % _heads_step(model) == 0)
    exists = whole if whole.any() else exists
    shape = replace(base, d_ff=d_ff)
    total = np.asarray(count_parameters(shape).params_total)
    off = np.abs(total / target - 1)
    # An aspect or FFN ratio off by a factor e weighs as much as one per cent of the parameters.
    aspect = np.abs(np.log(d / depth / (model.d_model / model.n_layers)))
    ratio = np.abs(np.log(np.maximum(d_ff, 1) / d / 3.0))
    best = int(np.argmin(np.where(exists, off + 0.01 * (aspect + ratio), np.inf)))
    chosen = shape.take(best)
    sizes = {name: int(getattr(chosen, name)) for name in SIZES}
    if model.sliding_n_kv_heads:
        sizes["sliding_n_kv_heads"] = _kv_heads(sizes["n_heads"], model.n_heads // model.sliding_n_kv_heads)
    options = {name: value for name, value in model.to_dict().items() if name not in MOE_OPTIONS}
    return ModelConfig.parse(options | sizes)


def _heads_step(model: ModelConfig) -> int:
    """What the baseline's query heads are a multiple of, so that its key-value heads are the ones wanted."""
    if model.mla is not None:
        return MOST_KV_HEADS
    groups = {model.n_heads // kv for kv in (model.n_kv_heads, model.sliding_n_kv_heads) if kv}
    return math.lcm(*groups)


def _kv_heads(heads: int, group: int) -> int:
    """The divisor of the query heads whose ratio to them is nearest to `group`."""
    divisors = [kv for kv in range(1, heads + 1) if heads % kv == 0]
    return min(divisors, key=lambda kv: abs(math.log(heads / kv / group)))


def _shape(model: ModelConfig, d: np.ndarray, depth: np.ndarray, d_ff: np.ndarray) -> Shape:
    """Dense shapes of these widths with the options of the model's backbone."""
    heads, own = d // model.head_dim, model.n_heads // model.n_kv_heads
    groups = {n: max(1, n // MOST_KV_HEADS) if model.mla is not None else own for n in np.unique(heads).tolist()}
    per_kv = {n: n // _kv_heads(n, group) for n, group in groups.items()}
    return Shape.of_widths(
        d,
        depth,
        d_ff,
        vocab_size=model.vocab_size,
        head_dim=model.head_dim,
        heads_per_kv=np.vectorize(per_kv.__getitem__)(heads),
        activation=model.activation,
        qk_norm=model.qk_norm,
        tie_embeddings=model.tie_embeddings,
        attention_bias=model.attention_bias,
    )


def equal_pair(
    moe: ModelConfig,
    flops: float,
    seq_len: int = 4096,
    reuse: Reuse = "strict",
    dense: ModelConfig | None = None,
    *,
    causal: bool = False,
) -> tuple[Part, Part]:
    """(dense, MoE) of equal total parameters, each trained with `flops`; `reuse` sets the MoE's distinct tokens.

    FLOPs count attention scores as the full square, or with `causal` its causal half.

    Raises InputError where `flops` do not train both on one sequence.
    """
    baseline = dense_baseline(moe) if dense is None else dense
    dense_tokens = round(flops / count_flops(baseline, seq_len, causal=causal).train)
    moe_tokens = round(flops / count_flops(moe, seq_len, causal=causal).train)
    if min(dense_tokens, moe_tokens) < seq_len:
        raise InputError(f"flops: {format_flops(flops)} do not train these models on a sequence of {seq_len:,} tokens")
    unique = dense_tokens if reuse == "strict" else max(1, moe_tokens // 2)
    return (baseline, dense_tokens, dense_tokens), (moe, moe_tokens, min(unique, moe_tokens))


def strict_pair(candidate: Candidate, seq_len: int) -> tuple[Part, Part]:
    """(dense baseline, MoE) of a planned MoE, with equal parameters, FLOPs and unique tokens."""
    return equal_pair(candidate.config, candidate.train_flops, seq_len)

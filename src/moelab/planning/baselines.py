"""The dense models a MoE has to beat: of equal parameters and FLOPs, with strict or loose reuse of data.

Li et al. (arXiv 2506.12119): at equal total parameters N and compute C a MoE, having fewer active parameters, processes
more tokens than its dense rival. Strict reuse gives it only the tokens the dense model saw, loose reuse two epochs.
"""

from typing import Literal

import numpy as np

from moelab.architecture import ModelConfig, Shape, count_flops, count_parameters
from moelab.errors import InputError
from moelab.planning.candidate import Candidate

Reuse = Literal["strict", "loose"]
Part = tuple[ModelConfig, int, int]
"""A model, the tokens it processes, and how many of them are distinct."""


def dense_baseline(model: ModelConfig, params_total: int | None = None) -> ModelConfig:
    """The dense model with the same total parameters (or `params_total`), vocabulary, head size and kind of layers.

    Depth, width and FFN are scaled together: near the model's own width over depth and an FFN of about three widths,
    then the FFN is set to match the total, to .5 % where its step allows. Raises InputError where nothing fits.
    """
    target = params_total or count_parameters(model).params_total
    head, group = model.head_dim, model.n_heads // model.n_kv_heads
    widths = np.arange(1, max(8, 6 * model.d_model // head)) * head
    depths = np.arange(1, 4 * model.n_layers + 9)
    d, depth = (axis.ravel() for axis in np.meshgrid(widths, depths))
    step = 64 if model.d_model >= 512 else 8
    base = _shape(model, d, depth, np.zeros_like(d), group)
    matrices = 3 if model.activation == "swiglu" else 2
    room = target - np.asarray(count_parameters(base).params_total)
    d_ff = np.maximum(np.round(room / (matrices * d * depth * step)), 0).astype(np.int64) * step
    exists = (d_ff >= 1.5 * d) & (d_ff <= 6 * d)
    if not exists.any():
        raise InputError(f"dense rival: no dense model of {target:,} parameters near the shape of this one")
    total = np.asarray(count_parameters(_shape(model, d, depth, d_ff, group)).params_total)
    off = np.abs(total / target - 1)
    # An aspect or FFN ratio off by a factor e costs as much as one per cent of the parameters.
    aspect = np.abs(np.log(d / depth / (model.d_model / model.n_layers)))
    ratio = np.abs(np.log(np.maximum(d_ff, 1) / d / 3.0))
    best = int(np.argmin(np.where(exists, off + 0.01 * (aspect + ratio), np.inf)))
    heads = int(d[best]) // head
    kv_heads = heads // int(np.gcd(heads, group))
    plain = model.to_dict()
    for name in ("moe", "n_dense_layers", "moe_every", "mla"):
        plain.pop(name, None)
    return ModelConfig.parse(
        plain
        | {
            "d_model": int(d[best]),
            "n_layers": int(depth[best]),
            "n_heads": heads,
            "n_kv_heads": kv_heads,
            "head_dim": head,
            "d_ff": int(d_ff[best]),
        }
    )


def _shape(model: ModelConfig, d: np.ndarray, depth: np.ndarray, d_ff: np.ndarray, group: int) -> Shape:
    heads = d // model.head_dim
    return Shape(
        vocab_size=model.vocab_size,
        d_model=d,
        n_layers=depth,
        n_heads=heads,
        n_kv_heads=heads // np.gcd(heads, group),
        head_dim=model.head_dim,
        d_ff=d_ff,
        ffn_matrices=3 if model.activation == "swiglu" else 2,
        tied=int(model.tie_embeddings),
        qk_norm_head=int(model.qk_norm == "head"),
        qk_norm_full=int(model.qk_norm == "full"),
        attention_bias=int(model.attention_bias),
    )


def equal_pair(
    moe: ModelConfig, flops: float, seq_len: int = 4096, reuse: Reuse = "strict", dense: ModelConfig | None = None
) -> tuple[Part, Part]:
    """(dense, MoE) of equal total parameters, each trained with `flops`; the MoE reuses data as `reuse` says."""
    rival = dense_baseline(moe) if dense is None else dense
    dense_tokens = round(flops / count_flops(rival, seq_len).train)
    moe_tokens = round(flops / count_flops(moe, seq_len).train)
    if min(dense_tokens, moe_tokens) < seq_len:
        raise InputError(f"flops: {flops:.3g} do not train these models on one sequence of {seq_len:,} tokens")
    unique = dense_tokens if reuse == "strict" else max(1, moe_tokens // 2)
    return (rival, dense_tokens, dense_tokens), (moe, moe_tokens, min(unique, moe_tokens))


def strict_pair(candidate: Candidate, seq_len: int) -> tuple[Part, Part]:
    """The strict rival of a planned MoE, and that MoE: equal parameters, FLOPs and unique tokens."""
    return equal_pair(candidate.config, candidate.train_flops, seq_len)

"""Which designs of a space are like a given model: its experts, layers, attention and heads, and about its sizes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, count_parameters
from moelab.planning.lattice import Lattice, enumerate_designs
from moelab.planning.space import Space

LAYERS, WIDTHS, COUNTS = 0.05, 0.10, 0.02
"""Relative differences that a design like a model may have in layers, in widths, and in total and active parameters."""


def designs_like(lattice: Lattice, model: ModelConfig) -> NDArray[Any]:
    """Which designs (n,) have the experts, leading dense layers, kind of attention and heads of a MoE model, and its
    sizes within `LAYERS`, `WIDTHS` and `COUNTS`."""
    shape, params, moe = lattice.shape, count_parameters(model), model.moe
    assert moe is not None
    kind = "latent" if model.mla else "window" if model.sliding_window else "full"
    layers = model.sliding_pattern or ("full",)
    kinds = [p.kind == kind and (p.layers, p.window) == (layers, model.sliding_window or 0) for p in lattice.patterns]
    same = np.array(kinds)[lattice.pattern]
    for name in ("n_experts", "top_k", "n_shared_experts"):
        same &= lattice.of_option(name) == getattr(moe, name)
    same &= lattice.n_dense_layers == model.n_dense_layers
    same &= lattice.of_option("moe_every") == model.moe_every
    same &= (lattice.of_backbone("n_heads") == model.n_heads) & (lattice.of_backbone("head_dim") == model.head_dim)
    near = (
        (lattice.of_backbone("n_layers"), model.n_layers, LAYERS),
        (lattice.of_backbone("d_model"), model.d_model, WIDTHS),
        (shape.d_expert, moe.d_expert, WIDTHS),
        (lattice.params_total, params.params_total, COUNTS),
        (lattice.params_active, params.params_active, COUNTS),
    )
    for column, value, most in near:
        same &= np.abs(np.asarray(column) / value - 1) <= most
    return np.asarray(same)


def in_default_space(model: ModelConfig) -> bool:
    """Whether the planner's default space, at the model's vocabulary and with its kind of attention opened, holds a
    design like this MoE model."""
    kind = "latent" if model.mla else "window" if model.sliding_window else "full"
    moe, space = model.moe, Space(attention=[kind], vocab_size=model.vocab_size, tie_embeddings=model.tie_embeddings)
    if moe is None or moe.n_experts not in space.n_experts or moe.top_k not in space.top_k:
        return False
    part = space.replace(n_experts=[moe.n_experts], top_k=[moe.top_k], kinds=["moe"])
    return bool(designs_like(enumerate_designs(part), model).any())

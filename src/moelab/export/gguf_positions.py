"""Rotary positions in a GGUF file: what llama.cpp computes of scaled frequencies, and how a file states it.

llama.cpp multiplies YaRN's tables by 0.1 ln(factor) + 1 and by `rope.scaling.attn_factor`. Its graph of latent
attention multiplies the scores by the square of the same with `rope.scaling.yarn_log_multiplier`, and the tables by
one. Read in its src/llama-context.cpp and src/models/deepseek2.cpp.
"""

import math
from typing import Any

import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.model.rotary import frequencies, rotated_dim, table_factor, yarn_mscale

FREQUENCIES = "rope_freqs.weight"
"""The tensor that divides each frequency, in graphs that read it. No weight of the model."""


def unwritten_scaling(config: ModelConfig, graph: str) -> str | None:
    """Why the scaled positions of an architecture cannot be written for a graph, as `field: reason`."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind == "linear":
        return None
    if scaling.kind == "llama3":
        known = graph == "llama"
        return None if known else "rope_scaling: its graph has no frequencies of kind llama3"
    rounded = scaling.replace(truncate=None)
    dim = rotated_dim(config)
    if not torch.equal(frequencies(dim, config.rope_theta, scaling), frequencies(dim, config.rope_theta, rounded)):
        return "rope_scaling: it rounds the bounds of YaRN's ramp to whole pairs, where `truncate` is false"
    if config.mla is not None and not (scaling.mscale_all_dim and math.isclose(table_factor(scaling), 1)):
        return "rope_scaling: its latent attention has YaRN only with equal `mscale` and `mscale_all_dim`"
    return None


def add_positions(writer: Any, config: ModelConfig) -> None:
    """The metadata of rotary positions: how many dimensions turn, the base, and linear or YaRN's scaling."""
    from gguf import RopeScalingType

    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(rotated_dim(config))
    scaling = config.rope_scaling
    if scaling is None or scaling.kind == "llama3":
        return
    writer.add_rope_scaling_type(RopeScalingType.LINEAR if scaling.kind == "linear" else RopeScalingType.YARN)
    writer.add_rope_scaling_factor(scaling.factor)
    if scaling.kind == "linear":
        return
    writer.add_rope_scaling_orig_ctx_len(scaling.original_context)
    writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast or 32.0)
    writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow or 1.0)
    if config.mla is not None:
        writer.add_rope_scaling_yarn_log_mul(0.1 * (scaling.mscale_all_dim or 0.0))
    else:
        writer.add_rope_scaling_attn_factors(table_factor(scaling) / yarn_mscale(scaling.factor, 1.0))


def frequency_divisors(config: ModelConfig) -> dict[str, Tensor]:
    """The tensor (R/2,) of Llama 3's scaling, by its name; empty for every other."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "llama3":
        return {}
    dim = rotated_dim(config)
    scaled = frequencies(dim, config.rope_theta, scaling)
    return {FREQUENCIES: (frequencies(dim, config.rope_theta) / scaled).float()}

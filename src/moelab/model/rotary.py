"""Rotary positions (arXiv 2104.09864): frequencies and how they stretch, tables of cosines and sines, the rotation.

B sequences, T tokens, H heads of size A, of which R dimensions are rotated.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.architecture.attention import RopeScaling
from moelab.model.kernels import ops
from moelab.model.precision import full_precision

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines of the positions of one forward pass, (T, 1, R/2) each, fp32."""


def layer_rotary(config: ModelConfig, layer: int, start: int, length: int, device: torch.device) -> Rotary | None:
    """The tables of one layer for positions start .. start + length; None for a layer without positions.

    Layers with a rotary base of their own (`sliding_rope_theta`) are not scaled.
    """
    if not config.has_positions(layer):
        return None
    theta, scaling = config.rope_theta, config.rope_scaling
    if config.sliding_rope_theta is not None and config.layer_kind(layer) != "full":
        theta, scaling = config.sliding_rope_theta, None
    return rotary_table(start, length, rotated_dim(config), theta, device, scaling)


def rotated_dim(config: ModelConfig) -> int:
    """How many dimensions of a head turn with the position."""
    return config.mla.qk_rope_head_dim if config.mla is not None else config.rotary_dim or config.head_dim


@lru_cache(maxsize=64)
def rotary_table(
    start: int, length: int, dim: int, theta: float, device: torch.device, scaling: RopeScaling | None = None
) -> Rotary:
    """Cosines and sines (T, 1, R/2) of positions start .. start + length, fp32, times the scaling's table factor."""
    positions = torch.arange(start, start + length, dtype=torch.float64)
    angles = torch.outer(positions, frequencies(dim, theta, scaling))[:, None]
    cos, sin = angles.cos(), angles.sin()
    if scaling is not None and scaling.kind == "yarn":
        factor = table_factor(scaling)
        cos, sin = cos * factor, sin * factor
    return cos.float().to(device), sin.float().to(device)


@lru_cache(maxsize=16)
def frequencies(dim: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Radians a token of each pair (R/2,), fp64."""
    plain = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    return _llama3(plain, scaling) if scaling.kind == "llama3" else _yarn(plain, dim, theta, scaling)


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1: wavelengths beyond context / low are divided, those below context / high kept, blended between."""
    low, high, context = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_context
    assert low is not None
    assert high is not None
    assert context is not None
    turns = context * plain / (2 * math.pi)
    kept = ((turns - low) / max(high - low, 1e-9)).clamp(0, 1)  # Llama 4's two are equal: a step
    return plain * (kept + (1 - kept) / scaling.factor)


def _yarn(plain: Tensor, dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """YaRN (arXiv 2309.00071, section 3.2): pairs that turn beta_fast times over the context are kept, those that turn
    beta_slow times are divided, a ramp over the pairs' numbers between."""
    context = scaling.original_context
    assert context is not None

    def pair(turns: float) -> float:
        return dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(scaling.beta_fast or 32.0), pair(scaling.beta_slow or 1.0)
    if scaling.truncate is not False:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    divided = ((torch.arange(dim // 2, dtype=torch.float64) - low) / max(high - low, 0.001)).clamp(0, 1)
    return plain * (1 - divided + divided / scaling.factor)


def table_factor(scaling: RopeScaling) -> float:
    """What YaRN multiplies cosines and sines by: its attention factor, or the ratio of DeepSeek's two mscales."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return yarn_mscale(scaling.factor, scaling.mscale) / yarn_mscale(scaling.factor, scaling.mscale_all_dim)
    return yarn_mscale(scaling.factor, 1.0)


def yarn_mscale(factor: float, mscale: float) -> float:
    """0.1 mscale ln(factor) + 1 (arXiv 2309.00071, equation 22, with DeepSeek's weight)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def rotate(x_BTHA: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + A/2) of every head by the position's angles (Llama's layout), rounded once."""
    first, second = full_precision(x_BTHA).chunk(2, -1)
    cos, sin = cos.to(first.dtype), sin.to(first.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x_BTHA.dtype)


def rotate_first(x_BTHA: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Rotate the first R dimensions of every head, by halves or, interleaved, by neighbours.

    Interleaved pairs (2i, 2i + 1) come out as (i, i + R/2): queries and keys are reordered together, so that their
    products are those of a rotation in place.
    """
    dim = 2 * cos.shape[-1]
    turned, rest = x_BTHA[..., :dim], x_BTHA[..., dim:]
    if interleaved:
        turned = turned.unflatten(-1, (-1, 2)).mT.flatten(-2)
    turned = rotate(turned, cos, sin)
    return torch.cat((turned, rest), -1) if rest.shape[-1] else turned


class NormalizedRotary(torch.autograd.Function):
    """As `ops.rotary`: x (B, T, H, A), weight (A,) or (H A,) or None -> normalised and rotated, by kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(None if weight is None else x, weight, cos, sin)
        ctx.eps = eps
        return ops.rotary(x, weight, cos, sin, eps, False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, cos, sin = ctx.saved_tensors
        if weight is None:
            return ops.rotary(grads[0], None, cos, sin, 0.0, True), None, None, None, None
        d_x, d_weight = ops.rotary_norm_backward(grads[0], x, weight, cos, sin, ctx.eps)
        return d_x, d_weight.to(weight.dtype), None, None, None

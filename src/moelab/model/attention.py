"""Grouped-query attention with rotary positions (arXiv 2104.09864), optional QK-norm and an optional KV cache.

B sequences, T tokens, D width, H heads of size A (Q query, KV key-value).
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.model import kernels
from moelab.model.cache import LayerCache
from moelab.model.kernels import ops
from moelab.model.linear import Linear
from moelab.model.native import usable
from moelab.model.native.ops import CausalAttention, RmsNorm, Rotary


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if usable(x, self.weight):
            return RmsNorm.apply(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Causal self-attention; query heads share key-value heads in groups."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        d, bias = config.d_model, bool(config.attention_bias)
        q_width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q_proj = Linear(d, q_width, bias=bias)
        self.k_proj = Linear(d, kv_width, bias=bias)
        self.v_proj = Linear(d, kv_width, bias=bias)
        self.o_proj = Linear(q_width, d, bias=config.attention_bias is True)
        if config.qk_norm != "none":
            head = config.qk_norm == "head"
            self.q_norm = RMSNorm(config.head_dim if head else q_width, config.norm_eps)
            self.k_norm = RMSNorm(config.head_dim if head else kv_width, config.norm_eps)

    def forward(
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D). Without a mask attention is causal; with a cache keys and values are appended."""
        q, k, v = self._project(x_BTD)
        norms = (None, None) if self.config.qk_norm == "none" else (self.q_norm, self.k_norm)
        q, k = self._rotate(q, norms[0], rotary), self._rotate(k, norms[1], rotary)
        if mask is None and cache is None and usable(q, k, v):
            y: Tensor = CausalAttention.apply(q, k, v)
            return self.o_proj(y.flatten(2))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        causal = mask is None and q.shape[2] > 1
        if cache is not None:
            k, v = cache.append(k, v)
        shared = self.config.n_kv_heads != self.config.n_heads
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=shared)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def _project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, Q, A), keys and values (B, T, KV, A), neither normalised nor rotated."""
        heads = (-1, self.config.head_dim)
        q, k, v = self.q_proj(x_BTD), self.k_proj(x_BTD), self.v_proj(x_BTD)
        return q.unflatten(-1, heads), k.unflatten(-1, heads), v.unflatten(-1, heads)

    def _rotate(self, x_BTHA: Tensor, norm: RMSNorm | None, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Normalise each head, or all together, where a norm is given, then turn it to its position."""
        if kernels.usable(x_BTHA, *rotary):
            weight, eps = (None, 0.0) if norm is None else (norm.weight, norm.eps)
            return NormalizedRotary.apply(x_BTHA, weight, *rotary, eps)
        if norm is not None and self.config.qk_norm == "full":
            x_BTHA, norm = norm(x_BTHA.flatten(-2)).view_as(x_BTHA), None
        if usable(x_BTHA):
            weight, eps = (None, 0.0) if norm is None else (norm.weight, norm.eps)
            return Rotary.apply(x_BTHA, weight, *rotary, eps)
        return rotate(x_BTHA if norm is None else norm(x_BTHA), *rotary)


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


@lru_cache(maxsize=16)
def _frequencies(head_dim: int, theta: float) -> Tensor:
    return theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


@lru_cache(maxsize=64)
def rotary_table(start: int, length: int, head_dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, 1, A/2) of positions start .. start + length, fp32."""
    positions = torch.arange(start, start + length, dtype=torch.float64)
    angles = torch.outer(positions, _frequencies(head_dim, theta))[:, None]
    return angles.cos().float().to(device), angles.sin().float().to(device)


def rotate(x_BTHA: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + A/2) of every head by the position's angles (Llama's layout)."""
    first, second = x_BTHA.chunk(2, -1)
    cos, sin = cos.to(x_BTHA.dtype), sin.to(x_BTHA.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)

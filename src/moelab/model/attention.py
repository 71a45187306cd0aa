"""Grouped-query attention: rotary positions, norms and clipping of queries and keys, windows, sinks, gated outputs.

B sequences, T tokens, D width, H heads of size A (Q query, KV key-value).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.model import kernels
from moelab.model.attend import Scores, attend
from moelab.model.cache import LayerCache
from moelab.model.linear import Linear
from moelab.model.masks import LayerContext
from moelab.model.native import usable
from moelab.model.native.ops import Rotary
from moelab.model.norms import RMSNorm, rms_norm
from moelab.model.precision import full_precision
from moelab.model.rotary import NormalizedRotary, rotate, rotate_first


class Attention(nn.Module):
    """Causal self-attention of one layer; query heads share key-value heads in groups."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        d, bias, kv_heads = config.d_model, bool(config.attention_bias), config.kv_heads(layer)
        q_width, kv_width = config.n_heads * config.head_dim, kv_heads * config.head_dim
        self.q_proj = Linear(d, q_width, bias=bias)
        self.k_proj = Linear(d, kv_width, bias=bias)
        self.v_proj = Linear(d, kv_width, bias=bias)
        self.o_proj = Linear(q_width, d, bias=config.attention_bias is True)
        if config.attention_gate:
            gates = config.n_heads if config.attention_gate == "head" else q_width
            self.gate_proj = Linear(d, gates, bias=False)
        if config.attention_sinks:
            self.sinks = nn.Parameter(torch.empty(config.n_heads))
        if config.qk_norm in ("head", "full"):
            head = config.qk_norm == "head"
            self.q_norm = rms_norm(config, config.head_dim if head else q_width)
            self.k_norm = rms_norm(config, config.head_dim if head else kv_width)
        self.scores = layer_scores(config, layer, config.attention_scale or config.head_dim**-0.5)
        whole = config.rotary_dim in (None, config.head_dim) and config.has_positions(layer)
        self.plain_rotary = whole and not config.rope_interleaved and not config.clip_qkv and config.qk_norm != "l2"

    def forward(self, x_BTD: Tensor, context: LayerContext, cache: LayerCache | None = None) -> Tensor:
        """x (B, T, D) -> (B, T, D). With a cache keys and values are appended, and queries see those stored too."""
        q, k, v = self._project(x_BTD)
        norms = (self.q_norm, self.k_norm) if self.config.qk_norm in ("head", "full") else (None, None)
        q, k = self._place(q, norms[0], context), self._place(k, norms[1], context)
        if self.config.clip_qkv:
            v = v.clamp(-self.config.clip_qkv, self.config.clip_qkv)
        if context.temperature is not None:
            q = q * context.temperature.to(q.dtype)
        if cache is not None:
            k, v = (stored.transpose(1, 2) for stored in cache.append(k.transpose(1, 2), v.transpose(1, 2)))
        sinks = self.sinks if self.config.attention_sinks else None
        y = attend(q, k, v, self.scores, mask=context.mask, sinks=sinks, native=cache is None)
        return self.o_proj(self._gated(y, x_BTD).flatten(2))

    def _project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, Q, A), keys and values (B, T, KV, A), neither normalised nor rotated."""
        heads = (-1, self.config.head_dim)
        q, k, v = self.q_proj(x_BTD), self.k_proj(x_BTD), self.v_proj(x_BTD)
        return q.unflatten(-1, heads), k.unflatten(-1, heads), v.unflatten(-1, heads)

    def _place(self, x_BTHA: Tensor, norm: RMSNorm | None, context: LayerContext) -> Tensor:
        """Normalise each head, or all together, clip and turn to the position, as far as the config names them; rounded
        once.

        L2 norms, without weights, come after the rotation and only in layers that rotate (Llama 4).
        """
        if self.plain_rotary and context.rotary is not None:
            return self._rotate(x_BTHA, norm, *context.rotary)
        dtype, x_BTHA = x_BTHA.dtype, full_precision(x_BTHA)
        if norm is not None:
            x_BTHA = self._normalize(x_BTHA, norm)
        if self.config.clip_qkv:
            x_BTHA = x_BTHA.clamp(-self.config.clip_qkv, self.config.clip_qkv)
        if context.rotary is not None:
            x_BTHA = rotate_first(x_BTHA, *context.rotary, bool(self.config.rope_interleaved))
            if self.config.qk_norm == "l2":
                x_BTHA = F.rms_norm(x_BTHA, x_BTHA.shape[-1:], None, self.config.norm_eps)
        return x_BTHA.to(dtype)

    def _rotate(self, x_BTHA: Tensor, norm: RMSNorm | None, cos: Tensor, sin: Tensor) -> Tensor:
        """Normalise, where a norm is given, and rotate whole heads by halves: one kernel where there is one."""
        if kernels.usable(x_BTHA, cos, sin):
            gain, eps = (None, 0.0) if norm is None else (norm.gain, norm.eps)
            return NormalizedRotary.apply(x_BTHA, gain, cos, sin, eps)
        compiled, dtype, x_BTHA = usable(x_BTHA), x_BTHA.dtype, full_precision(x_BTHA)
        if norm is not None and self.config.qk_norm == "full":
            x_BTHA, norm = self._normalize(x_BTHA, norm), None
        if compiled:
            gain, eps = (None, 0.0) if norm is None else (norm.gain, norm.eps)
            return Rotary.apply(x_BTHA, gain, cos, sin, eps)
        return rotate(x_BTHA if norm is None else norm(x_BTHA), cos, sin).to(dtype)

    def _normalize(self, x_BTHA: Tensor, norm: RMSNorm) -> Tensor:
        if self.config.qk_norm == "full":
            return norm(x_BTHA.flatten(-2)).view_as(x_BTHA)
        y: Tensor = norm(x_BTHA)
        return y

    def _gated(self, y_BTHA: Tensor, x_BTD: Tensor) -> Tensor:
        """Each head, or each element, times a sigmoid of the layer's input (arXiv 2505.06708)."""
        if not self.config.attention_gate:
            return y_BTHA
        gate = self.gate_proj(x_BTD).unflatten(-1, (self.config.n_heads, -1))
        return y_BTHA * gate.sigmoid()


def layer_scores(config: ModelConfig, layer: int, scale: float) -> Scores:
    """How the scores of one layer are formed."""
    kind, window = config.layer_kind(layer), config.sliding_window or 0
    return Scores(scale=scale, softcap=config.attention_softcap, kind=kind, window=window)

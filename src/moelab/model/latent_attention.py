"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values grow out of one small latent vector.

B sequences, T tokens, S stored, D width, H heads; N, P, V sizes of a head's key without positions, of the rotated key
that all heads share, and of its value; R the rank of the latent.
"""

import torch
from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.model.attend import attend
from moelab.model.attention import layer_scores
from moelab.model.cache import LayerCache
from moelab.model.linear import Linear
from moelab.model.masks import LayerContext
from moelab.model.norms import rms_norm
from moelab.model.rotary import rotate_first, yarn_mscale


class LatentAttention(nn.Module):
    """Causal self-attention of one layer; a cache holds the latent (R) and the rotated key (P) of each token alone."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        assert config.mla is not None
        self.config, self.mla = config, config.mla
        d, heads, bias, mla = config.d_model, config.n_heads, bool(config.attention_bias), config.mla
        q_width = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
        if mla.q_lora_rank is None:
            self.q_proj = Linear(d, q_width, bias=False)
        else:
            self.q_a_proj = Linear(d, mla.q_lora_rank, bias=bias)
            self.q_a_layernorm = rms_norm(config, mla.q_lora_rank)
            self.q_b_proj = Linear(mla.q_lora_rank, q_width, bias=False)
        self.kv_a_proj_with_mqa = Linear(d, mla.kv_lora_rank + mla.qk_rope_head_dim, bias=bias)
        self.kv_a_layernorm = rms_norm(config, mla.kv_lora_rank)
        self.kv_b_proj = Linear(mla.kv_lora_rank, heads * (mla.qk_nope_head_dim + mla.v_head_dim), bias=False)
        self.o_proj = Linear(heads * mla.v_head_dim, d, bias=config.attention_bias is True)
        if config.attention_sinks:
            self.sinks = nn.Parameter(torch.empty(heads))
        self.scores = layer_scores(config, layer, latent_scale(config))

    def forward(self, x_BTD: Tensor, context: LayerContext, cache: LayerCache | None = None) -> Tensor:
        """x (B, T, D) -> (B, T, D). With a cache latents are appended; tokens after the first pass attend absorbed."""
        q_BTHN, q_BTHP = self._queries(x_BTD, context)
        c_BTR, k_BT1P = self._latents(x_BTD, context)
        absorbed = cache is not None and cache.length > 0
        if cache is not None:
            latent = torch.cat((c_BTR[:, :, None], k_BT1P), -1).transpose(1, 2)
            stored, _ = cache.append(latent, latent[..., :0])
        if absorbed:
            y = self._absorbed(q_BTHN, q_BTHP, stored.transpose(1, 2), context)
        else:
            y = self._expanded(q_BTHN, q_BTHP, c_BTR, k_BT1P, context, native=cache is None)
        return self.o_proj(y.flatten(2))

    def _queries(self, x_BTD: Tensor, context: LayerContext) -> tuple[Tensor, Tensor]:
        if self.mla.q_lora_rank is None:
            q = self.q_proj(x_BTD)
        else:
            q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_BTD)))
        sizes = [self.mla.qk_nope_head_dim, self.mla.qk_rope_head_dim]
        q_nope, q_rope = q.unflatten(-1, (self.config.n_heads, -1)).split(sizes, -1)
        q_rope = self._rotate(q_rope, context)
        if context.temperature is not None:
            return q_nope * context.temperature.to(q.dtype), q_rope * context.temperature.to(q.dtype)
        return q_nope, q_rope

    def _latents(self, x_BTD: Tensor, context: LayerContext) -> tuple[Tensor, Tensor]:
        """The normalised latents (B, T, R) and the rotated keys that all heads share (B, T, 1, P)."""
        both = self.kv_a_proj_with_mqa(x_BTD)
        latent, k_rope = both.split([self.mla.kv_lora_rank, self.mla.qk_rope_head_dim], -1)
        return self.kv_a_layernorm(latent), self._rotate(k_rope[:, :, None], context)

    def _rotate(self, x_BTHP: Tensor, context: LayerContext) -> Tensor:
        if context.rotary is None:
            return x_BTHP
        return rotate_first(x_BTHP, *context.rotary, bool(self.config.rope_interleaved))

    def _expanded(
        self, q_BTHN: Tensor, q_BTHP: Tensor, c_BTR: Tensor, k_BT1P: Tensor, context: LayerContext, native: bool
    ) -> Tensor:
        """Keys and values of every head, formed from the latents: (B, T, H, V)."""
        heads = self.kv_b_proj(c_BTR).unflatten(-1, (self.config.n_heads, -1))
        k_nope, v = heads.split([self.mla.qk_nope_head_dim, self.mla.v_head_dim], -1)
        k = torch.cat((k_nope, k_BT1P.expand(-1, -1, self.config.n_heads, -1)), -1)
        q = torch.cat((q_BTHN, q_BTHP), -1)
        return attend(q, k, v, self.scores, mask=context.mask, sinks=self._sinks(), native=native)

    def _absorbed(self, q_BTHN: Tensor, q_BTHP: Tensor, stored_BS1C: Tensor, context: LayerContext) -> Tensor:
        """The same with the products by keys' and values' matrices moved to the queries' side: the stored latents
        (B, S, 1, R + P) are the keys, and their first R numbers the values, of one head that all queries share."""
        weight = self.kv_b_proj.weight.to(q_BTHN.dtype).unflatten(0, (self.config.n_heads, -1))
        to_keys, to_values = weight.split([self.mla.qk_nope_head_dim, self.mla.v_head_dim], 1)
        q = torch.cat((torch.einsum("bthn,hnr->bthr", q_BTHN, to_keys), q_BTHP), -1)
        v = stored_BS1C[..., : self.mla.kv_lora_rank]
        y = attend(q, stored_BS1C, v, self.scores, mask=context.mask, sinks=self._sinks(), native=False)
        return torch.einsum("bthr,hvr->bthv", y, to_values)

    def _sinks(self) -> Tensor | None:
        return self.sinks if self.config.attention_sinks else None


def latent_scale(config: ModelConfig) -> float:
    """1 / sqrt(N + P), times the square of YaRN's mscale where `mscale_all_dim` is given (DeepSeek's models)."""
    assert config.mla is not None
    if config.attention_scale is not None:
        return config.attention_scale
    scale = float((config.mla.qk_nope_head_dim + config.mla.qk_rope_head_dim) ** -0.5)
    scaling = config.rope_scaling
    if scaling is not None and scaling.kind == "yarn" and scaling.mscale_all_dim:
        scale *= yarn_mscale(scaling.factor, scaling.mscale_all_dim) ** 2
    return scale

"""Token embeddings, the layers with their norms, the final norm."""

from typing import Any

import torch
from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.model.attention import Attention
from moelab.model.cache import LayerCache
from moelab.model.feed_forward import FeedForward, activation_of
from moelab.model.latent_attention import LatentAttention
from moelab.model.masks import LayerContext
from moelab.model.moe import MoELayer, RoutingOutput
from moelab.model.norms import residual_norm
from moelab.model.recompute import recomputed


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)).

    With `norm_position: post` the norms stand behind attention and feed-forward instead (OLMo 2), with `both` on both
    sides (Gemma 2). Names are Hugging Face's, where `post_attention_layernorm` means either. `recompute` is what the
    backward pass computes again: `selective` or `full`.
    """

    recompute: str | None = None

    def __init__(self, config: ModelConfig, layer: int, dispatch: str) -> None:
        super().__init__()
        self.norm_position = config.norm_position or "pre"
        if self.norm_position != "post":
            self.input_layernorm = residual_norm(config)
        self.self_attn = LatentAttention(config, layer) if config.mla is not None else Attention(config, layer)
        self.post_attention_layernorm = residual_norm(config)
        if self.norm_position == "both":
            self.pre_feedforward_layernorm = residual_norm(config)
        if self.norm_position != "pre":
            self.post_feedforward_layernorm = residual_norm(config)
        self.is_moe = config.is_moe_layer(layer)
        self.mlp: nn.Module = (
            MoELayer(config, dispatch, layer)
            if self.is_moe
            else FeedForward(config.d_model, config.d_ff, activation_of(config))
        )

    def forward(
        self, x: Tensor, attention: LayerContext, cache: LayerCache | None = None, **routing: Any
    ) -> tuple[Tensor, RoutingOutput | None]:
        """x (B, T, D) -> (B, T, D), and what a MoE layer returns of its routing.

        `attention` goes to attention, `routing` to a MoE layer.
        """
        if self.recompute is None or cache is not None or not torch.is_grad_enabled():
            return self._forward(x, attention, cache, routing)
        y, output = recomputed(self.recompute, self._forward, x, attention, cache, routing)
        return y, output

    def _forward(
        self, x: Tensor, attention: LayerContext, cache: LayerCache | None, routing: dict[str, Any]
    ) -> tuple[Tensor, RoutingOutput | None]:
        if self.norm_position == "pre":
            x = x + self.self_attn(self.input_layernorm(x), attention, cache)
            y, output = self._feed_forward(self.post_attention_layernorm(x), routing)
            return x + y, output
        both = self.norm_position == "both"
        y = self.self_attn(self.input_layernorm(x) if both else x, attention, cache)
        x = x + self.post_attention_layernorm(y)
        y, output = self._feed_forward(self.pre_feedforward_layernorm(x) if both else x, routing)
        return x + self.post_feedforward_layernorm(y), output

    def _feed_forward(self, h: Tensor, routing: dict[str, Any]) -> tuple[Tensor, RoutingOutput | None]:
        if not self.is_moe:
            return self.mlp(h), None
        y, output = self.mlp(h, **routing)
        return y, output


class Decoder(nn.Module):
    """Token embeddings, the layers and the final norm."""

    def __init__(self, config: ModelConfig, dispatch: str) -> None:
        super().__init__()
        # From an empty tensor: on the device "meta" the usual first weights would load a thousand modules.
        self.embed_tokens = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, config.d_model), freeze=False)
        self.layers = nn.ModuleList(DecoderLayer(config, layer, dispatch) for layer in range(config.n_layers))
        self.norm = residual_norm(config)

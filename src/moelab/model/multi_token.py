"""Multi-token prediction (DeepSeek-V3, arXiv 2412.19437, section 2.2): modules that predict further tokens in training.

B sequences, T tokens, D width. Module k (from 1) predicts, at position i, token i + k + 1: it sees the tokens up to
i + k. The last k positions have nothing to predict and are left out.
"""

from typing import Any

import torch
from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.model.cross_entropy import IGNORED, linear_cross_entropy
from moelab.model.decoder import DecoderLayer
from moelab.model.hash_router import TokenContext
from moelab.model.head import Head
from moelab.model.linear import Linear
from moelab.model.masks import LayerContext, Positions, layer_contexts
from moelab.model.moe import RoutingOutput
from moelab.model.norms import residual_norm

MTP_LOSS = 0.3
"""The weight of the modules' mean loss: DeepSeek-V3's for the first 10 of its 14.8 trillion tokens, 0.1 after them
(section 4.2)."""

Further = list[tuple[Tensor, RoutingOutput | None]]
"""Per module its states (B, T - k, D), normalised for the head, and what its MoE layer returns of its routing."""


class MultiTokenModule(nn.Module):
    """norm(layer(projection of [norm(embedding), norm(state)])): the layer is of the kind of the model's last one.

    The projection's columns stand in the order of DeepSeek's checkpoints. Embedding and head are the model's.
    """

    def __init__(self, config: ModelConfig, dispatch: str) -> None:
        super().__init__()
        self.enorm, self.hnorm = residual_norm(config), residual_norm(config)
        self.eh_proj = Linear(2 * config.d_model, config.d_model, bias=False)
        self.layer = DecoderLayer(config, config.n_layers - 1, dispatch)
        self.norm = residual_norm(config)

    def forward(
        self, state_BTD: Tensor, embedded_BTD: Tensor, attention: LayerContext, routing: dict[str, Any]
    ) -> tuple[Tensor, RoutingOutput | None]:
        """States of the model, or of the module before, and embeddings of the tokens one further -> states."""
        both = torch.cat((self.enorm(embedded_BTD), self.hnorm(state_BTD)), -1)
        x, output = self.layer(self.eh_proj(both), attention, None, **routing)
        return self.norm(x), output


class MultiTokenPrediction(nn.ModuleList):
    """The `mtp_layers` modules of a model, one after another; none where the model has none."""

    def __init__(self, config: ModelConfig, dispatch: str) -> None:
        super().__init__(MultiTokenModule(config, dispatch) for _ in range(config.mtp_layers or 0))
        self.config = config

    def forward(
        self,
        state_BTD: Tensor,
        embedded_BTD: Tensor,
        mask_BT: Tensor | None = None,
        tokens: TokenContext | None = None,
        **routing: Any,
    ) -> Further:
        """From the model's final states and the embeddings of the same tokens. Routers by token go by the newest."""
        found: Further = []
        length = state_BTD.shape[1]
        for k, module in enumerate(self, 1):
            if k >= length:
                break
            mask = None if mask_BT is None else mask_BT[:, : length - k] & mask_BT[:, k:]
            positions = Positions(0, length - k, mask, state_BTD.device)
            attention = layer_contexts(self.config, positions, None)[-1]
            newest = None if tokens is None else tokens.from_position(k)
            states = state_BTD[:, : length - k]
            options = {"mask_BT": mask, "context": newest, **routing}
            state_BTD, output = module(states, embedded_BTD[:, k:], attention, options)
            found.append((state_BTD, output))
        return found


def further_loss(
    further: Further, head: Head, targets_BT: Tensor, reduction: str, mask_BT: Tensor | None = None
) -> Tensor:
    """The modules' mean cross-entropy of the targets that stand k places further, in fp32; 0 without modules.

    Padding, where the mask is False, predicts nothing.
    """
    losses = []
    for k, (state_BTD, _) in enumerate(further, 1):
        shifted = targets_BT[:, k:]
        if mask_BT is not None:
            shifted = shifted.masked_fill(~mask_BT[:, : shifted.shape[1]], IGNORED)
        loss, _ = linear_cross_entropy(state_BTD.flatten(0, 1), head, shifted.flatten(), reduction=reduction)
        losses.append(loss)
    return torch.stack(losses).mean() if losses else targets_BT.new_zeros((), dtype=torch.float32)

"""Routers that learn nothing: fixed pseudo-random look-ups by token id (arXiv 2106.04426), by word, or by position.

A word here is the token and the one before it, a causal stand-in for the separate routing vocabulary of
Mixture of Word Experts (arXiv 2311.10768): far more keys than the token vocabulary has.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moelab.architecture import MoEConfig
from moelab.model.router import Routing

_MIXERS = (-0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
"""Odd 64-bit constants of splitmix64, as signed numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenContext:
    """What these routers see of a batch: ids (B, T), the ids one place earlier (-1: none), and the first position."""

    ids: Tensor
    previous: Tensor
    start: int


class HashRouter(nn.Module):
    """K different experts per key, all gates equal (1/K when normalised, else 1)."""

    def __init__(self, config: MoEConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, context: TokenContext) -> Routing:
        n_experts, top_k = self.config.n_experts, self.config.top_k
        experts = torch.arange(n_experts, device=context.ids.device)
        scores = pseudo_random(self._keys(context).flatten()[:, None], experts)
        chosen = scores.topk(top_k, dim=-1).indices
        gate = self.config.routed_scaling / (top_k if self.config.normalize_gates else 1)
        uniform = torch.full_like(scores, 1 / n_experts)
        return Routing(
            logits=torch.zeros_like(scores), scores=uniform, chosen=chosen, gates=uniform[:, :top_k] * 0 + gate
        )

    def _keys(self, context: TokenContext) -> Tensor:
        """One integer per token, (B, T)."""
        if self.config.router == "hash":
            return context.ids
        if self.config.router == "word":
            return context.ids + (context.previous + 2) * 2**24
        places = torch.arange(context.start, context.start + context.ids.shape[1], device=context.ids.device)
        return context.ids + (places + 1) * 2**24


def pseudo_random(keys: Tensor, salts: Tensor) -> Tensor:
    """Numbers in [0, 1) that depend on key and salt alone, the same on every machine."""
    x = keys * _MIXERS[0] + (salts + 1) * _MIXERS[1]
    for shift, mixer in ((30, _MIXERS[1]), (27, _MIXERS[2])):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * mixer
    return ((x >> 33) & 0xFFFFFF).float() / 2**24

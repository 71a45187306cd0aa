"""Routers that see several tokens at once: Expert Choice, soft MoE, Mixture of Tokens. All experts in two `bmm`.

N groups of G tokens of width D; E experts, S slots (rows an expert gets from one group). What a token gets here
depends on the other tokens of its group: `token_routing` is the same weights' token choice, which does not.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moelab.architecture import MoEConfig
from moelab.model.dispatch.permutation import add_rows, read_rows
from moelab.model.feed_forward import Experts, activate
from moelab.model.precision import compute_dtype, full_precision
from moelab.model.router import Routing, score_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRouting:
    """For the record: weights (N, G, E, S) with which experts read the tokens, and which tokens (N, G) are real.

    `scores` (N, G, E) are the tokens' probabilities of the experts, where experts choose by them.
    """

    weights: Tensor
    real: Tensor
    scores: Tensor | None = None


def group_tokens(
    x_BTD: Tensor, grouping: str, size: int | None, mask_BT: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Tokens in groups (N, G, D), the last ones filled up with zeros, and which of them are real (N, G).

    `batch`: position t of `size` consecutive sequences; `sequence`: `size` neighbours. Without a size, all of them.
    Tokens whose mask is False are not real either: no expert reads them.
    """
    mask = torch.ones(x_BTD.shape[:2], dtype=torch.bool, device=x_BTD.device) if mask_BT is None else mask_BT
    rows, real = (x_BTD.transpose(0, 1), mask.T) if grouping == "batch" else (x_BTD, mask)
    members = rows.shape[1]
    size = size or members
    missing = -members % size
    if missing:
        rows, real = F.pad(rows, (0, 0, 0, missing)), F.pad(real, (0, missing))
    return rows.reshape(-1, size, rows.shape[-1]), real.reshape(-1, size)


def ungroup_tokens(y_NGD: Tensor, like_BTD: Tensor, grouping: str) -> Tensor:
    """The way back, (B, T, D)."""
    batch, length, d = like_BTD.shape
    outer, members = (length, batch) if grouping == "batch" else (batch, length)
    rows = y_NGD.reshape(outer, -1, d)[:, :members]
    return rows.transpose(0, 1) if grouping == "batch" else rows


def run_experts(x_ERD: Tensor, experts: Experts, activation: str) -> Tensor:
    """Every expert on its own R rows, (E, R, D); where processes share the experts out, each has as many rows."""

    def compute(owned: Experts, x: Tensor) -> Tensor:
        (first, down), biases = owned.weights(x.dtype), owned.biases
        h = torch.bmm(x, first.mT)
        h = activate(h if biases is None else h + biases[0].to(h.dtype)[:, None], activation)
        y = torch.bmm(h, down.mT)
        return y if biases is None else y + biases[1].to(y.dtype)[:, None]

    exchange = experts.exchange
    if exchange is None:
        y: Tensor = experts(compute, x_ERD)
        return y
    return exchange.to_tokens(experts(compute, exchange.to_experts(x_ERD)))


class GroupRouter(nn.Module):
    """Common to the three: the score matrix, grouping, and token choice with the same weights."""

    def __init__(self, d_model: int, config: MoEConfig) -> None:
        super().__init__()
        self.config = config
        self.grouping = config.grouping or "batch"
        columns = config.n_experts * config.slots if config.router == "soft" else config.n_experts
        if config.mixing != "uniform":
            self.weight = nn.Parameter(torch.empty(columns, d_model))

    def forward(
        self,
        x_BTD: Tensor,
        experts: Experts,
        activation: str,
        mask_BT: Tensor | None = None,
        *,
        latent_BTL: Tensor | None = None,
    ) -> tuple[Tensor, GroupRouting]:
        """(B, T, D) -> (B, T, D), and what the record needs. Padding is read by no expert.

        Where the experts work in a latent space, they compute `latent` (B, T, L) -> (B, T, L), routed by x.
        """
        rows_BTD = x_BTD if latent_BTL is None else latent_BTL
        groups, real = group_tokens(x_BTD, self.grouping, self.config.group_size, mask_BT)
        rows = groups if latent_BTL is None else group_tokens(rows_BTD, self.grouping, self.config.group_size)[0]
        dtype = compute_dtype(x_BTD)
        read, emit = self.weights(groups, real)
        with torch.autocast(x_BTD.device.type, enabled=False):
            y_NGD = self.mix(rows.to(dtype), read.to(dtype), emit.to(dtype), experts, activation)
        y = ungroup_tokens(y_NGD, rows_BTD, self.grouping) * self.config.routed_scaling
        return y, GroupRouting(weights=read.detach(), real=real)

    def weights(self, groups: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """How slots read tokens and how tokens read results, (N, G, E, S) both."""
        raise NotImplementedError

    def mix(self, groups: Tensor, read: Tensor, emit: Tensor, experts: Experts, activation: str) -> Tensor:
        """Weighted sums of tokens through the experts and weighted sums of results back, (N, G, D)."""
        n, size, n_experts, slots = read.shape
        rows = torch.bmm(read.flatten(2).mT, groups).view(n, n_experts, slots, -1)
        y = run_experts(rows.transpose(0, 1).flatten(1, 2), experts, activation)
        y = y.view(n_experts, n, slots, -1).transpose(0, 1).flatten(1, 2)
        return torch.bmm(emit.reshape(n, size, -1), y)

    def token_routing(self, x_TD: Tensor) -> Routing:
        """Token choice by the same scores: the top K experts of softmax(x W), gates not normalised."""
        if self.config.mixing == "uniform":
            logits = x_TD.new_zeros(x_TD.shape[0], self.config.n_experts, dtype=full_precision(x_TD[:0]).dtype)
        else:
            logits = score_tokens(x_TD, self.weight)
        if self.config.router == "soft":
            logits = logits.unflatten(-1, (self.config.n_experts, -1)).logsumexp(-1)
        scores = logits.softmax(-1)
        gates, chosen = scores.topk(self.config.top_k, dim=-1)
        return Routing(logits=logits, scores=scores, chosen=chosen, gates=gates * self.config.routed_scaling)


class ExpertChoiceRouter(GroupRouter):
    """Each expert takes its best G K/E tokens of a group; gates are softmax over experts (arXiv 2202.09368)."""

    def take(self, groups: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gates and places in the group of the taken tokens, (N, S, E) both, and the scores of all, (N, G, E).

        A group's slots follow from its real tokens, rounded up: the gates of slots beyond them are 0.
        """
        top_k, n_experts = self.config.top_k, self.config.n_experts
        slots = -(-groups.shape[1] * top_k // n_experts)
        scores = score_tokens(groups, self.weight).softmax(-1)
        gates, index = scores.masked_fill(~real[..., None], 0.0).topk(slots, dim=1)
        room = (real.sum(1) * top_k + n_experts - 1) // n_experts
        spare = torch.arange(slots, device=room.device) >= room[:, None]
        return gates.masked_fill(spare[..., None], 0.0), index, scores

    def forward(
        self,
        x_BTD: Tensor,
        experts: Experts,
        activation: str,
        mask_BT: Tensor | None = None,
        *,
        latent_BTL: Tensor | None = None,
    ) -> tuple[Tensor, GroupRouting]:
        rows_BTD = x_BTD if latent_BTL is None else latent_BTL
        members = x_BTD.shape[0 if self.grouping == "batch" else 1]
        group_size = min(self.config.group_size or members, members)
        groups, real = group_tokens(x_BTD, self.grouping, group_size, mask_BT)
        gates, index, scores = self.take(groups, real)
        taken_from = groups if latent_BTL is None else group_tokens(rows_BTD, self.grouping, group_size)[0]
        n, size, d = taken_from.shape
        place = (index + torch.arange(n, device=index.device)[:, None, None] * size).permute(2, 0, 1).flatten()
        dtype = compute_dtype(x_BTD)
        with torch.autocast(x_BTD.device.type, enabled=False):
            rows = read_rows(taken_from.reshape(-1, d).to(dtype), place).view(self.config.n_experts, -1, d)
            y = run_experts(rows, experts, activation).flatten(0, 1)
            y = (y * gates.permute(2, 0, 1).reshape(-1, 1)).to(dtype)
            y_NGD = add_rows(y, place, n * size)
        y_BTD = ungroup_tokens(y_NGD, rows_BTD, self.grouping) * self.config.routed_scaling
        taken = torch.zeros(n, size, self.config.n_experts, device=y.device).scatter(1, index, gates.detach().float())
        return y_BTD, GroupRouting(weights=taken[..., None], real=real, scores=scores.detach())


class SoftRouter(GroupRouter):
    """Soft MoE (arXiv 2308.00951): slots read by softmax over tokens, tokens read by softmax over all slots."""

    def weights(self, groups: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        logits = score_tokens(groups, self.weight)
        read = logits.masked_fill(~real[..., None], -torch.inf).softmax(1)
        shape = (self.config.n_experts, self.config.slots)
        return read.nan_to_num(0.0).unflatten(-1, shape), logits.softmax(-1).unflatten(-1, shape)


class MixtureOfTokensRouter(GroupRouter):
    """One mixture of a group's tokens per expert, handed back by the same weights (arXiv 2310.15961).

    Learned temperatures are exp(theta - 1), for reading and emitting apart.
    """

    def __init__(self, d_model: int, config: MoEConfig) -> None:
        super().__init__(d_model, config)
        if config.separate_emit:
            self.emit_weight = nn.Parameter(torch.empty(config.n_experts, d_model))
        if config.learned_temperature:
            self.theta = nn.Parameter(torch.empty(2))

    def weights(self, groups: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.mixing == "uniform":
            read = real.to(full_precision(groups[:0]).dtype)[..., None]
            read = (read / read.sum(1, keepdim=True).clamp(min=1)).expand(-1, -1, self.config.n_experts)
            return read[..., None], read[..., None]
        logits = score_tokens(groups, self.weight)
        read = self._over_tokens(logits, real, 0)
        if self.config.separate_emit:
            emit = self._over_tokens(score_tokens(groups, self.emit_weight), real, 1)
        else:
            emit = self._over_tokens(logits, real, 1) if self.config.learned_temperature else read
        return read[..., None], emit[..., None]

    def _over_tokens(self, logits: Tensor, real: Tensor, side: int) -> Tensor:
        """Weights (N, G, E) that sum to 1 over the tokens of a group; `hard` gives the best token everything
        and learns through the soft weights (straight-through)."""
        if self.config.learned_temperature:
            logits = logits / (self.theta[side] - 1).exp()
        logits = (logits / (self.config.temperature or 1.0)).masked_fill(~real[..., None], -torch.inf)
        soft = logits.softmax(1).nan_to_num(0.0)
        if self.config.mixing == "hard":
            hard = torch.zeros_like(logits).scatter(1, logits.argmax(1, keepdim=True), 1.0)
            return hard * real[..., None] + (soft - soft.detach())
        return soft

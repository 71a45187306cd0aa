"""Token-choice routing: scores, chosen experts, gates, balancing by loss or by bias, capacity. Always in fp32.

T tokens, D width, E experts, K chosen per token.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moelab.architecture import MoEConfig
from moelab.model.precision import full_precision

TINY = 1e-20
"""Joins every sum that scores are divided by (DeepSeek-V3's constant): scores that vanish give gates of 0, not NaN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """What a router decided: `scores` (T, E) of all experts, `chosen` (T, K), and `gates` (T, K) that weigh them.

    `choosing` (T, E) is what the choice was made by where that is not the scores (a bias per expert joined them).
    `group_edge` (T, 2) holds the scores of the last group of experts that was taken and of the first that was not,
    where groups limit the choice. Without `by_score` the choice did not follow from the scores, so equal scores are
    no ties.
    """

    logits: Tensor
    scores: Tensor
    chosen: Tensor
    gates: Tensor
    choosing: Tensor | None = None
    group_edge: Tensor | None = None
    by_score: bool = True

    def edges(self) -> list[Tensor]:
        """(T, 2) each: by what the last taken and the first rejected were chosen, experts first, then groups."""
        choosing, top_k = self.scores if self.choosing is None else self.choosing, self.chosen.shape[1]
        if not self.by_score:
            return []
        experts = [] if top_k >= choosing.shape[1] else [choosing.topk(top_k + 1, dim=-1).values[:, -2:]]
        return experts if self.group_edge is None else [*experts, self.group_edge]

    def probabilities(self) -> Tensor:
        """Scores (T, E) that sum to 1 for each token; all 0 where the scores vanish."""
        return shares(self.scores)


def shares(scores: Tensor) -> Tensor:
    """Scores (..., n) divided by their sum over the last dimension; 0 where that sum vanishes.

    `TINY` changes no digit in fp32 of a sum above 1e-13, and the gradient stays finite where all scores underflow.
    """
    return scores / (scores.sum(-1, keepdim=True) + TINY)


def score_tokens(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Logits (..., E) = x weight^T + bias, never below fp32, under autocast too."""
    with torch.autocast(x.device.type, enabled=False):
        x = full_precision(x)
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def limit_to_groups(choosing: Tensor, n_group: int, topk_group: int, group_score: str) -> tuple[Tensor, Tensor | None]:
    """Scores (T, E) with -inf outside the best `topk_group` of `n_group` groups of neighbouring experts.

    A group counts by its largest score (`max`, DeepSeek-V2, arXiv 2405.04434) or the sum of its two largest (`top2`,
    DeepSeek-V3, 2412.19437). Also the scores (T, 2) of the last group taken and the first rejected, if one is.
    """
    if topk_group == n_group:
        return choosing, None
    grouped = choosing.detach().unflatten(-1, (n_group, -1))
    best = min(2, grouped.shape[-1]) if group_score == "top2" else 1
    order = grouped.topk(best, dim=-1).values.sum(-1).topk(topk_group + 1, dim=-1)
    rejected = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter(1, order.indices[:, :-1], False)
    outside = rejected.repeat_interleave(grouped.shape[-1], dim=1)
    return choosing.masked_fill(outside, -torch.inf), order.values[:, -2:]


class TopKRouter(nn.Module):
    """Each token takes the K experts with the highest scores; gates are those scores, normalised and scaled.

    With `bias_update`, a bias per expert joins the scores for the choice alone and follows the load (`update_bias`,
    arXiv 2408.15664); it is saved with the model. `router_bias` is a learned bias of the logits instead. With `n_group`
    the choice is among the experts of a token's best groups (`limit_to_groups`).
    """

    balance_bias: Tensor
    load: Tensor

    def __init__(self, d_model: int, config: MoEConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_experts, d_model))
        self.bias = nn.Parameter(torch.empty(config.n_experts)) if config.router_bias else None
        if config.bias_update:
            self.register_buffer("balance_bias", torch.zeros(config.n_experts))
            self.register_buffer("load", torch.zeros(config.n_experts), persistent=False)

    def forward(self, x_TD: Tensor) -> Routing:
        logits = score_tokens(x_TD, self.weight, self.bias)
        scores = logits.softmax(-1) if self.config.score == "softmax" else logits.sigmoid()
        if self.config.normalize_scores:
            scores = shares(scores)
        choosing, group_edge = self._choosing(scores)
        if choosing is not None:
            chosen = choosing.topk(self.config.top_k, dim=-1).indices
            gates = scores.gather(-1, chosen)
        else:
            gates, chosen = scores.topk(self.config.top_k, dim=-1)
        if self.config.normalize_gates:
            gates = shares(gates)
        if self.config.routed_scaling != 1:
            gates = gates * self.config.routed_scaling
        return Routing(
            logits=logits, scores=scores, chosen=chosen, gates=gates, choosing=choosing, group_edge=group_edge
        )

    def _choosing(self, scores: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What experts are chosen by where it is not the scores (T, E) themselves, and the edge between groups."""
        biased = scores + self.balance_bias if self.config.bias_update else None
        if self.config.n_group is None:
            return biased, None
        by = scores if biased is None else biased
        return limit_to_groups(by, self.config.n_group, self.config.topk_group or 1, self.config.scores_groups_by)

    @torch.no_grad()
    def update_bias(self) -> None:
        """After an optimiser step: raise the bias of experts below the mean load, lower the others, recentre."""
        if self.config.bias_update:
            self.balance_bias += self.config.bias_update * torch.sign(self.load.mean() - self.load)
            self.balance_bias -= self.balance_bias.mean()
            self.load.zero_()


def within_capacity(
    chosen: Tensor, n_experts: int, factor: float, mask_T: Tensor | None = None, gates_TK: Tensor | None = None
) -> Tensor:
    """Which choices (T, K) fit when an expert takes at most ceil(factor T K / E): first come, first served.

    With gates, an expert keeps its largest ones instead. Tokens whose mask is False take no place and count in no
    capacity; their entries mean nothing.
    """
    if mask_T is None:
        tokens = chosen.shape[0]
    else:
        tokens, chosen = int(mask_T.sum()), chosen.masked_fill(~mask_T[:, None], n_experts)
    flat = chosen.flatten()
    # 1.1 x 100 / 10 is 11.000000000000002 in floating point, and no reason for a twelfth place.
    capacity = math.ceil(factor * tokens * chosen.shape[1] / n_experts * (1 - 1e-12))
    if gates_TK is None:
        order = flat.argsort(stable=True)
    else:
        largest = gates_TK.detach().flatten().argsort(descending=True, stable=True)
        order = largest[flat[largest].argsort(stable=True)]
    counts = torch.bincount(flat, minlength=n_experts)
    starts = counts.cumsum(0) - counts
    place = torch.empty_like(flat)
    place[order] = torch.arange(flat.numel(), device=flat.device) - starts[flat[order]]
    return (place < capacity).view_as(chosen)


def expert_counts(chosen: Tensor, n_experts: int, mask_T: Tensor | None = None) -> Tensor:
    """How many tokens chose each expert, (E,) int64; tokens whose mask is False are left out."""
    counted = torch.ones_like(chosen) if mask_T is None else mask_T[:, None].expand_as(chosen).to(chosen.dtype)
    counts = torch.zeros(n_experts, dtype=chosen.dtype, device=chosen.device)
    return counts.scatter_add_(0, chosen.flatten(), counted.flatten())  # `bincount` would wait for a GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceTerm:
    """What a layer's balance loss is formed from, for one forward pass (S = 1) or each of its S sequences.

    `probabilities` (S, E) are the tokens' means, with a gradient; `counts` (S, E) the choices that took each expert.
    """

    probabilities: Tensor
    counts: Tensor

    @classmethod
    def of(
        cls, probabilities: Tensor, chosen: Tensor, mask_T: Tensor | None = None, sequences: int = 1
    ) -> "BalanceTerm":
        """From probabilities (T, E) and choices (T, K) of `sequences` equally long sequences, or of all as one."""
        n_experts = probabilities.shape[1]
        real = None if mask_T is None else mask_T.view(sequences, -1, 1)
        counts = _counts(chosen, n_experts, mask_T, sequences)
        grouped = probabilities.view(sequences, -1, n_experts)
        mean = grouped.mean(1) if real is None else (grouped * real).sum(1) / real.sum(1).clamp(min=1)
        return cls(probabilities=mean, counts=counts)


def _counts(chosen: Tensor, n_experts: int, mask_T: Tensor | None, sequences: int) -> Tensor:
    """How many tokens of each sequence chose each expert, (S, E) int64; masked tokens are left out."""
    counted = torch.ones_like(chosen) if mask_T is None else mask_T[:, None].expand_as(chosen).to(chosen.dtype)
    if chosen.is_cuda:
        return counts_by_marks(chosen, counted, n_experts, sequences)
    counts = chosen.new_zeros(sequences, n_experts)
    return counts.scatter_add_(1, chosen.view(sequences, -1), counted.reshape(sequences, -1))


def counts_by_marks(chosen: Tensor, counted: Tensor, n_experts: int, sequences: int) -> Tensor:
    """The same by marking (T, E) and adding up: a GPU's threads would queue for so few counters.

    A token chooses an expert once at most.
    """
    marks = torch.zeros(chosen.shape[0], n_experts, dtype=torch.int8, device=chosen.device)
    return marks.scatter_(1, chosen, counted.to(torch.int8)).view(sequences, -1, n_experts).sum(1)


def balance_from(probabilities: Tensor, counts: Tensor) -> Tensor:
    """E sum_i f_i p_i, (...), of mean probabilities and counts (..., E): f_i the share of choices that took expert i.

    1 at balance and E at collapse. The share f is K times smaller than in Hugging Face's version, whose value at
    balance is K (arXiv 2101.03961 has K = 1); the gradient flows through p alone.
    """
    share = counts.to(probabilities.dtype) * (counts.shape[-1] / counts.sum(-1, keepdim=True).clamp(min=1))
    return (probabilities * share).sum(-1)


def balance_loss(probabilities: Tensor, counts: Tensor, mask_T: Tensor | None = None) -> Tensor:
    """`balance_from` of the probabilities (T, E) of single tokens and the counts (E,) of all."""
    if mask_T is not None:
        probabilities = probabilities[mask_T]
    return balance_from(probabilities.sum(0) / max(probabilities.shape[0], 1), counts)


def router_z_loss(logits: Tensor, mask_T: Tensor | None = None) -> Tensor:
    """The mean over tokens of (log sum exp logits)^2 (ST-MoE, arXiv 2202.08906)."""
    squares = logits.logsumexp(-1).square()
    return squares.mean() if mask_T is None else squares[mask_T].sum() / mask_T.sum().clamp(min=1)

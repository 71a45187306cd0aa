"""What a MoE layer did with a batch, as one small detached record with stable names."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moelab.model.group_routing import GroupRouting
from moelab.model.router import TINY, Routing, balance_loss, expert_counts

NEAR_TIE = 1e-3
"""Two probabilities closer than this at the edge of the choice count as a near tie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRecord:
    """Statistics of one layer over one batch, padding left out. Entropies are divided by ln E: 1 is uniform.

    `load` (E,) is each expert's share of the choices; `max_violation` is max load / mean load - 1 (arXiv 2408.15664);
    `load_cv` the loads' standard deviation over their mean; `dead_experts` how many got no token; `token_entropy` the
    mean entropy of a token's probabilities; `marginal_entropy` that of the mean probabilities; `near_ties` the share
    of tokens whose last chosen and first rejected expert differ by less than `NEAR_TIE` in probability (with its
    balancing bias, where the choice was made with one), or whose last taken and first rejected group do; `drop_rate`
    the share of choices beyond capacity, or of tokens that no expert took (Expert Choice). `choices` (2, T) is what
    `churn` compares: each token's expert with the highest weight, and a number for the set of its experts.
    """

    load: Tensor
    max_violation: float
    load_cv: float
    dead_experts: float
    token_entropy: float
    marginal_entropy: float
    balance_loss: float
    near_ties: float
    drop_rate: float = 0.0
    choices: Tensor

    def summary(self) -> dict[str, float]:
        """The numbers without the loads and choices, by name."""
        return {
            "max_violation": self.max_violation,
            "load_cv": self.load_cv,
            "dead_experts": self.dead_experts,
            "token_entropy": self.token_entropy,
            "marginal_entropy": self.marginal_entropy,
            "balance_loss": self.balance_loss,
            "near_ties": self.near_ties,
            "drop_rate": self.drop_rate,
        }


@torch.no_grad()
def record_routing(routing: Routing, mask_T: Tensor | None = None, kept_TK: Tensor | None = None) -> RoutingRecord:
    """Measure a token-choice routing; `kept` marks the choices that fit into capacity."""
    n_experts = routing.scores.shape[1]
    counts = expert_counts(routing.chosen, n_experts, mask_T)
    probabilities = routing.probabilities()
    if mask_T is not None:
        probabilities = probabilities[mask_T]
    log_experts = math.log(max(n_experts, 2))
    near = torch.zeros(())
    tied = [_ties(edge / (routing.scores.sum(-1, keepdim=True) + TINY)) for edge in routing.edges()]
    if tied:
        either = torch.stack(tied).any(0)
        near = (either if mask_T is None else either[mask_T]).float().mean()
    return RoutingRecord(
        **_load_statistics(counts),
        token_entropy=float(_entropy(probabilities).mean()) / log_experts,
        marginal_entropy=float(_entropy(probabilities.mean(0))) / log_experts,
        balance_loss=float(balance_loss(probabilities, counts)),
        near_ties=float(near),
        drop_rate=0.0
        if kept_TK is None
        else 1 - float((kept_TK if mask_T is None else kept_TK[mask_T]).float().mean()),
        choices=_choices_of(routing, mask_T),
    )


@torch.no_grad()
def record_group_routing(routing: GroupRouting) -> RoutingRecord:
    """Measure a routing of groups. `drop_rate` is the share of tokens that no expert reads.

    Mixing reads every token with every expert, so its load is even; its `token_entropy` is that of the weights with
    which an expert reads a group's tokens, over ln G. Expert Choice has entropies over the experts as token choice
    has, and its `near_ties` are the choices of an expert that all but went to another token of the group.
    """
    n_experts = routing.weights.shape[2]
    weights = routing.weights.float().flatten(2)
    unread = float(((weights.sum(-1) == 0) & routing.real).sum() / routing.real.sum().clamp(min=1))
    if routing.scores is not None:
        return _record_expert_choice(weights, routing.real, routing.scores, unread)
    size = max(weights.shape[1], 2)
    shares = weights / weights.sum(1, keepdim=True).clamp(min=1e-30)
    entropy = _entropy(shares.mT)[routing.real.any(1)].mean() / torch.log(torch.tensor(float(size)))
    return RoutingRecord(
        load=torch.full((n_experts,), 1 / n_experts),
        max_violation=0.0,
        load_cv=0.0,
        dead_experts=0.0,
        token_entropy=float(entropy),
        marginal_entropy=1.0,
        balance_loss=1.0,
        near_ties=0.0,
        drop_rate=unread,
        choices=routing.weights.float().sum(-1)[routing.real].argmax(-1).expand(2, -1).cpu(),
    )


def _record_expert_choice(weights: Tensor, real: Tensor, scores: Tensor, unread: float) -> RoutingRecord:
    """From the gates of the taken tokens (0 elsewhere) and the scores of all, (N, G, E) both."""
    n_experts = scores.shape[-1]
    counts = (weights > 0).sum((0, 1))
    probabilities = scores[real]
    log_experts = math.log(max(n_experts, 2))
    lowest = torch.where(weights > 0, scores, torch.inf).amin(1)
    best_left = torch.where((weights == 0) & real[..., None], scores, -torch.inf).amax(1)
    near = (lowest - best_left < NEAR_TIE)[real.any(1)].float().mean()
    return RoutingRecord(
        **_load_statistics(counts),
        token_entropy=float(_entropy(probabilities).mean()) / log_experts,
        marginal_entropy=float(_entropy(probabilities.mean(0))) / log_experts,
        balance_loss=float(balance_loss(probabilities, counts)),
        near_ties=float(near),
        drop_rate=unread,
        choices=_choices_of_taken(weights[real]),
    )


def churn(before_2T: Tensor, after_2T: Tensor) -> dict[str, float]:
    """The shares of tokens whose set of experts (`churn`) and whose first expert (`churn_top`) changed.

    The `choices` of two records of one batch. Where all tokens are mixed by all experts, the set is the first expert.
    """
    changed = (before_2T != after_2T).float().mean(1)
    return {"churn": float(changed[1]), "churn_top": float(changed[0])}


def _choices_of(routing: Routing, mask_T: Tensor | None) -> Tensor:
    """(2, T) of a token choice, padding left out."""
    first = routing.chosen.gather(1, routing.scores.gather(1, routing.chosen).argmax(1, keepdim=True))[:, 0]
    sets = _set_numbers(routing.scores.shape[1], routing.scores)[routing.chosen].sum(1)
    both = torch.stack((first, sets))
    return (both if mask_T is None else both[:, mask_T]).cpu()


def _choices_of_taken(weights_TE: Tensor) -> Tensor:
    """(2, T) where experts took tokens with these weights, 0 where they did not."""
    numbers = _set_numbers(weights_TE.shape[1], weights_TE)
    return torch.stack((weights_TE.argmax(-1), ((weights_TE > 0) * numbers).sum(-1))).cpu()


def _set_numbers(n_experts: int, like: Tensor) -> Tensor:
    """64 random bits for each expert, (E,): their sum (modulo 2^64) names a set of experts, in whatever order."""
    bits = torch.randint(-(2**63), 2**63 - 1, (n_experts,), generator=torch.Generator().manual_seed(0))
    return bits.to(like.device)


def _load_statistics(counts: Tensor) -> dict[str, Any]:
    """The fields of a record that follow from how many choices each expert got, (E,)."""
    load = counts.float() / counts.sum().clamp(min=1)
    relative = load * len(counts)
    return {
        "load": load.cpu(),
        "max_violation": float(relative.max() - 1),
        "load_cv": float(relative.std(correction=0)),
        "dead_experts": float((counts == 0).sum()),
    }


def _ties(edge_T2: Tensor) -> Tensor:
    """Where the last chosen and the first rejected are all but equal, (T,)."""
    return edge_T2[:, 0] - edge_T2[:, 1] < NEAR_TIE


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(-1)

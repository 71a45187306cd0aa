"""What a MoE layer did with a batch, as one small detached record with stable names."""

from dataclasses import dataclass

import torch
from torch import Tensor

from moelab.model.router import Routing, balance_loss, expert_counts

NEAR_TIE = 1e-3
"""Two probabilities closer than this at the edge of the choice count as a near tie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRecord:
    """Statistics of one layer over one batch, padding left out. Entropies are divided by ln E: 1 is uniform.

    `load` (E,) is each expert's share of the choices; `max_violation` is max load / mean load - 1 (arXiv 2408.15664);
    `load_cv` the loads' standard deviation over their mean; `dead_experts` how many got no token; `token_entropy` the
    mean entropy of a token's probabilities; `marginal_entropy` that of the mean probabilities; `near_ties` the share
    of tokens whose last chosen and first rejected expert differ by less than `NEAR_TIE` in probability.
    """

    load: Tensor
    max_violation: float
    load_cv: float
    dead_experts: float
    token_entropy: float
    marginal_entropy: float
    balance_loss: float
    near_ties: float

    def summary(self) -> dict[str, float]:
        """The numbers without the loads, by name."""
        return {
            "max_violation": self.max_violation,
            "load_cv": self.load_cv,
            "dead_experts": self.dead_experts,
            "token_entropy": self.token_entropy,
            "marginal_entropy": self.marginal_entropy,
            "balance_loss": self.balance_loss,
            "near_ties": self.near_ties,
        }


@torch.no_grad()
def record_routing(routing: Routing, mask_T: Tensor | None = None) -> RoutingRecord:
    """Measure a token-choice routing."""
    n_experts, top_k = routing.scores.shape[1], routing.chosen.shape[1]
    counts = expert_counts(routing.chosen, n_experts, mask_T)
    probabilities = routing.probabilities()
    if mask_T is not None:
        probabilities = probabilities[mask_T]
    load = counts.float() / counts.sum().clamp(min=1)
    relative = load * n_experts
    log_experts = torch.log(torch.tensor(float(max(n_experts, 2)))).item()
    near = torch.zeros(())
    if top_k < n_experts:
        edge = probabilities.topk(top_k + 1, dim=-1).values[:, -2:]
        near = (edge[:, 0] - edge[:, 1] < NEAR_TIE).float().mean()
    return RoutingRecord(
        load=load.cpu(),
        max_violation=float(relative.max() - 1),
        load_cv=float(relative.std(correction=0)),
        dead_experts=float((counts == 0).sum()),
        token_entropy=float(_entropy(probabilities).mean()) / log_experts,
        marginal_entropy=float(_entropy(probabilities.mean(0))) / log_experts,
        balance_loss=float(balance_loss(probabilities, counts)),
        near_ties=float(near),
    )


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(-1)

"""The MoE layer: router -> dispatch -> experts -> combine, plus shared experts that every token uses."""

from dataclasses import dataclass

from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.model.dispatch import dispatch_experts
from moelab.model.feed_forward import Experts, FeedForward
from moelab.model.router import TopKRouter, balance_loss, expert_counts, router_z_loss
from moelab.model.routing_record import RoutingRecord, record_routing


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOutput:
    """What a MoE layer returns beside its output: unweighted auxiliary losses (training) and a record (on request)."""

    balance: Tensor | None = None
    router_z: Tensor | None = None
    record: RoutingRecord | None = None


class MoELayer(nn.Module):
    """Replaces the feed-forward of a layer. `dispatch` names the back end that runs the experts."""

    def __init__(self, config: ModelConfig, dispatch: str) -> None:
        super().__init__()
        moe = config.moe
        assert moe is not None
        self.config, self.activation, self.dispatch = moe, config.activation, dispatch
        self.router = TopKRouter(config.d_model, moe)
        self.experts = Experts(moe.n_experts, config.d_model, moe.d_expert, config.activation)
        if moe.n_shared_experts:
            self.shared_experts = FeedForward(config.d_model, moe.d_shared, config.activation)

    def forward(
        self, x_BTD: Tensor, mask_BT: Tensor | None = None, *, losses: bool = False, record: bool = False
    ) -> tuple[Tensor, RoutingOutput]:
        """x (B, T, D) -> (B, T, D). Tokens where `mask` is False are routed but never counted."""
        x_TD = x_BTD.flatten(0, 1)
        mask_T = None if mask_BT is None else mask_BT.flatten()
        routing = self.router(x_TD)
        y_TD = dispatch_experts(self.dispatch, x_TD, self.experts, routing.chosen, routing.gates, self.activation)
        if self.config.n_shared_experts:
            y_TD = y_TD + self.shared_experts(x_TD)
        balance = router_z = None
        if losses and self.config.balance_loss:
            counts = expert_counts(routing.chosen, self.config.n_experts, mask_T)
            probabilities = routing.scores if self.config.score == "softmax" else routing.probabilities()
            balance = balance_loss(probabilities, counts, mask_T)
        if losses and self.config.z_loss:
            router_z = router_z_loss(routing.logits, mask_T)
        measured = record_routing(routing, mask_T) if record else None
        return y_TD.view_as(x_BTD), RoutingOutput(balance=balance, router_z=router_z, record=measured)

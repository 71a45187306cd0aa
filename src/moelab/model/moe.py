"""The MoE layer: router -> dispatch -> experts -> combine, plus shared experts that every token uses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from moelab.architecture import ModelConfig, MoEConfig
from moelab.errors import InputError
from moelab.model.dispatch import dispatch_experts, dispatch_scaled_inputs
from moelab.model.feed_forward import Experts, FeedForward, activation_of
from moelab.model.group_routing import ExpertChoiceRouter, GroupRouter, MixtureOfTokensRouter, SoftRouter
from moelab.model.hash_router import HashRouter, TokenContext
from moelab.model.linear import Linear, PlainLinear
from moelab.model.precision import full_precision
from moelab.model.recompute import recomputing
from moelab.model.router import (
    BalanceTerm,
    Routing,
    TopKRouter,
    expert_counts,
    router_z_loss,
    within_capacity,
)
from moelab.model.routing_record import RoutingRecord, record_group_routing, record_routing


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOutput:
    """What a MoE layer returns beside its output: what unweighted auxiliary losses need, and a record (on request)."""

    balance: BalanceTerm | None = None
    router_z: Tensor | None = None
    record: RoutingRecord | None = None


class MoELayer(nn.Module):
    """Replaces the feed-forward of a layer. `dispatch` names the back end that runs the experts.

    While `leak_free` is set, no token sees another: no capacity, and routers that work on groups choose token by token.
    `layer` is the layer's number, which decides where the first MoE layers route by a hash.
    """

    def __init__(self, config: ModelConfig, dispatch: str, layer: int | None = None) -> None:
        super().__init__()
        moe = config.moe
        assert moe is not None
        self.config, self.activation, self.dispatch = moe, activation_of(config), dispatch
        self.leak_free = False
        self.router = make_router(config, layer)
        width = moe.d_latent or config.d_model
        self.experts = Experts(moe.n_experts, width, moe.d_expert, self.activation, moe.expert_bias)
        if moe.d_latent:
            self.to_latent = Linear(config.d_model, width, bias=False)
            self.from_latent = Linear(width, config.d_model, bias=False)
        if moe.n_shared_experts:
            self.shared_experts = FeedForward(config.d_model, moe.d_shared, self.activation)
        if moe.shared_gate:
            self.shared_router = PlainLinear(config.d_model, 1, bias=False)
        if moe.output_norm:
            self.output_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)

    def forward(
        self,
        x_BTD: Tensor,
        mask_BT: Tensor | None = None,
        *,
        context: TokenContext | None = None,
        losses: str | None = None,
        record: bool = False,
    ) -> tuple[Tensor, RoutingOutput]:
        """x (B, T, D) -> (B, T, D). `losses`: the balance loss over the `batch` or over each `sequence`; None for none.

        Tokens where `mask` is False are never counted, and never mixed into others.
        """
        latent = self.to_latent(x_BTD) if self.config.d_latent else None
        if isinstance(self.router, GroupRouter) and not self.leak_free:
            y_BTD, grouped = self.router(x_BTD, self.experts, self.activation, mask_BT, latent_BTL=latent)
            output = RoutingOutput(record=record_group_routing(grouped) if record else None)
        else:
            y_BTD, output = self._token_by_token(x_BTD, latent, mask_BT, context, losses, record)
        if latent is not None:
            y_BTD = self.from_latent(y_BTD)
        if self.config.output_norm:
            y_BTD = self.output_norm(y_BTD)
        if self.config.n_shared_experts:
            y_BTD = y_BTD + self._shared(x_BTD)
        return y_BTD, output

    def _token_by_token(
        self,
        x_BTD: Tensor,
        latent_BTL: Tensor | None,
        mask_BT: Tensor | None,
        context: TokenContext | None,
        losses: str | None,
        record: bool,
    ) -> tuple[Tensor, RoutingOutput]:
        x_TD = x_BTD.flatten(0, 1)
        rows_TD = x_TD if latent_BTL is None else latent_BTL.flatten(0, 1)
        mask_T = None if mask_BT is None else mask_BT.flatten()
        routing = self._route(x_TD, context)
        kept = None
        if self.config.capacity_factor and not self.leak_free:
            by_score = routing.gates if self.config.capacity_drop == "score" else None
            kept = within_capacity(routing.chosen, self.config.n_experts, self.config.capacity_factor, mask_T, by_score)
            routing = replace(routing, gates=routing.gates * kept)
        y_TD = self._run_experts(rows_TD, routing, kept)
        measured = record_routing(routing, mask_T, kept) if record else None
        sequences = x_BTD.shape[0] if losses == "sequence" else 1
        balance, router_z = self._losses(routing, mask_T, sequences) if losses else (None, None)
        y_BTD = y_TD.view(*x_BTD.shape[:2], -1)
        return y_BTD, RoutingOutput(balance=balance, router_z=router_z, record=measured)

    def _run_experts(self, x_TD: Tensor, routing: Routing, kept: Tensor | None) -> Tensor:
        chosen, gates = routing.chosen, routing.gates
        if self.config.input_gates:
            return dispatch_scaled_inputs(self.dispatch, x_TD, self.experts, chosen, gates, kept, self.activation)
        return dispatch_experts(self.dispatch, x_TD, self.experts, chosen, gates, self.activation)

    def _losses(
        self, routing: Routing, mask_T: Tensor | None, sequences: int
    ) -> tuple[BalanceTerm | None, Tensor | None]:
        """Balance term and z loss of a learned token choice; the load that moves the biases is noted on the way."""
        if not isinstance(self.router, TopKRouter):
            return None, None
        balance = router_z = None
        if self.config.balance_loss:
            probabilities = routing.scores if self.config.score == "softmax" else routing.probabilities()
            balance = BalanceTerm.of(probabilities, routing.chosen, mask_T, sequences)
        if self.config.bias_update and torch.is_grad_enabled() and not recomputing():
            self.router.load += expert_counts(routing.chosen, self.config.n_experts, mask_T)
        if self.config.z_loss:
            router_z = router_z_loss(routing.logits, mask_T)
        return balance, router_z

    def _route(self, x_TD: Tensor, context: TokenContext | None) -> Routing:
        if isinstance(self.router, GroupRouter):
            return self.router.token_routing(x_TD)
        if isinstance(self.router, HashRouter):
            if context is None:
                raise InputError(f"router: {self.config.router} routes by token ids, and none were given")
            return self.router(context)
        return self.router(x_TD)

    def _shared(self, x_BTD: Tensor) -> Tensor:
        y: Tensor = self.shared_experts(x_BTD)
        if not self.config.shared_gate:
            return y
        with torch.autocast(x_BTD.device.type, enabled=False):
            gate = self.shared_router(full_precision(x_BTD)).sigmoid()
        return (y * gate).to(y.dtype)


def _by_id(d_model: int, moe: MoEConfig) -> HashRouter:
    return HashRouter(moe)


ROUTER_MODULES: dict[str, Callable[[int, MoEConfig], nn.Module]] = {
    "token_choice": TopKRouter,
    "expert_choice": ExpertChoiceRouter,
    "hash": _by_id,
    "word": _by_id,
    "random": _by_id,
    "soft": SoftRouter,
    "mixture_of_tokens": MixtureOfTokensRouter,
}
"""The module of every router of `architecture/routers.py`."""


def make_router(config: ModelConfig, layer: int | None = None) -> nn.Module:
    """The router a config names; in the first `hash_layers` MoE layers a hash of the token's id."""
    assert config.moe is not None
    if layer is not None and config.moe.hash_layers and config.moe_layers_before(layer) < config.moe.hash_layers:
        return HashRouter(config.moe.hashed)
    return ROUTER_MODULES[config.moe.router](config.d_model, config.moe)


@contextmanager
def leak_free(model: nn.Module) -> Iterator[None]:
    """Within this block no token's output depends on later tokens or on other sequences, whatever the router.

    Capacity is lifted; Expert Choice, soft MoE and Mixture of Tokens choose experts token by token with the same
    weights (mixing off).
    """
    layers = [module for module in model.modules() if isinstance(module, MoELayer)]
    before = [layer.leak_free for layer in layers]
    try:
        for layer in layers:
            layer.leak_free = True
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.leak_free = value


def decodes_as_trained(config: ModelConfig) -> bool:
    """Whether one token of every sequence at a time routes as the whole sequences do: no group spans positions."""
    moe = config.moe
    return not leaks(config) or (moe is not None and not moe.capacity_factor and moe.grouping != "sequence")


def leaks(config: ModelConfig) -> bool:
    """Whether this architecture, as trained, can let one token's output depend on later tokens or other sequences.

    Not a capacity with room for all tokens (factor E/K or more), groups of one token, or experts that all take all.
    """
    moe = config.moe
    if moe is None:
        return False
    if moe.traits.grouped:
        takes_all = moe.router == "expert_choice" and moe.top_k == moe.n_experts
        return moe.group_size != 1 and not takes_all
    return moe.capacity_factor is not None and moe.capacity_factor * moe.top_k < moe.n_experts

"""The dense feed-forward: gate and up projections as one matrix, an activation, the down projection."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.architecture.config import GATED
from moelab.model.exchange import Exchange
from moelab.model.linear import PlainLinear
from moelab.model.native import usable
from moelab.model.native.ops import Experts as NativeExperts

_NATIVE_ELEMENTS = 2**18
"""Largest dense down projection that goes through the compiled kernel: above it the library's products are faster."""


SWIGLU_ALPHA = 1.702
"""gpt-oss's `clamped_swiglu` gates by sigmoid(1.702 gate)."""


def activation_of(config: ModelConfig) -> str:
    """The activation's name, with its limit behind an @ where there is one: `swiglu`, `clamped_swiglu@7.0`."""
    return f"{config.activation}@{config.swiglu_limit}" if config.swiglu_limit else config.activation


def activate(h: Tensor, activation: str) -> Tensor:
    """Gated activations halve the last dimension, act(gate) * up; relu and gelu (exact) keep it.

    `swiglu` is silu(gate) up, `geglu` gelu(gate, tanh) up, `clamped_swiglu` gate sigmoid(1.702 gate) (up + 1). A limit
    bounds the gate from above and up on both sides.
    """
    if activation == "swiglu":
        gate, up = h.chunk(2, -1)
        return F.silu(gate) * up
    if not is_gated(activation):
        return F.relu(h) if activation == "relu" else F.gelu(h)
    name, gate, up, _ = _halves(h, activation)
    if name == "geglu":
        return F.gelu(gate, approximate="tanh") * up
    if name == "clamped_swiglu":
        return gate * torch.sigmoid(SWIGLU_ALPHA * gate) * (up + 1)
    return F.silu(gate) * up


def activation_backward(d_act: Tensor, h: Tensor, activation: str) -> Tensor:
    """The gradient with respect to h of `activate(h)`, without writing in place: torch.compile takes it."""
    if activation == "relu":
        return torch.ops.aten.threshold_backward(d_act, h, 0)
    if activation == "gelu":
        return torch.ops.aten.gelu_backward(d_act, h)
    name, gate, up, limit = _halves(h, activation)
    if name == "geglu":
        d_gate = torch.ops.aten.gelu_backward(d_act * up, gate, approximate="tanh")
        d_up = d_act * F.gelu(gate, approximate="tanh")
    elif name == "clamped_swiglu":
        share = torch.sigmoid(SWIGLU_ALPHA * gate)
        d_gate = d_act * (up + 1) * share * (1 + SWIGLU_ALPHA * gate * (1 - share))
        d_up = d_act * gate * share
    else:
        d_gate, d_up = torch.ops.aten.silu_backward(d_act * up, gate), d_act * F.silu(gate)
    if limit is not None:
        whole_gate, whole_up = h.chunk(2, -1)
        d_gate, d_up = d_gate * (whole_gate <= limit), d_up * (whole_up.abs() <= limit)
    return torch.cat((d_gate, d_up), -1)


def _halves(h: Tensor, activation: str) -> tuple[str, Tensor, Tensor, float | None]:
    """The activation's name, gate and up within its limit, and the limit."""
    name, _, written = activation.partition("@")
    gate, up = h.chunk(2, -1)
    if not written:
        return name, gate, up, None
    limit = float(written)
    return name, gate.clamp(max=limit), up.clamp(-limit, limit), limit


def is_gated(activation: str) -> bool:
    """Whether the first matrix has a gate's rows and an up projection's."""
    return activation.partition("@")[0] in GATED


def first_width(width: int, activation: str) -> int:
    """Rows of the first matrix of a feed-forward of hidden width `width`."""
    return 2 * width if is_gated(activation) else width


class FeedForward(nn.Module):
    """x (..., D) -> down(act(first x)); with a gated activation `gate_up_proj` holds the gate's rows, then the up's."""

    def __init__(self, d_model: int, width: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.first_name = "gate_up_proj" if is_gated(activation) else "up_proj"
        self.add_module(self.first_name, PlainLinear(d_model, first_width(width, activation), bias=False))
        self.down_proj = PlainLinear(width, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        small = self.down_proj.weight.numel() <= _NATIVE_ELEMENTS
        if small and self.activation == "swiglu" and usable(x, self.down_proj.weight):
            first = self.get_parameter(f"{self.first_name}.weight")
            y: Tensor = NativeExperts.apply(x.flatten(0, -2), first[None], self.down_proj.weight[None], None, None)
            return y.view_as(x)
        return self.down_proj(activate(self.get_submodule(self.first_name)(x), self.activation))


class Experts(nn.Module):
    """E feed-forwards stacked: first (E, 2F or F, D), gate's rows before up's, and down (E, D, F).

    The layout is that of transformers 5 (`experts.gate_up_proj`, `experts.down_proj`). With `bias` both matrices have
    one, (E, 2F or F) and (E, D), named like them with `_bias`. Where processes share the experts out, each holds E of
    them and `exchange` sends rows to their owners.
    """

    exchange: Exchange | None = None
    copies: dict[str, Tensor] | None = None

    def __init__(self, n_experts: int, d_model: int, d_expert: int, activation: str, bias: bool = False) -> None:
        super().__init__()
        self.first_name = "gate_up_proj" if is_gated(activation) else "up_proj"
        first = torch.empty(n_experts, first_width(d_expert, activation), d_model)
        self.register_parameter(self.first_name, nn.Parameter(first))
        self.down_proj = nn.Parameter(torch.empty(n_experts, d_model, d_expert))
        self.has_bias = bias
        if bias:
            self.register_parameter(f"{self.first_name}_bias", nn.Parameter(torch.empty(first.shape[:2])))
            self.down_proj_bias = nn.Parameter(torch.empty(n_experts, d_model))

    def forward(self, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """compute(self, *inputs): whoever reads the weights goes through here, where weights that are sharded over
        processes become whole for as long as it takes."""
        return compute(self, *inputs)

    @property
    def biases(self) -> tuple[Tensor, Tensor] | None:
        """The biases of the first and the second matrices, where there are any."""
        return (self.get_parameter(f"{self.first_name}_bias"), self.down_proj_bias) if self.has_bias else None

    @property
    def first(self) -> Tensor:
        """The stacked first matrices."""
        return self.get_parameter(self.first_name)

    def weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The stacked matrices in this dtype; within `shared_copies` they are cast once, and gradients are added up in
        the weights' own dtype."""
        return self._in(dtype, self.first_name), self._in(dtype, "down_proj")

    def _in(self, dtype: torch.dtype, name: str) -> Tensor:
        weight = self.get_parameter(name)
        if weight.dtype == dtype or self.copies is None:
            return weight.to(dtype)
        if name not in self.copies:
            if torch.compiler.is_compiling():  # a graph takes copies that are there, and makes none that outlive it
                return weight.to(dtype)
            self.copies[name] = weight.detach().to(dtype)
        copy: Tensor = _Copy.apply(weight, self.copies[name])
        return copy

    def make_copies(self, dtype: torch.dtype) -> None:
        """Both matrices in this dtype, before a compiled layer asks for them."""
        weights = {name: self.get_parameter(name).detach() for name in (self.first_name, "down_proj")}
        self.copies = {name: weight.to(dtype) for name, weight in weights.items() if weight.dtype != dtype}


@contextmanager
def shared_copies(model: nn.Module, compiled: torch.dtype | None = None) -> Iterator[None]:
    """Within this block no weight changes and one dtype is computed in: every pass shares one copy of the experts.

    It is made by the first pass that asks for it; for `compiled` layers, which compute in this dtype, at once.
    """
    stacks = [module for module in model.modules() if isinstance(module, Experts)]
    for experts in stacks:
        experts.copies = {}
        if compiled is not None:
            experts.make_copies(compiled)
    try:
        yield
    finally:
        for experts in stacks:
            experts.copies = None


class _Copy(torch.autograd.Function):
    """A copy in another dtype, made before; its gradient is the weight's."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, copy: Tensor) -> Tensor:
        ctx.dtype = weight.dtype
        return copy.view_as(copy)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].to(ctx.dtype), None

"""The dense feed-forward: gate and up projections as one matrix, an activation, the down projection."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moelab.architecture.config import Activation
from moelab.model.native import usable
from moelab.model.native.ops import Experts as NativeExperts

_NATIVE_ELEMENTS = 2**18
"""Largest dense down projection that goes through the compiled kernel: above it the library's products are faster."""


def activate(h: Tensor, activation: str) -> Tensor:
    """SwiGLU halves the last dimension, silu(gate) * up; relu and gelu (exact) keep it."""
    if activation == "swiglu":
        gate, up = h.chunk(2, -1)
        return F.silu(gate) * up
    return F.relu(h) if activation == "relu" else F.gelu(h)


def activation_backward(d_act: Tensor, h: Tensor, activation: str) -> Tensor:
    """The gradient with respect to h of `activate(h)`, without writing in place: torch.compile takes it."""
    if activation == "relu":
        return torch.ops.aten.threshold_backward(d_act, h, 0)
    if activation == "gelu":
        return torch.ops.aten.gelu_backward(d_act, h)
    gate, up = h.chunk(2, -1)
    return torch.cat((torch.ops.aten.silu_backward(d_act * up, gate), d_act * F.silu(gate)), -1)


def first_width(width: int, activation: str) -> int:
    """Rows of the first matrix of a feed-forward of hidden width `width`."""
    return 2 * width if activation == "swiglu" else width


class FeedForward(nn.Module):
    """x (..., D) -> down(act(first x)); with swiglu `gate_up_proj` holds the gate's rows, then the up's."""

    def __init__(self, d_model: int, width: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.first_name = "gate_up_proj" if activation == "swiglu" else "up_proj"
        self.add_module(self.first_name, nn.Linear(d_model, first_width(width, activation), bias=False))
        self.down_proj = nn.Linear(width, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        small = self.down_proj.weight.numel() <= _NATIVE_ELEMENTS
        if small and self.activation == "swiglu" and usable(x, self.down_proj.weight):
            first = self.get_parameter(f"{self.first_name}.weight")
            y: Tensor = NativeExperts.apply(x.flatten(0, -2), first[None], self.down_proj.weight[None], None, None)
            return y.view_as(x)
        return self.down_proj(activate(self.get_submodule(self.first_name)(x), self.activation))


class Experts(nn.Module):
    """E feed-forwards stacked: first (E, 2F or F, D), gate's rows before up's, and down (E, D, F).

    The layout is that of transformers 5 (`experts.gate_up_proj`, `experts.down_proj`).
    """

    def __init__(self, n_experts: int, d_model: int, d_expert: int, activation: Activation) -> None:
        super().__init__()
        self.first_name = "gate_up_proj" if activation == "swiglu" else "up_proj"
        first = torch.empty(n_experts, first_width(d_expert, activation), d_model)
        self.register_parameter(self.first_name, nn.Parameter(first))
        self.down_proj = nn.Parameter(torch.empty(n_experts, d_model, d_expert))

    @property
    def first(self) -> Tensor:
        """The stacked first matrices."""
        return self.get_parameter(self.first_name)

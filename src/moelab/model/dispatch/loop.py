"""The reference: one expert after another, each on the rows that chose it. Every other back end must equal it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.model.feed_forward import activate
from moelab.model.precision import full_precision


def dispatch_loop(
    x_TD: Tensor,
    first: Tensor,
    down: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    activation: str,
    biases: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """sum_k gate_k expert_k(x), (T, D)."""
    dtype, x_TD = x_TD.dtype, full_precision(x_TD)
    y_TD = torch.zeros_like(x_TD)
    for expert in range(first.shape[0]):
        rows, slot = torch.where(chosen_TK == expert)
        bias, down_bias = (None, None) if biases is None else (biases[0][expert], biases[1][expert])
        h = activate(F.linear(x_TD[rows].to(dtype), first[expert], bias), activation)
        y = F.linear(h, down[expert], down_bias) * gates_TK[rows, slot, None].to(x_TD.dtype)
        y_TD = y_TD.index_add(0, rows, y)
    return y_TD.to(dtype)

"""Batched products: every expert's rows are padded to the fullest expert's number, then two `bmm` do all of them."""

import torch
from torch import Tensor

from moelab.model.dispatch.permutation import sort_by_expert
from moelab.model.feed_forward import activate
from moelab.model.precision import full_precision


def dispatch_padded(
    x_TD: Tensor,
    first: Tensor,
    down: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    activation: str,
    biases: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """sum_k gate_k expert_k(x), (T, D). Padding costs time and memory in proportion to the imbalance."""
    n_experts = first.shape[0]
    order, token, counts = sort_by_expert(chosen_TK, n_experts)
    capacity = max(int(counts.max()), 1)
    starts = counts.cumsum(0) - counts
    expert = chosen_TK.flatten()[order]
    place = expert * capacity + torch.arange(len(order), device=order.device) - starts[expert]
    x_RD = full_precision(x_TD)[token].to(x_TD.dtype)
    padded = x_TD.new_zeros(n_experts * capacity, x_TD.shape[1]).index_copy(0, place, x_RD)
    h = torch.bmm(padded.view(n_experts, capacity, -1), first.mT)
    h = activate(h if biases is None else h + biases[0][:, None], activation)
    y = torch.bmm(h, down.mT)
    y = (y if biases is None else y + biases[1][:, None]).flatten(0, 1)[place]
    y = y * gates_TK.flatten()[order, None].to(full_precision(y[:0]).dtype)
    return torch.zeros(x_TD.shape, dtype=y.dtype, device=y.device).index_add(0, token, y).to(x_TD.dtype)

"""The CPU path: rows sorted by expert once, each expert's products written straight into preallocated tensors.

One autograd function for the whole layer: no per-expert autograd nodes, no full-size weight gradient per expert, the
gates folded into the hidden activations (narrower than the output), and gate and up as one product.
"""

from typing import Any

import torch
from torch import Tensor

from moelab.model.dispatch.gated import gated, gated_backward, weighted
from moelab.model.dispatch.permutation import combine_rows, places, sort_by_expert
from moelab.model.feed_forward import activate, activation_backward
from moelab.model.precision import full_precision


def dispatch_sorted(
    x_TD: Tensor,
    first: Tensor,
    down: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    activation: str,
    biases: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """sum_k gate_k expert_k(x), (T, D)."""
    y: Tensor = _SortedExperts.apply(x_TD, first, down, chosen_TK, gates_TK, activation, *(biases or (None, None)))
    return y


class _SortedExperts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        first: Tensor,
        down: Tensor,
        chosen_TK: Tensor,
        gates_TK: Tensor,
        activation: str,
        first_bias: Tensor | None,
        down_bias: Tensor | None,
    ) -> Tensor:
        order, token, counts = sort_by_expert(chosen_TK, first.shape[0])
        sizes, halved = counts.tolist(), x_TD.element_size() < 4
        gates_R1 = gates_TK.flatten().index_select(0, order)[:, None].to(full_precision(x_TD[:0]).dtype)
        x_RD = x_TD.index_select(0, token)
        h = _products(x_RD, first.mT, sizes)
        if first_bias is not None:
            h += first_bias.repeat_interleave(counts, 0)
        act = None if halved else activate(h, activation)
        y_RD = _products(gated(h, gates_R1[:, 0], activation) if act is None else act * gates_R1, down.mT, sizes)
        if down_bias is not None:
            y_RD += weighted(down_bias.repeat_interleave(counts, 0), gates_R1[:, 0], h.dtype)
        place_TK = places(order, chosen_TK.shape[1]) if halved else None
        ctx.save_for_backward(x_RD, h, act, gates_R1, first, down, order, token, place_TK, down_bias)
        ctx.sizes, ctx.activation, ctx.shape = sizes, activation, gates_TK.shape
        return _sums_of_rows(y_RD, token, place_TK, x_TD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, h, act, gates_R1, first, down, order, token, place_TK, down_bias = ctx.saved_tensors
        sizes = ctx.sizes
        dy_RD = grads[0].index_select(0, token)
        d_gated = _products(dy_RD, down, sizes)
        if act is None:
            d_h, again, d_gates_R = gated_backward(d_gated, h, gates_R1[:, 0], ctx.activation)
        else:
            again, d_gates_R = act * gates_R1, _dots(d_gated, act)
            d_h = _activation_backward(d_gated.mul_(gates_R1), h, ctx.activation)
        d_biases: tuple[Tensor | None, ...] = (None, None)
        if down_bias is not None:
            d_gates_R += _dots(dy_RD, down_bias.repeat_interleave(torch.tensor(sizes), 0))
            d_biases = (_sums(d_h, sizes), _sums(weighted(dy_RD, gates_R1[:, 0], h.dtype), sizes))
        d_gates = torch.empty_like(d_gates_R)
        d_gates[order] = d_gates_R
        d_first, d_down = _weight_products(d_h, x_RD, sizes, first), _weight_products(dy_RD, again, sizes, down)
        d_x = _sums_of_rows(_products(d_h, first, sizes), token, place_TK, grads[0])
        return d_x, d_first, d_down, None, d_gates.view(ctx.shape).float(), None, *d_biases


def _sums_of_rows(y_RD: Tensor, token: Tensor, place_TK: Tensor | None, like_TD: Tensor) -> Tensor:
    """Each token's rows added up, (T, D): 16-bit rows by their places, in fp32."""
    if place_TK is not None:
        return combine_rows(y_RD, place_TK)
    return torch.zeros_like(like_TD).index_add_(0, token, y_RD)


def _dots(left: Tensor, right: Tensor) -> Tensor:
    """Each row's product with its like, (R,), in fp32 at least, also where the backward pass runs under autocast."""
    with torch.autocast(left.device.type, enabled=False):
        return torch.linalg.vecdot(full_precision(left), full_precision(right))


def _products(rows: Tensor, weights: Tensor, sizes: list[int]) -> Tensor:
    """Each expert's (n, I) rows times its (I, O) matrix, all in one (R, O) tensor."""
    out = rows.new_empty(rows.shape[0], weights.shape[2])
    for x, w, y in zip(rows.split(sizes), weights.unbind(), out.split(sizes), strict=True):
        torch.mm(x, w, out=y)
    return out


def _sums(rows: Tensor, sizes: list[int]) -> Tensor:
    """The sum of each expert's rows, (E, O)."""
    return torch.stack([part.sum(0) for part in rows.split(sizes)])


def _weight_products(left: Tensor, right: Tensor, sizes: list[int], like: Tensor) -> Tensor:
    """Each expert's left^T right, (E, O, I); zero for an expert without rows."""
    out = torch.empty_like(like)
    for a, b, w in zip(left.split(sizes), right.split(sizes), out.unbind(), strict=True):
        torch.mm(a.t(), b, out=w)
    return out


def _activation_backward(d_act: Tensor, h: Tensor, activation: str) -> Tensor:
    """The gradient with respect to h of `activate(h)`."""
    if activation != "swiglu":
        return activation_backward(d_act, h, activation)
    gate, up = h.chunk(2, -1)
    d_h = torch.empty_like(h)
    d_gate, d_up = d_h.chunk(2, -1)
    torch.mul(d_act, torch.nn.functional.silu(gate), out=d_up)
    torch.ops.aten.silu_backward.grad_input(d_act * up, gate, grad_input=d_gate)
    return d_h

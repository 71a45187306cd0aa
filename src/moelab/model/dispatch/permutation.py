"""Sorting routed rows by expert, which every fast back end begins with, and bringing rows there and back.

T tokens of width D, K chosen per token, E experts, R = T K routed rows.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.model import kernels
from moelab.model.kernels import ops


class Permutation(NamedTuple):
    """`order` (R,) lists the flattened (token, slot) pairs by expert; `token` (R,) their tokens; `counts` (E,)."""

    order: Tensor
    token: Tensor
    counts: Tensor


def sort_by_expert(chosen_TK: Tensor, n_experts: int) -> Permutation:
    """Stable: within an expert rows stay in token order, so results do not depend on the sort."""
    flat = chosen_TK.flatten()
    # A GPU sorts by digits: two bytes are a quarter of the passes of eight.
    keys = flat.to(torch.int16) if flat.is_cuda and n_experts < 2**15 else flat
    order = keys.argsort(stable=True)
    token = order.div(chosen_TK.shape[1], rounding_mode="floor")
    return Permutation(order, token, count(flat, n_experts))


def count(experts: Tensor, n_experts: int) -> Tensor:
    """How often each expert occurs in (R,), (E,) int64. Unlike `bincount` it does not wait for the device."""
    ones = torch.ones_like(experts)
    return torch.zeros(n_experts, dtype=experts.dtype, device=experts.device).scatter_add_(0, experts, ones)


def places(order: Tensor, top_k: int) -> Tensor:
    """The inverse permutation, (T, K): where in the sorted rows each token's k-th one stands."""
    rows = torch.arange(order.shape[0], device=order.device)
    return torch.empty_like(order).scatter_(0, order, rows).view(-1, top_k)


def spread_rows(x_TD: Tensor, token: Tensor | None, place_TK: Tensor) -> Tensor:
    """The row of every token at each of its places, (R, D); without their tokens the kernel has to run."""
    return ops.spread_rows(x_TD, place_TK) if token is None else x_TD.index_select(0, token)


def sum_rows(y_RD: Tensor, token: Tensor, n_tokens: int) -> Tensor:
    """The sum of each token's rows, however many it has, (T, D): row r is one of `token[r]` (R,). Rows are added up in
    fp32 in their order: nothing is atomic, and the host reads nothing."""
    order = token.argsort(stable=True)
    rows = y_RD.index_select(0, order).to(torch.promote_types(y_RD.dtype, torch.float32))
    sums = torch.segment_reduce(rows, "sum", lengths=count(token, n_tokens), axis=0, unsafe=True, initial=0)
    return sums.to(y_RD.dtype)


def combine_rows(y_RD: Tensor, place_TK: Tensor) -> Tensor:
    """The sum of every token's rows, (T, D), added up in fp32 in the order of K: nothing is atomic."""
    if kernels.usable(y_RD):
        return ops.combine_rows(y_RD, place_TK)
    if y_RD.device.type == "cpu" and y_RD.element_size() < 4:  # one pass, with sums in fp32
        return F.embedding_bag(place_TK, y_RD, mode="sum")
    rows = y_RD.index_select(0, place_TK.flatten()).view(*place_TK.shape, y_RD.shape[1])
    accumulated = torch.promote_types(y_RD.dtype, torch.float32)
    return rows.sum(1, dtype=accumulated).to(y_RD.dtype)


def read_rows(x_TD: Tensor, token: Tensor) -> Tensor:
    """x[token], (R, D). The gradients of a token's rows are added up in a fixed order, in fp32 at least."""
    if not sorts_sums(x_TD):
        return x_TD[token]
    rows: Tensor = _Read.apply(x_TD, token)
    return rows


def add_rows(y_RD: Tensor, token: Tensor, n_tokens: int) -> Tensor:
    """The sum of each token's rows, (T, D); of no token, one, or as many as there are experts. They are added up in a
    fixed order, in fp32 at least."""
    if not sorts_sums(y_RD):
        zeros = torch.zeros(n_tokens, y_RD.shape[1], dtype=y_RD.dtype, device=y_RD.device)
        return zeros.index_add(0, token, y_RD)
    sums: Tensor = _Add.apply(y_RD, token, n_tokens)
    return sums


def sorts_sums(x: Tensor) -> bool:
    """Whether rows are sorted before they are added up: `index_add` has no fixed order, or rounds sums to 16 bits."""
    return x.is_cuda or x.element_size() < 4


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, token: Tensor) -> Tensor:
        ctx.save_for_backward(token)
        ctx.n_tokens = x_TD.shape[0]
        return x_TD.index_select(0, token)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (token,) = ctx.saved_tensors
        return sum_rows(grads[0], token, ctx.n_tokens), None


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, token: Tensor, n_tokens: int) -> Tensor:
        ctx.save_for_backward(token)
        return sum_rows(y_RD, token, n_tokens)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0].index_select(0, *ctx.saved_tensors), None, None

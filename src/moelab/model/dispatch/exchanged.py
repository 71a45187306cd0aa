"""Experts of other processes: rows are sorted by expert, sent to the owners, computed there and brought back."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from moelab.model.dispatch.permutation import combine_rows, places, sort_by_expert, spread_rows
from moelab.model.exchange import Exchange


def dispatch_exchanged(
    compute: Callable[[Tensor, Tensor, Tensor], Tensor],
    exchange: Exchange,
    x_TD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    n_experts: int,
) -> Tensor:
    """sum_k gate_k expert_k(x), (T, D); `compute(x_RD, chosen_R1, gates_R1)` runs the experts of this process.

    Gates travel with the rows: the owner weighs what it computes, and no result of width D is kept for them. How many
    rows go where differs from step to step, so the host reads the counts of every layer.
    """
    order, token, counts = sort_by_expert(chosen_TK, n_experts)
    arriving = exchange.counts(counts)
    send, receive = counts.view(exchange.size, -1).sum(1).tolist(), arriving.sum(1).tolist()
    place_TK = places(order, chosen_TK.shape[1])
    rows_RD = _Spread.apply(x_TD, token, place_TK)
    x_RD, gates_R = exchange.rows(send, receive, rows_RD, gates_TK.flatten().index_select(0, order))
    own = torch.arange(arriving.shape[1], device=order.device).repeat(exchange.size)
    chosen_R = own.repeat_interleave(arriving.flatten())
    y_RD = compute(x_RD, chosen_R[:, None], gates_R[:, None])
    (returned_RD,) = exchange.rows(receive, send, y_RD)
    y_TD: Tensor = _Combine.apply(returned_RD, token, place_TK)
    return y_TD


class _Spread(torch.autograd.Function):
    """(T, D) -> (R, D): every token's row at each of its places. The gradient is their sum."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, token: Tensor, place_TK: Tensor) -> Tensor:
        ctx.save_for_backward(place_TK)
        return spread_rows(x_TD, token, place_TK)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return combine_rows(grads[0], *ctx.saved_tensors), None, None


class _Combine(torch.autograd.Function):
    """(R, D) -> (T, D): the sum of every token's rows. The gradient is the token's, at each of its places."""

    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, token: Tensor, place_TK: Tensor) -> Tensor:
        ctx.save_for_backward(token, place_TK)
        return combine_rows(y_RD, place_TK)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return spread_rows(grads[0], *ctx.saved_tensors), None, None

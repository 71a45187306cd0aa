"""Expert parallelism's transport: rows travel to the processes that own their experts and back, by autograd too.

S processes share the E experts of a layer out, E/S neighbours each, in the order of their ranks.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Exchange:
    """All-to-all among the processes of `group`; each calls the same methods in the same order."""

    def __init__(self, group: Any, size: int) -> None:
        self.group, self.size = group, size

    def counts(self, counts_E: Tensor) -> Tensor:
        """How many rows each process has for each expert of this one, (S, E/S), from this one's rows by expert (E,)."""
        arriving = torch.empty_like(counts_E)
        dist.all_to_all_single(arriving, counts_E, group=self.group)
        return arriving.view(self.size, -1)

    def rows(self, send: Sequence[int], receive: Sequence[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        """Of each tensor (R, ...), `send[s]` rows to process s, in order; `receive[s]` rows come from it."""
        found: tuple[Tensor, ...] = _Rows.apply(self.group, list(send), list(receive), *tensors)
        return found

    def to_experts(self, x_ERD: Tensor) -> Tensor:
        """(E, R, D) of every process -> (E/S, S R, D): all rows of the experts that this one owns."""
        own = x_ERD.shape[0] // self.size
        (arrived,) = self.rows([own] * self.size, [own] * self.size, x_ERD)
        return arrived.unflatten(0, (self.size, own)).transpose(0, 1).flatten(1, 2)

    def to_tokens(self, y_ERD: Tensor) -> Tensor:
        """The way back of `to_experts`."""
        own = y_ERD.shape[0]
        mine = y_ERD.unflatten(1, (self.size, -1)).transpose(0, 1).flatten(0, 1)
        (arrived,) = self.rows([own] * self.size, [own] * self.size, mine)
        return arrived


class _Rows(torch.autograd.Function):
    """The gradient of a row goes back to where the row came from."""

    @staticmethod
    def forward(ctx: Any, group: Any, send: list[int], receive: list[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.group, ctx.splits = group, (receive, send)
        return tuple(_all_to_all(tensor, send, receive, group) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        back, forth = ctx.splits
        return None, None, None, *(_all_to_all(grad, back, forth, ctx.group) for grad in grads)


def _all_to_all(tensor: Tensor, send: list[int], receive: list[int], group: Any) -> Tensor:
    arrived = tensor.new_empty(sum(receive), *tensor.shape[1:])
    dist.all_to_all_single(arrived, tensor.contiguous(), receive, send, group=group)
    return arrived

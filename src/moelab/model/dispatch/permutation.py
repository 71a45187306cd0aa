"""Sorting routed rows by expert, which every fast back end begins with."""

from typing import NamedTuple

import torch
from torch import Tensor


class Permutation(NamedTuple):
    """`order` (R,) lists the flattened (token, slot) pairs by expert; `token` (R,) their tokens; `counts` (E,)."""

    order: Tensor
    token: Tensor
    counts: Tensor


def sort_by_expert(chosen_TK: Tensor, n_experts: int) -> Permutation:
    """Stable: within an expert rows stay in token order, so results do not depend on the sort."""
    flat = chosen_TK.flatten()
    order = flat.argsort(stable=True)
    token = order.div(chosen_TK.shape[1], rounding_mode="floor")
    return Permutation(order, token, count(flat, n_experts))


def count(experts: Tensor, n_experts: int) -> Tensor:
    """How often each expert occurs in (R,), (E,) int64. Unlike `bincount` it does not wait for the device."""
    ones = torch.ones_like(experts)
    return torch.zeros(n_experts, dtype=experts.dtype, device=experts.device).scatter_add_(0, experts, ones)

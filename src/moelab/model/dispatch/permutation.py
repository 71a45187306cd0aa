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
    return Permutation(order, token, torch.bincount(flat, minlength=n_experts))

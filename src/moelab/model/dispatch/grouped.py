"""The library's grouped matrix product: one kernel for all experts, token counts stay on the device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.model.dispatch.permutation import sort_by_expert
from moelab.model.feed_forward import activate

_ALIGNMENT = 16
"""Bytes that every row stride must be a multiple of."""


def grouped_works(config: ModelConfig, dtype: torch.dtype) -> bool:
    """Whether `grouped_mm` takes this model: strides of whole 16 bytes, and not fp64."""
    if config.moe is None or dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return False
    return all(width * dtype.itemsize % _ALIGNMENT == 0 for width in (config.d_model, config.moe.d_expert))


def dispatch_grouped(
    x_TD: Tensor, first: Tensor, down: Tensor, chosen_TK: Tensor, gates_TK: Tensor, activation: str
) -> Tensor:
    """sum_k gate_k expert_k(x), (T, D). The last offset is always R, so no row is left uninitialised."""
    order, token, counts = sort_by_expert(chosen_TK, first.shape[0])
    offsets = counts.cumsum(0).to(torch.int32)
    h = activate(F.grouped_mm(x_TD.index_select(0, token), first.mT, offs=offsets), activation)
    h = h * gates_TK.flatten()[order, None].to(h.dtype)
    y = F.grouped_mm(h, down.mT, offs=offsets)
    return torch.zeros_like(x_TD).index_add(0, token, y)

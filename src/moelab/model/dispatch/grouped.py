"""The library's grouped matrix product: one kernel for all experts, token counts stay on the device.

One autograd function for the whole layer keeps the tokens and the experts' hidden rows: T D + 2 T K F numbers, which
do not grow with granularity (K F is constant). Sorted copies of the tokens and what follows the activation are made
again in the backward pass (as in SonicMoE, arXiv 2512.14080).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.model import kernels
from moelab.model.dispatch.gated import gated, gated_backward, weighted
from moelab.model.dispatch.permutation import combine_rows, places, sort_by_expert, spread_rows
from moelab.model.kernels import ops

_ALIGNMENT = 16
"""Bytes that every row stride must be a multiple of."""


def grouped_works(config: ModelConfig, dtype: torch.dtype) -> bool:
    """Whether `grouped_mm` takes this model: strides of whole 16 bytes, and not fp64."""
    if config.moe is None or dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return False
    widths = (config.moe.d_latent or config.d_model, config.moe.d_expert)
    return all(width * dtype.itemsize % _ALIGNMENT == 0 for width in widths)


def dispatch_grouped(
    x_TD: Tensor,
    first: Tensor,
    down: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    activation: str,
    biases: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """sum_k gate_k expert_k(x), (T, D). The last offset is always R, so no row is left uninitialised."""
    y: Tensor = _GroupedExperts.apply(x_TD, first, down, gates_TK, chosen_TK, activation, *(biases or (None, None)))
    return y


class _GroupedExperts(torch.autograd.Function):
    """Gates multiply the hidden rows, which are narrower than the output; their gradient needs no output row."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        first: Tensor,
        down: Tensor,
        gates_TK: Tensor,
        chosen_TK: Tensor,
        activation: str,
        first_bias: Tensor | None,
        down_bias: Tensor | None,
    ) -> Tensor:
        token, place_TK, gates_R, offsets = _sorted(x_TD, chosen_TK, gates_TK, first.shape[0])
        h = F.grouped_mm(spread_rows(x_TD, token, place_TK), first.mT, offs=offsets)
        if first_bias is not None:
            h = h + _of_rows(first_bias, offsets, len(h))
        y_RD = F.grouped_mm(gated(h, gates_R, activation), down.mT, offs=offsets)
        if down_bias is not None:
            y_RD = y_RD + weighted(_of_rows(down_bias, offsets, len(h)), gates_R, h.dtype)
        ctx.save_for_backward(x_TD, first, down, h, gates_R, token, place_TK, offsets, down_bias)
        ctx.activation = activation
        return combine_rows(y_RD, place_TK)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, first, down, h, gates_R, token, place_TK, offsets, down_bias = ctx.saved_tensors
        dy_RD = spread_rows(grads[0], token, place_TK)
        d_gated = F.grouped_mm(dy_RD, down, offs=offsets)
        d_h, again, d_gates_R = gated_backward(d_gated, h, gates_R, ctx.activation)
        d_biases: tuple[Tensor | None, Tensor | None] = (None, None)
        if down_bias is not None:
            rows = _of_rows(down_bias, offsets, len(h))
            d_gates_R = d_gates_R + (dy_RD.to(gates_R.dtype) * rows.to(gates_R.dtype)).sum(1)
            d_biases = (_sums(d_h, offsets), _sums(weighted(dy_RD, gates_R, h.dtype), offsets))
        d_down = F.grouped_mm(dy_RD.mT, again, offs=offsets)
        d_first = F.grouped_mm(d_h.mT, spread_rows(x_TD, token, place_TK), offs=offsets)
        d_x = combine_rows(F.grouped_mm(d_h, first, offs=offsets), place_TK)
        d_gates = d_gates_R.index_select(0, place_TK.flatten()).view_as(place_TK)
        return d_x, d_first, d_down, d_gates, None, None, *d_biases


def _of_rows(bias_EO: Tensor, offsets: Tensor, n_rows: int) -> Tensor:
    """The bias of the expert that each sorted row goes to, (R, O)."""
    rows = torch.arange(n_rows, dtype=offsets.dtype, device=offsets.device)
    return bias_EO.index_select(0, torch.searchsorted(offsets, rows, right=True))


def _sums(rows_RO: Tensor, offsets: Tensor) -> Tensor:
    """The sum of each expert's rows, (E, O), as a product with ones: nothing is atomic."""
    ones = rows_RO.new_ones(rows_RO.shape[0], _ALIGNMENT // rows_RO.element_size())
    return F.grouped_mm(rows_RO.mT, ones, offs=offsets)[..., 0]


def _sorted(
    x_TD: Tensor, chosen_TK: Tensor, gates_TK: Tensor, n_experts: int
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Tokens (R,) of the sorted rows (None where kernels run), places (T, K), gates (R,), the experts' ends (E,)."""
    if kernels.usable(x_TD, gates_TK):
        return None, *ops.place_rows(chosen_TK, gates_TK, n_experts)
    order, token, counts = sort_by_expert(chosen_TK, n_experts)
    place_TK = places(order, chosen_TK.shape[1])
    return token, place_TK, gates_TK.flatten().index_select(0, order), counts.cumsum(0).to(torch.int32)

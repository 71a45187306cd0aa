"""What stands between an expert's two products: the activation times the router's gate, forward and backward.

R rows, experts of width F. Everything is computed in fp32 at least and rounded once to the dtype of the products.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from moelab.model import kernels
from moelab.model.feed_forward import activate, activation_backward
from moelab.model.kernels import ops
from moelab.model.precision import full_precision

_BLOCK = 2**17
"""Numbers of a CPU's block: its fp32 values stay in cache (two mebibytes for four of them). Of 2^13 to 2^18 and whole
tensors it is the fastest, or within 15 % of that, at widths of 64 to 512."""


def gated(h: Tensor, gates_R: Tensor, activation: str) -> Tensor:
    """activation(h) x gate, (R, F)."""
    if activation == "swiglu" and kernels.usable(h):
        return ops.gate_rows(h, gates_R)
    return _by_blocks(_gated, activation, h, gates_R)[0]


def gated_backward(d_gated: Tensor, h: Tensor, gates_R: Tensor, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    """d_h (R, 2F or F), the gated activations once more (R, F), and d_gates (R,) in the gates' own dtype."""
    if activation == "swiglu" and kernels.usable(h):
        return ops.gate_rows_backward(d_gated, h, gates_R)
    d_h, again, d_gates = _by_blocks(_gated_backward, activation, h, gates_R, d_gated)
    return d_h, again, d_gates


def weighted(rows: Tensor, gates_R: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows (R, O) times their gates, rounded once."""
    rows = full_precision(rows)
    return (rows * gates_R[:, None].to(rows.dtype)).to(dtype)


def _gated(activation: str, h: Tensor, gates_R: Tensor) -> tuple[Tensor, ...]:
    return (weighted(activate(full_precision(h), activation), gates_R, h.dtype),)


def _gated_backward(activation: str, h: Tensor, gates_R: Tensor, d_gated: Tensor) -> tuple[Tensor, ...]:
    wide, slope = full_precision(h), full_precision(d_gated)
    act = activate(wide, activation)
    d_gates = (slope.to(gates_R.dtype) * act.to(gates_R.dtype)).sum(1)
    d_h = activation_backward(slope * gates_R[:, None].to(slope.dtype), wide, activation)
    return d_h.to(h.dtype), weighted(act, gates_R, h.dtype), d_gates


def _by_blocks(compute: Callable[..., tuple[Tensor, ...]], activation: str, *rows: Tensor) -> tuple[Tensor, ...]:
    """compute(activation, *rows), where a CPU would write fp32 copies of 16-bit rows to memory a block at a time."""
    size = max(_BLOCK // max(rows[0].shape[1], 1), 1)
    if rows[0].device.type != "cpu" or rows[0].element_size() > 2 or rows[0].shape[0] <= size:
        return compute(activation, *rows)
    parts = [compute(activation, *block) for block in zip(*(each.split(size) for each in rows), strict=True)]
    return tuple(torch.cat(found) for found in zip(*parts, strict=True))

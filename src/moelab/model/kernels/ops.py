"""PyTorch operators over the Triton kernels, opaque to torch.compile. Triton itself is imported at the first call.

T tokens of width D, K chosen per token, R = T K rows sorted by expert, experts of width F, V words.
"""

import torch
from torch import Tensor


@torch.library.custom_op("moelab::spread_rows", mutates_args=())
def spread_rows(x: Tensor, place: Tensor) -> Tensor:
    """x (T, D), place (T, K) -> (R, D): the row of every token at each of its places."""
    from moelab.model.kernels.rows import spread_kernel

    x = x.contiguous()
    out = x.new_empty(place.numel(), x.shape[1])
    if out.numel():
        block, warps = _row_blocks(x.shape[1])
        spread_kernel[(x.shape[0],)](x, place, out, x.shape[1], place.shape[1], block, num_warps=warps)
    return out


@spread_rows.register_fake
def _(x: Tensor, place: Tensor) -> Tensor:
    return x.new_empty(place.shape[0] * place.shape[1], x.shape[1])


@torch.library.custom_op("moelab::combine_rows", mutates_args=())
def combine_rows(y: Tensor, place: Tensor) -> Tensor:
    """y (R, D), place (T, K) -> (T, D): the sum of every token's rows, added in fp32."""
    from moelab.model.kernels.rows import combine_kernel

    y = y.contiguous()
    out = y.new_empty(place.shape[0], y.shape[1])
    if out.numel():
        block, warps = _row_blocks(y.shape[1])
        combine_kernel[(place.shape[0],)](y, place, out, y.shape[1], place.shape[1], block, num_warps=warps)
    return out


@combine_rows.register_fake
def _(y: Tensor, place: Tensor) -> Tensor:
    return y.new_empty(place.shape[0], y.shape[1])


@torch.library.custom_op("moelab::gate_rows", mutates_args=())
def gate_rows(h: Tensor, gates: Tensor) -> Tensor:
    """h (R, 2F), gates (R,) -> SwiGLU of h times the gate, (R, F)."""
    from moelab.model.kernels.gating import gate_kernel

    h, width = h.contiguous(), h.shape[1] // 2
    out = h.new_empty(h.shape[0], width)
    if out.numel():
        rows, block = _gate_blocks(width)
        gate_kernel[(-(-h.shape[0] // rows),)](h, gates, out, h.shape[0], width, rows, block, num_warps=4)
    return out


@gate_rows.register_fake
def _(h: Tensor, gates: Tensor) -> Tensor:
    return h.new_empty(h.shape[0], h.shape[1] // 2)


@torch.library.custom_op("moelab::gate_rows_backward", mutates_args=())
def gate_rows_backward(d_out: Tensor, h: Tensor, gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `gate_rows`: d_h (R, 2F), its output once more (R, F), and d_gates (R,) in fp32."""
    from moelab.model.kernels.gating import gate_backward_kernel

    d_out, h, width = d_out.contiguous(), h.contiguous(), h.shape[1] // 2
    d_h, out = torch.empty_like(h), torch.empty_like(d_out)
    d_gates = torch.empty(h.shape[0], dtype=torch.float32, device=h.device)
    if out.numel():
        rows, block = _gate_blocks(width)
        grid = (-(-h.shape[0] // rows),)
        arguments = (d_out, h, gates, d_h, out, d_gates, h.shape[0], width, rows, block)
        gate_backward_kernel[grid](*arguments, num_warps=4)
    return d_h, out, d_gates


@gate_rows_backward.register_fake
def _(d_out: Tensor, h: Tensor, gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(h), torch.empty_like(d_out), torch.empty_like(gates, dtype=torch.float32)


def cross_entropy_(logits: Tensor, targets: Tensor, ignored: int, gradient: bool) -> tuple[Tensor, Tensor]:
    """Loss (0 where ignored) and log Z (N,) of logits (N, V), fp32.

    With `gradient`, the memory of the logits then holds softmax - one-hot, 0 where ignored.
    """
    from moelab.model.kernels.softmax import cross_entropy_kernel

    losses, log_z = torch.empty(2, logits.shape[0], dtype=torch.float32, device=logits.device)
    block = min(_power(logits.shape[1]), 8192)
    warps = max(1, min(16, block // 512))
    arguments = (logits, targets.contiguous(), losses, log_z, logits.shape[1], ignored, block, gradient)
    cross_entropy_kernel[(logits.shape[0],)](*arguments, num_warps=warps)
    return losses, log_z


def _row_blocks(width: int) -> tuple[int, int]:
    """Columns a program reads at once, and its warps: 16 bytes of bf16 a thread."""
    block = min(_power(width), 2048)
    return block, max(1, min(8, block // 256))


def _gate_blocks(width: int) -> tuple[int, int]:
    """Rows and columns of a program's tile: 2,048 elements."""
    block = min(_power(width), 1024)
    return max(1, 2048 // block), block


def _power(size: int) -> int:
    """The next power of two, 16 at least."""
    return max(16, 1 << (size - 1).bit_length())

"""PyTorch operators over the Triton kernels, opaque to torch.compile. Triton itself is imported at the first call.

T tokens of width D, K chosen per token, R = T K rows sorted by expert, experts of width F, V words.
"""

import torch
from torch import Tensor

_PLACED = 128
"""Rows whose places one program finds."""
_PAIRS = 4096
"""Pairs of a program that forms a norm's gradient; twice as many did not fit its registers (docs/benchmarks.md)."""
_WEIGHT_PARTS = 2048
"""Programs among which the rows are shared out where each forms a part of a weight's gradient."""


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


@torch.library.custom_op("moelab::place_rows", mutates_args=())
def place_rows(chosen: Tensor, gates: Tensor, n_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Choices and gates (T, K) -> each one's place among the sorted rows (T, K), gates as sorted (R,), ends (E,).

    Places and the ends of the experts' rows are int32. Stable: an expert's rows stay in token order.
    """
    from moelab.model.kernels.places import count_kernel, place_kernel

    chosen, gates, n_rows = chosen.contiguous(), gates.contiguous(), chosen.numel()
    place = torch.empty_like(chosen, dtype=torch.int32)
    sorted_gates = gates.new_empty(n_rows)
    if not n_rows:
        return place, sorted_gates, place.new_zeros(n_experts)
    blocks = -(-n_rows // _PLACED)
    counts = place.new_empty(n_experts, blocks)
    count_kernel[(blocks,)](chosen, counts, n_rows, n_experts, blocks, _PLACED, 64, num_warps=4)
    ends = counts.flatten().cumsum(0, dtype=torch.int32)
    arguments = (chosen, gates, counts, ends, place, sorted_gates, n_rows, blocks, _PLACED)
    place_kernel[(blocks,)](*arguments, num_warps=4)
    return place, sorted_gates, ends.view(n_experts, blocks)[:, -1].clone()


@place_rows.register_fake
def _(chosen: Tensor, gates: Tensor, n_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    ends = chosen.new_empty(n_experts, dtype=torch.int32)
    return torch.empty_like(chosen, dtype=torch.int32), gates.new_empty(gates.numel()), ends


@torch.library.custom_op("moelab::rotary", mutates_args=())
def rotary(x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float, back: bool) -> Tensor:
    """x (B, T, H, A), cos and sin (T, 1, A/2) fp32 -> normalised where there is a weight, (A,) or (H A,), then turned.

    `back` turns the other way.
    """
    from moelab.model.kernels.rotary import rotary_kernel

    x = x.contiguous()
    out = torch.empty_like(x)
    if out.numel():
        _, length, heads, size = x.shape
        norm, scale = _norm_over(x, weight), cos if weight is None else weight
        arguments = (x, scale, cos, sin, out, length, heads, size // 2, eps, norm, back, *_head_blocks(x))
        rotary_kernel[(x.numel() // (heads * size),)](*arguments, num_warps=_head_warps(x))
    return out


@rotary.register_fake
def _(x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float, back: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("moelab::rotary_norm_backward", mutates_args=())
def rotary_norm_backward(
    d_out: Tensor, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of `rotary` with a weight: d_x, and the weight's in fp32."""
    from moelab.model.kernels.rotary import rotary_norm_backward_kernel

    d_out, x = d_out.contiguous(), x.contiguous()
    d_x = torch.empty_like(x)
    length, groups = x.shape[1], _groups_of_heads(x, weight)
    heads, size = x.shape[2] // groups, x.shape[3]
    n_rows = x.numel() // (heads * size)
    if not n_rows:
        return d_x, torch.zeros_like(weight, dtype=torch.float32)
    rows = -(-n_rows // _WEIGHT_PARTS)
    parts = torch.empty(-(-n_rows // rows), heads * size, dtype=torch.float32, device=x.device)
    tile = x[:, :, :heads]
    sizes = (n_rows, length, groups, heads, size // 2, eps, rows, _norm_over(x, weight), *_head_blocks(tile))
    arguments = (d_out, x, weight, cos, sin, d_x, parts, *sizes)
    rotary_norm_backward_kernel[(parts.shape[0],)](*arguments, num_warps=_head_warps(tile))
    return d_x, parts.view(-1, weight.numel()).sum(0)


@rotary_norm_backward.register_fake
def _(d_out: Tensor, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    d_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return d_x, torch.empty_like(weight, dtype=torch.float32)


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


def _norm_over(x: Tensor, weight: Tensor | None) -> int:
    """What the norm goes over, as the kernel names it: nothing, each head or all heads."""
    return 0 if weight is None else 1 if weight.numel() == x.shape[3] else 2


def _groups_of_heads(x: Tensor, weight: Tensor) -> int:
    """Into how many programs a token's heads are cut for the gradient, where each has a norm of its own."""
    heads = x.shape[2]
    if _norm_over(x, weight) == 2:
        return 1
    fitting = (cut for cut in range(1, heads + 1) if heads % cut == 0 and _tile(heads // cut, x.shape[3]) <= _PAIRS)
    return next(fitting, heads)


def _tile(heads: int, size: int) -> int:
    return (1 << (heads - 1).bit_length()) * _power(size // 2)


def _head_blocks(x: Tensor) -> tuple[int, int]:
    """Heads and pairs of a program's tile."""
    return 1 << (x.shape[2] - 1).bit_length(), _power(x.shape[3] // 2)


def _head_warps(x: Tensor) -> int:
    heads, pairs = _head_blocks(x)
    return max(1, min(8, heads * pairs // 256))


def _power(size: int) -> int:
    """The next power of two, 16 at least."""
    return max(16, 1 << (size - 1).bit_length())

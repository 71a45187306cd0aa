"""Autograd functions over the native kernels. Each has its reference in PyTorch where it is called.

N rows, D width; B sequences, T tokens, H heads of size A; E experts of width F, K chosen per token.
"""

from typing import Any

import torch
from torch import Tensor

from moelab.model.native.build import load


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Call a kernel; tensors go as pointers."""
    library = load()[0]
    assert library is not None
    getattr(library, name)(*[a.data_ptr() if isinstance(a, Tensor) else a for a in arguments])


class RmsNorm(torch.autograd.Function):
    """x (..., D), weight (D,), eps -> x / rms(x) * weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        rows, d = x.numel() // x.shape[-1], x.shape[-1]
        y, inverse = torch.empty_like(x), x.new_empty(rows)
        call("rms_norm", x, weight, y, inverse, rows, d, eps, torch.get_num_threads())
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        dx, dw = torch.empty_like(x), torch.zeros_like(weight)
        call("rms_norm_backward", grads[0].contiguous(), x, weight, inverse, dx, dw, len(inverse), x.shape[-1])
        return dx, dw, None


class Rotary(torch.autograd.Function):
    """x (B, T, H, A), weight (A,) or None, cos and sin (T, 1, A/2), eps -> rotated, normalised first with a weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        batch, length, heads, a = x.shape
        y = torch.empty_like(x)
        inverse = x.new_empty(batch * length * heads) if weight is not None else None
        call("rotary", x, weight, cos, sin, y, inverse, batch * length, heads, a, length, eps)
        ctx.save_for_backward(x, weight, cos, sin, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, cos, sin, inverse = ctx.saved_tensors
        batch, length, heads, a = x.shape
        dx = torch.empty_like(x)
        dw = None if weight is None else torch.zeros_like(weight)
        dy = grads[0].contiguous()
        call("rotary_backward", dy, x, weight, cos, sin, inverse, dx, dw, batch * length, heads, a, length)
        return dx, dw, None, None, None


class CausalAttention(torch.autograd.Function):
    """q (B, T, H, A), k and v (B, T, KV, A) -> (B, T, H, A); every query sees itself and the tokens before it.

    `sinks` (H,) are scores of one more key per head whose value is zero: they only widen the softmax, so the kernel's
    result is scaled afterwards, and its backward pass holds with the log Z that counts them.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, sinks: Tensor | None = None
    ) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        batch, length, heads, a = q.shape
        ctx.sizes = (batch, length, heads, k.shape[2], a, scale or a**-0.5, torch.get_num_threads())
        y, log_z = torch.empty_like(q), q.new_empty(batch, heads, length)
        call("attention", q, k, v, y, log_z, *ctx.sizes)
        if sinks is not None:
            widened = torch.logaddexp(log_z, sinks[:, None])
            y *= (log_z - widened).exp_().transpose(1, 2)[..., None]
            log_z = widened
        ctx.save_for_backward(q, k, v, y, log_z, sinks)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, log_z, sinks = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        dy = grads[0].contiguous()
        call("attention_backward", dy, q, k, v, y, log_z, dq, dk, dv, *ctx.sizes)
        d_sinks = None
        if sinks is not None:
            share = (sinks[:, None] - log_z).exp_()
            d_sinks = -(share * (dy * y).sum(-1).transpose(1, 2)).sum((0, 2))
        return dq, dk, dv, None, d_sinks


class Experts(torch.autograd.Function):
    """SwiGLU experts: x (T, D), first (E, 2F, D), down (E, D, F), chosen and gates (T, K) -> (T, D).

    Without `chosen` there is one expert and every token goes through it: a dense feed-forward.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, first: Tensor, down: Tensor, chosen: Tensor | None, gates: Tensor | None
    ) -> Tensor:
        x, first, down = x.contiguous(), first.contiguous(), down.contiguous()
        n_experts, d, f = down.shape
        top_k = 1 if chosen is None else chosen.shape[1]
        n_rows = x.shape[0] * top_k
        order, offsets = None, torch.tensor([0, n_rows])
        if chosen is not None and gates is not None:
            order, offsets = torch.empty(n_rows, dtype=torch.int64), torch.empty(n_experts + 1, dtype=torch.int64)
            call("sort_by_expert", chosen.contiguous(), order, offsets, n_rows, n_experts)
            gates = gates.contiguous()
        y = torch.empty_like(x) if chosen is None else torch.zeros_like(x)
        h = x.new_empty(n_rows, 2 * f)
        ctx.sizes = (x.shape[0], top_k, n_experts, d, f, torch.get_num_threads())
        call("experts", x, first, down, gates, order, offsets, y, h, *ctx.sizes)
        ctx.save_for_backward(x, first, down, gates, order, offsets, h)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, first, down, gates, order, offsets, h = ctx.saved_tensors
        dx = torch.empty_like(x) if gates is None else torch.zeros_like(x)
        d_first, d_down = torch.empty_like(first), torch.empty_like(down)
        d_gates = None if gates is None else torch.empty_like(gates)
        slopes = (dx, d_first, d_down, d_gates)
        call("experts_backward", grads[0].contiguous(), x, first, down, gates, order, offsets, h, *slopes, *ctx.sizes)
        return dx, d_first, d_down, None, d_gates


class Linear(torch.autograd.Function):
    """x (..., K), weight (N, K) -> x weight^T, (..., N)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        n, k = weight.shape
        ctx.sizes = (x.numel() // k, n, k, torch.get_num_threads())
        y = x.new_empty(*x.shape[:-1], n)
        call("linear", x, weight, y, *ctx.sizes)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dw = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        call("linear_backward", grads[0].contiguous(), x, weight, dx, dw, *ctx.sizes)
        return dx, dw


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, gradients: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Loss and log Z (N,) of logits = hidden (N, D) weight (V, D)^T, and the gradients of the summed loss if wanted."""
    hidden, weight = hidden.contiguous(), weight.contiguous()
    loss, log_z = hidden.new_empty(len(hidden)), hidden.new_empty(len(hidden))
    d_hidden, d_weight = (torch.empty_like(hidden), torch.empty_like(weight)) if gradients else (None, None)
    sizes = (len(hidden), *weight.shape, torch.get_num_threads())
    call("linear_cross_entropy", hidden, weight, targets.contiguous(), loss, log_z, d_hidden, d_weight, *sizes)
    return loss, log_z, d_hidden, d_weight

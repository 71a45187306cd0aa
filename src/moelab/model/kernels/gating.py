"""Triton: SwiGLU times the router's gate in one pass, forward and backward. R rows, experts of width F."""

import triton
import triton.language as tl


@triton.jit
def gate_kernel(h, gates, out, R, F, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """out (R, F) = silu(h[:, :F]) h[:, F:] gate."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    gate = tl.load(gates + rows, mask=rows < R, other=0.0).to(tl.float32)[:, None]
    for start in range(0, F, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = (rows < R)[:, None] & (columns < F)[None, :]
        at = rows[:, None] * (2 * F) + columns[None, :]
        left = tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(h + at + F, mask=inside, other=0.0).to(tl.float32)
        value = left * tl.sigmoid(left) * up * gate
        tl.store(out + rows[:, None] * F + columns[None, :], value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gate_backward_kernel(d_out, h, gates, d_h, out, d_gates, R, F, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """d_h (R, 2F), the forward's out (R, F) once more and d_gates (R,)."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    gate = tl.load(gates + rows, mask=rows < R, other=0.0).to(tl.float32)[:, None]
    d_gate = tl.zeros((ROWS,), tl.float32)
    for start in range(0, F, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = (rows < R)[:, None] & (columns < F)[None, :]
        at = rows[:, None] * (2 * F) + columns[None, :]
        narrow = rows[:, None] * F + columns[None, :]
        left = tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(h + at + F, mask=inside, other=0.0).to(tl.float32)
        slope = tl.load(d_out + narrow, mask=inside, other=0.0).to(tl.float32)
        sigmoid = tl.sigmoid(left)
        silu = left * sigmoid
        value = silu * up
        d_gate += tl.sum(slope * value, 1)
        slope = slope * gate
        d_left = slope * up * (sigmoid + silu * (1.0 - sigmoid))
        tl.store(d_h + at, d_left.to(d_h.dtype.element_ty), mask=inside)
        tl.store(d_h + at + F, (slope * silu).to(d_h.dtype.element_ty), mask=inside)
        tl.store(out + narrow, (value * gate).to(out.dtype.element_ty), mask=inside)
    tl.store(d_gates + rows, d_gate, mask=rows < R)

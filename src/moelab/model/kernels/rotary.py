"""Triton: RMSNorm of queries or keys (none, over each head, over all heads) and rotary positions, in one pass.

N = B T rows of H heads of size A; within a head the pairs are (i, i + A/2). Everything is formed in fp32.
"""

import triton
import triton.language as tl

NONE, HEAD, FULL = 0, 1, 2
"""What the norm goes over; RMSNorm's weight is (A,) or (H A,)."""


@triton.jit
def rotary_kernel(
    x,
    weight,
    cos,
    sin,
    out,
    T,
    H,
    HALF,
    eps,
    NORM: tl.constexpr,
    BACK: tl.constexpr,
    HS: tl.constexpr,
    AS: tl.constexpr,
):
    """One row: normalised, then turned by its position's angles, or by their negatives (BACK)."""
    row = tl.program_id(0).to(tl.int64)
    heads, pairs = tl.arange(0, HS)[:, None], tl.arange(0, AS)[None, :]
    inside = (heads < H) & (pairs < HALF)
    at = row * (2 * H * HALF) + heads * (2 * HALF) + pairs
    first = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + at + HALF, mask=inside, other=0.0).to(tl.float32)
    if NORM == 1:
        inverse = tl.rsqrt(tl.sum(first * first + second * second, 1) / (2 * HALF) + eps)[:, None]
        first_weight = tl.load(weight + pairs, mask=pairs < HALF, other=0.0).to(tl.float32)
        second_weight = tl.load(weight + pairs + HALF, mask=pairs < HALF, other=0.0).to(tl.float32)
        first, second = first * inverse * first_weight, second * inverse * second_weight
    if NORM == 2:
        inverse = tl.rsqrt(tl.sum(tl.sum(first * first + second * second, 1), 0) / (2 * H * HALF) + eps)
        where = heads * (2 * HALF) + pairs
        first_weight = tl.load(weight + where, mask=inside, other=0.0).to(tl.float32)
        second_weight = tl.load(weight + where + HALF, mask=inside, other=0.0).to(tl.float32)
        first, second = first * inverse * first_weight, second * inverse * second_weight
    angle = (row % T) * HALF + pairs
    c = tl.load(cos + angle, mask=pairs < HALF, other=0.0)
    s = tl.load(sin + angle, mask=pairs < HALF, other=0.0)
    if BACK:
        s = -s
    tl.store(out + at, (first * c - second * s).to(out.dtype.element_ty), mask=inside)
    tl.store(out + at + HALF, (second * c + first * s).to(out.dtype.element_ty), mask=inside)


@triton.jit
def rotary_norm_backward_kernel(
    d_out, x, weight, cos, sin, d_x, d_weight, N, T, G, H, HALF, eps, ROWS: tl.constexpr, NORM: tl.constexpr,
    HS: tl.constexpr, AS: tl.constexpr,
):  # fmt: skip
    """ROWS rows, of which G with H heads each are a token's: d_x, and their part of the weight's gradient over all
    heads, (programs, H A) fp32."""
    program = tl.program_id(0).to(tl.int64)
    heads, pairs = tl.arange(0, HS)[:, None], tl.arange(0, AS)[None, :]
    inside = (heads < H) & (pairs < HALF)
    where = heads * (2 * HALF) + pairs
    of = where if NORM == 2 else pairs + 0 * heads
    first_weight = tl.load(weight + of, mask=inside, other=0.0).to(tl.float32)
    second_weight = tl.load(weight + of + HALF, mask=inside, other=0.0).to(tl.float32)
    d_first_weight = tl.zeros((HS, AS), tl.float32)
    d_second_weight = tl.zeros((HS, AS), tl.float32)
    for index in range(ROWS):
        row = program * ROWS + index
        here = inside & (row + 0 * heads < N)
        at = row * (2 * H * HALF) + where
        angle = (row // G % T) * HALF + pairs
        c = tl.load(cos + angle, mask=pairs < HALF, other=0.0)
        s = tl.load(sin + angle, mask=pairs < HALF, other=0.0)
        first_slope = tl.load(d_out + at, mask=here, other=0.0).to(tl.float32)
        second_slope = tl.load(d_out + at + HALF, mask=here, other=0.0).to(tl.float32)
        first = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
        second = tl.load(x + at + HALF, mask=here, other=0.0).to(tl.float32)
        turned = first_slope * c + second_slope * s
        second_slope = second_slope * c - first_slope * s
        squares = tl.sum(first * first + second * second, 1)
        if NORM == 2:
            inverse = tl.rsqrt(tl.sum(squares, 0) / (2 * H * HALF) + eps)
        else:
            inverse = tl.rsqrt(squares / (2 * HALF) + eps)[:, None]
        first, second = first * inverse, second * inverse
        d_first_weight += turned * first
        d_second_weight += second_slope * second
        turned, second_slope = turned * first_weight, second_slope * second_weight
        products = tl.sum(turned * first + second_slope * second, 1)
        mean = tl.sum(products, 0) / (2 * H * HALF) if NORM == 2 else (products / (2 * HALF))[:, None]
        tl.store(d_x + at, (inverse * (turned - first * mean)).to(d_x.dtype.element_ty), mask=here)
        tl.store(d_x + at + HALF, (inverse * (second_slope - second * mean)).to(d_x.dtype.element_ty), mask=here)
    parts = d_weight + program * (2 * H * HALF) + where
    tl.store(parts, d_first_weight, mask=inside)
    tl.store(parts + HALF, d_second_weight, mask=inside)

"""Triton: rows of tokens to the places of their experts, and back.

T tokens of width D, K places per token, R = T K rows. Every row is written once, so nothing is atomic and the order
of every sum is fixed.
"""

import triton
import triton.language as tl


@triton.jit
def spread_kernel(x, place, out, D, K: tl.constexpr, BLOCK: tl.constexpr):
    """One token: its row is read once and written to its K places."""
    token = tl.program_id(0).to(tl.int64)
    for start in range(0, D, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < D
        row = tl.load(x + token * D + columns, mask=inside)
        for k in tl.static_range(K):
            target = tl.load(place + token * K + k).to(tl.int64)
            tl.store(out + target * D + columns, row, mask=inside)


@triton.jit
def combine_kernel(y, place, out, D, K: tl.constexpr, BLOCK: tl.constexpr):
    """One token: the rows at its K places are added in fp32, in order."""
    token = tl.program_id(0).to(tl.int64)
    for start in range(0, D, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < D
        total = tl.zeros((BLOCK,), tl.float32)
        for k in tl.static_range(K):
            source = tl.load(place + token * K + k).to(tl.int64)
            total += tl.load(y + source * D + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + token * D + columns, total.to(out.dtype.element_ty), mask=inside)

"""Triton: where each routed row stands when rows are sorted by expert, by counting. Stable, without atomics.

R rows in blocks of BLOCK, E experts.
"""

import triton
import triton.language as tl


@triton.jit
def count_kernel(chosen, counts, R, E, BLOCKS, BLOCK: tl.constexpr, CHUNK: tl.constexpr):
    """One block: how many of its rows chose each expert, counts (E, BLOCKS)."""
    block = tl.program_id(0)
    rows = block * BLOCK + tl.arange(0, BLOCK)
    expert = tl.load(chosen + rows, mask=rows < R, other=-1).to(tl.int32)
    for start in range(0, E, CHUNK):
        experts = start + tl.arange(0, CHUNK)
        found = tl.sum((expert[:, None] == experts[None, :]).to(tl.int32), 0)
        tl.store(counts + experts * BLOCKS + block, found, mask=experts < E)


@triton.jit
def place_kernel(chosen, gates, counts, ends, place, sorted_gates, R, BLOCKS, BLOCK: tl.constexpr):
    """One block: a row stands after the earlier rows of its expert; `ends` are the running sums of the counts."""
    block = tl.program_id(0)
    index = tl.arange(0, BLOCK)
    rows = block * BLOCK + index
    inside = rows < R
    expert = tl.load(chosen + rows, mask=inside, other=-1).to(tl.int32)
    cell = expert * BLOCKS + block
    start = tl.load(ends + cell, mask=inside, other=0) - tl.load(counts + cell, mask=inside, other=0)
    earlier = (expert[:, None] == expert[None, :]) & (index[None, :] < index[:, None])
    target = start + tl.sum(earlier.to(tl.int32), 1)
    tl.store(place + rows, target, mask=inside)
    tl.store(sorted_gates + target, tl.load(gates + rows, mask=inside, other=0.0), mask=inside)

"""Triton: cross-entropy of a chunk of logits, whose memory then holds their gradient."""

import triton
import triton.language as tl


@triton.jit
def cross_entropy_kernel(
    logits, targets, losses, log_z, V, IGNORED: tl.constexpr, BLOCK: tl.constexpr, WRITE: tl.constexpr
):
    """One row (V,): its loss and log Z; with WRITE softmax - one-hot takes the logits' place, 0 where ignored."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * V
    target = tl.load(targets + row)
    valid = target != IGNORED
    wanted = tl.load(logits + tl.where(valid, target, 0)).to(tl.float32)  # before any thread writes
    peak = float("-inf")
    total = 0.0
    for start in range(0, V, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(logits + columns, mask=columns < V, other=float("-inf")).to(tl.float32)
        above = tl.maximum(peak, tl.max(x, 0))
        total = total * tl.exp(peak - above) + tl.sum(tl.exp(x - above), 0)
        peak = above
    z = peak + tl.log(total)
    tl.store(losses + row, tl.where(valid, z - wanted, 0.0))
    tl.store(log_z + row, z)
    if WRITE:
        scale = tl.where(valid, 1.0, 0.0)
        for start in range(0, V, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            x = tl.load(logits + columns, mask=columns < V, other=float("-inf")).to(tl.float32)
            slope = (tl.exp(x - z) - tl.where(columns == target, 1.0, 0.0)) * scale
            tl.store(logits + columns, slope.to(logits.dtype.element_ty), mask=columns < V)

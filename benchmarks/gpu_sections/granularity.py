"""What the experts of a layer keep for the backward pass as granularity grows: K F is constant, so are the FLOPs."""

import torch

from gpu_sections.common import Bench, has
from gpu_sections.layer import peer
from moelab.model.dispatch.grouped import dispatch_grouped

GROWTH = 1.1
"""What sixteen times the granularity may add to the kept memory: an index for each row, and rounding of allocations."""


def run(bench: Bench) -> None:
    """From two wide experts a token to thirty-two narrow ones, ours and transformers'."""
    tokens, d, active = bench.pick((16384, 1024, 4096), (64, 16, 64))
    kept: list[float] = []
    for top_k in bench.pick((2, 4, 8, 16, 32), (2, 4)):
        one(bench, tokens, d, top_k, active // top_k, kept)
    growth = max(kept, default=0.0) / max(min(kept, default=0.0), 1.0)
    bench.emit("granularity", who="moelab", growth=growth, limit=GROWTH, ok=len(kept) > 1 and growth <= GROWTH)


def one(bench: Bench, tokens: int, d: int, top_k: int, f: int, kept: list[float]) -> None:
    """`top_k` of eight times as many experts of width `f`; what ours keeps is appended to `kept`."""
    n_experts = 8 * top_k
    scores, chosen = bench.random(tokens, n_experts).topk(top_k)
    x = bench.random(tokens, d, seed=1, dtype=torch.bfloat16).requires_grad_()
    first = bench.random(n_experts, 2 * f, d, seed=2, dtype=torch.bfloat16, scale=d**-0.5).requires_grad_()
    down = bench.random(n_experts, d, f, seed=3, dtype=torch.bfloat16, scale=f**-0.5).requires_grad_()
    gates = scores.softmax(-1).requires_grad_()
    runs = {"moelab": lambda: dispatch_grouped(x, first, down, chosen, gates, "swiglu")}
    if has("transformers"):
        runs["transformers"] = lambda: peer(x, first, down, gates, chosen)
    for who, forward in runs.items():
        with bench.guarded("granularity", who=who, top_k=top_k):
            row = {"top_k": top_k, "d_expert": f, "n_experts": n_experts}
            found = _memory(bench, forward, [x, first, down, gates])
            bench.emit("granularity", who=who, **row, **found)
            if who == "moelab":
                kept.append(found["kept_mb"])


def _memory(bench: Bench, forward, leaves: list[torch.Tensor]) -> dict[str, float]:
    """Megabytes kept from forward to backward beyond the output, and the peaks of both passes."""

    def allocated() -> float:
        return 0.0 if bench.dry else torch.cuda.memory_allocated() / 1e6

    def peak() -> float:
        return 0.0 if bench.dry else torch.cuda.max_memory_allocated() / 1e6

    before = allocated()
    if not bench.dry:
        torch.cuda.reset_peak_memory_stats()
    y = forward()
    kept, above = allocated() - before - y.numel() * y.element_size() / 1e6, peak() - before
    torch.autograd.grad(y, leaves, torch.ones_like(y))
    return {"kept_mb": kept, "forward_peak_mb": above, "peak_mb": peak() - before}

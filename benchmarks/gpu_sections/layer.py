"""The experts of one MoE layer at two shapes, forward and backward, beside the dense layer of the same FLOPs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_sections.common import Bench, error, has, within, without_kernels
from moelab.model.dispatch import DISPATCHES, permutation
from moelab.model.dispatch.grouped import dispatch_grouped

Forward = Callable[..., Tensor]


def run(bench: Bench) -> None:
    """Both shapes."""
    for d, f in bench.pick(((2048, 1024), (1024, 512)), ((32, 16),)):
        one_shape(bench, d, f, *bench.pick((16384, 64, 8), (64, 8, 4)))


def one_shape(bench: Bench, d: int, f: int, tokens: int, n_experts: int, top_k: int) -> None:
    """Dense, then every way of running the experts, then the pieces that move rows."""
    shape, flops = f"{d}x{f}", 18.0 * tokens * top_k * d * f
    scores, chosen = bench.random(tokens, n_experts).topk(top_k)
    x = bench.random(tokens, d, seed=1, dtype=torch.bfloat16).requires_grad_()
    first = bench.random(n_experts, 2 * f, d, seed=2, dtype=torch.bfloat16, scale=d**-0.5).requires_grad_()
    down = bench.random(n_experts, d, f, seed=3, dtype=torch.bfloat16, scale=f**-0.5).requires_grad_()
    gates = scores.softmax(-1).requires_grad_()
    slope = bench.random(tokens, d, seed=4, dtype=torch.bfloat16)
    leaves = [x, first, down, gates]
    dense = dense_seconds(bench, x, slope, top_k * f)
    for how, seconds in dense.items():
        bench.emit("layer", shape=shape, how=how, ms=seconds * 1e3, tflops=flops / seconds / 1e12)
    best = min(dense.values())
    exact = DISPATCHES["loop"](x, first, down, chosen, gates, "swiglu").detach()

    def measure(how: str, forward: Forward) -> None:
        step = _both_ways(forward, leaves, slope)
        wrong, seconds = error(step(), exact), bench.seconds(step)
        times = {"ms": seconds * 1e3, "times_dense": seconds / best, "tflops": flops / seconds / 1e12}
        peak = bench.peak_bytes(step) / 1e6
        bench.emit("layer", shape=shape, how=how, **times, peak_mb=peak, **within({"error": wrong}, 2e-2))

    def grouped(x: Tensor, first: Tensor, down: Tensor, gates: Tensor) -> Tensor:
        return dispatch_grouped(x, first, down, chosen, gates, "swiglu")

    with bench.guarded("layer", shape=shape, how="products alone"):
        products(bench, shape, leaves, chosen, best)
    with bench.guarded("layer", shape=shape, how="kernels"):
        measure("kernels", grouped)
    with bench.guarded("layer", shape=shape, how="operators"), without_kernels():
        measure("operators", grouped)
    with bench.guarded("layer", shape=shape, how="operators compiled"), without_kernels():
        measure("operators compiled", torch.compile(grouped, backend=bench.backend))
    if has("transformers"):
        with bench.guarded("layer", shape=shape, how="transformers grouped_mm"):
            measure("transformers grouped_mm", lambda *leaves: peer(*leaves, chosen))
    with bench.guarded("pieces", shape=shape):
        pieces(bench, shape, x.detach(), chosen, f, n_experts)


def _both_ways(forward: Forward, leaves: list[Tensor], slope: Tensor) -> Callable[[], Tensor]:
    def step() -> Tensor:
        y = forward(*leaves)
        torch.autograd.grad(y, leaves, slope)
        return y.detach()

    return step


def dense_seconds(bench: Bench, x: Tensor, slope: Tensor, width: int) -> dict[str, float]:
    """The dense SwiGLU of the same FLOPs, as it comes and compiled."""
    d = x.shape[1]
    first = bench.random(2 * width, d, seed=5, dtype=torch.bfloat16, scale=d**-0.5).requires_grad_()
    down = bench.random(d, width, seed=6, dtype=torch.bfloat16, scale=width**-0.5).requires_grad_()

    def forward(x: Tensor, first: Tensor, down: Tensor) -> Tensor:
        gate, up = F.linear(x, first).chunk(2, -1)
        return F.linear(F.silu(gate) * up, down)

    leaves = [x, first, down]
    found = {"dense": bench.seconds(_both_ways(forward, leaves, slope))}
    compiled = torch.compile(forward, backend=bench.backend)
    return {**found, "dense compiled": bench.seconds(_both_ways(compiled, leaves, slope))}


def products(bench: Bench, shape: str, leaves: list[Tensor], chosen: Tensor, best: float) -> None:
    """The six grouped products of a step on sorted rows, and nothing else: what the layer could come to."""
    x, first, down, _ = (leaf.detach() for leaf in leaves)
    _order, token, counts = permutation.sort_by_expert(chosen, first.shape[0])
    offsets = counts.cumsum(0).to(torch.int32)
    rows = x[token]
    h = F.grouped_mm(rows, first.mT, offs=offsets)
    narrow = h[:, : h.shape[1] // 2].contiguous()

    def step() -> None:
        F.grouped_mm(rows, first.mT, offs=offsets)
        F.grouped_mm(narrow, down.mT, offs=offsets)
        F.grouped_mm(rows, down, offs=offsets)
        F.grouped_mm(rows.mT, narrow, offs=offsets)
        F.grouped_mm(h, first, offs=offsets)
        F.grouped_mm(h.mT, rows, offs=offsets)

    seconds = bench.seconds(step)
    bench.emit("layer", shape=shape, how="products alone", ms=seconds * 1e3, times_dense=seconds / best)


def pieces(bench: Bench, shape: str, x: Tensor, chosen: Tensor, f: int, n_experts: int) -> None:
    """Milliseconds of what stands around the products, kernels and operators."""
    from moelab.model.dispatch.gated import gated, gated_backward
    from moelab.model.dispatch.grouped import _sorted

    d = x.shape[1]
    weights = bench.random(*chosen.shape)
    n_rows = chosen.numel()
    rows = bench.random(n_rows, d, dtype=torch.bfloat16)
    h, gates = bench.random(n_rows, 2 * f, dtype=torch.bfloat16), bench.random(n_rows)
    narrow = bench.random(n_rows, f, dtype=torch.bfloat16)

    def measure(how: str) -> None:
        token, place, _, _ = _sorted(x, chosen, weights, n_experts)
        steps = {
            "sort": (lambda: _sorted(x, chosen, weights, n_experts), 0),
            "spread": (lambda: permutation.spread_rows(x, token, place), x.numel() + rows.numel()),
            "combine": (lambda: permutation.combine_rows(rows, place), x.numel() + rows.numel()),
            "gate": (lambda: gated(h, gates, "swiglu"), h.numel() + narrow.numel()),
            "gate backward": (lambda: gated_backward(narrow, h, gates, "swiglu"), 2 * h.numel() + 2 * narrow.numel()),
        }
        for name, (step, elements) in steps.items():
            seconds = bench.seconds(step)
            bench.emit("pieces", shape=shape, how=how, piece=name, ms=seconds * 1e3, gbs=2 * elements / seconds / 1e9)

    measure("kernels")
    with without_kernels():
        measure("operators")


def peer(x: Tensor, first: Tensor, down: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
    """transformers' OLMoE experts on given weights."""
    from transformers.models.olmoe.configuration_olmoe import OlmoeConfig
    from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

    n_experts, d, f = down.shape
    config = OlmoeConfig(hidden_size=d, intermediate_size=f, num_experts=n_experts, num_experts_per_tok=chosen.shape[1])
    config._experts_implementation = "grouped_mm"
    with torch.device("meta"):
        module = OlmoeExperts(config)
    return torch.func.functional_call(module, {"gate_up_proj": first, "down_proj": down}, (x, chosen, gates))

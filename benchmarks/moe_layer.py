"""How close is a MoE layer to the dense layer of the same FLOPs? Forward + backward, every dispatch back end, and
transformers' expert back ends where it is installed, timed in turn in one process.

    python benchmarks/moe_layer.py                         # fp32 on one thread, about a minute
    python benchmarks/moe_layer.py --dtype bf16 --threads 2
    python benchmarks/moe_layer.py --device cuda --dtype bf16
    python benchmarks/moe_layer.py --shapes 512x256        # d_model x d_expert

Prints milliseconds (best of the rounds), GFLOP/s, and the ratio to the fastest FLOP-matched dense SwiGLU.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.cli.output import print_json, print_table
from moelab.model.dispatch import DISPATCHES
from moelab.model.feed_forward import FeedForward
from moelab.model.native import status

PEERS = ("eager", "batched_mm", "grouped_mm")
Step = Callable[[], Tensor]


def routing(tokens: int, n_experts: int, top_k: int, skewed: bool) -> tuple[Tensor, Tensor]:
    """Chosen experts and gates; skewed routing follows Zipf's law over the experts."""
    generator = torch.Generator().manual_seed(0)
    noise = -torch.log(-torch.log(torch.rand(tokens, n_experts, generator=generator)))
    popularity = -torch.log(torch.arange(1.0, n_experts + 1)) if skewed else torch.zeros(n_experts)
    chosen = (noise + popularity).topk(top_k).indices
    return chosen, torch.rand(tokens, top_k, generator=generator).softmax(-1)


def backward_step(forward: Callable[..., Tensor], leaves: list[Tensor], weight: Tensor) -> Step:
    """Forward and backward; returns the output."""

    def step() -> Tensor:
        y = forward(*leaves)
        torch.autograd.grad(y, leaves, weight)
        return y.detach()

    return step


def peer_forward(name: str, x: Tensor, first: Tensor, down: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
    """transformers' OLMoE experts on given weights."""
    from transformers.models.olmoe.configuration_olmoe import OlmoeConfig
    from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

    n_experts, d, f = down.shape
    config = OlmoeConfig(hidden_size=d, intermediate_size=f, num_experts=n_experts, num_experts_per_tok=chosen.shape[1])
    config._experts_implementation = name
    with torch.device("meta"):
        module = OlmoeExperts(config)
    weights = {"gate_up_proj": first, "down_proj": down}
    return torch.func.functional_call(module, weights, (x, chosen, gates))


def has_transformers() -> bool:
    """Whether the peer can be measured."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        return False
    return True


def cases(arguments: argparse.Namespace, d: int, f: int, skewed: bool) -> dict[str, Step]:
    """Everything to time at one shape, by name."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[arguments.dtype]
    device, n_experts, top_k = arguments.device, arguments.experts, arguments.top_k
    chosen, gates = (t.to(device) for t in routing(arguments.tokens, n_experts, top_k, skewed))
    generator = torch.Generator().manual_seed(1)

    def leaf(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator) / shape[-1] ** 0.5
        return values.to(device, dtype).requires_grad_()

    x, first, down = leaf(arguments.tokens, d), leaf(n_experts, 2 * f, d), leaf(n_experts, d, f)
    gates.requires_grad_()
    weight = torch.ones_like(x)
    dense = FeedForward(d, top_k * f, "swiglu").to(device, dtype)
    dense_leaves = [x, *dense.parameters()]

    def dense_torch(x: Tensor, first: Tensor, down: Tensor) -> Tensor:
        gate, up = F.linear(x, first).chunk(2, -1)
        return F.linear(F.silu(gate) * up, down)

    found = {
        "dense (moelab)": backward_step(lambda x, *_: dense(x), dense_leaves, weight),
        "dense (torch)": backward_step(dense_torch, dense_leaves, weight),
    }
    leaves = [x, first, down, gates]
    for name, dispatch in DISPATCHES.items():

        def run(x: Tensor, first: Tensor, down: Tensor, gates: Tensor, dispatch=dispatch) -> Tensor:
            return dispatch(x, first, down, chosen, gates, "swiglu")

        found[name] = backward_step(run, leaves, weight)
    for name in PEERS if has_transformers() else ():
        copies = arguments.tokens * top_k * d * f * 12 * dtype.itemsize  # it copies the weights for every routed row
        if name == "batched_mm" and copies > arguments.peer_bytes:
            print(f"batched_mm left out: it needs about {copies / 1e9:.0f} GB (--peer-bytes)", file=sys.stderr)
            continue
        forward = partial(peer_forward, name)
        found[f"transformers {name}"] = backward_step(
            lambda *leaves, forward=forward: forward(*leaves, chosen), leaves, weight
        )
    return found


def measure(steps: dict[str, Step], rounds: int, device: str, threads: int) -> dict[str, float]:
    """Best seconds of each, timed in turn so that a slow moment affects all of them; processor time on one thread."""
    clock = time.process_time if threads == 1 and device == "cpu" else time.perf_counter
    best = dict.fromkeys(steps, float("inf"))
    for turn in range(rounds + 1):
        for name, step in steps.items():
            if turn > 1 and best[name] > 20 * min(best.values()):
                continue
            started = clock()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:
                best[name] = min(best[name], clock() - started)
    return best


def cells(row: dict[str, Any]) -> list[str]:
    """One line of the table."""
    error = "-" if row["error"] is None else f"{row['error']:.0e}"
    numbers = [f"{row['ms']:.1f}", f"{row['gflops']:.0f}", f"{row['ratio_to_dense']:.2f}"]
    return [row["shape"], row["routing"], row["name"], *numbers, error]


def main() -> None:
    """Measure, check that all agree, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="256x128,512x256")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-bytes", type=float, default=4e9, help="skip batched_mm above this memory")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not has_transformers():
        print("transformers is not installed: its rows are left out (pip install transformers)", file=sys.stderr)
    print(f"{status()}; torch {torch.__version__}, {arguments.threads} threads", file=sys.stderr)
    results: list[dict[str, Any]] = []
    for shape in arguments.shapes.split(","):
        d, f = map(int, shape.split("x"))
        flops = 3 * 2 * arguments.tokens * arguments.top_k * 3 * d * f
        for skewed in (False, True):
            steps = cases(arguments, d, f, skewed)
            outputs = {name: step() for name, step in steps.items() if "dense" not in name}
            scale = outputs["loop"].abs().max()
            errors = {name: float((y - outputs["loop"]).abs().max() / scale) for name, y in outputs.items()}
            seconds = measure(steps, arguments.rounds, arguments.device, arguments.threads)
            dense = min(seconds["dense (moelab)"], seconds["dense (torch)"])
            for name, value in seconds.items():
                results.append(
                    {
                        "shape": shape,
                        "routing": "zipf" if skewed else "balanced",
                        "name": name,
                        "ms": value * 1e3,
                        "gflops": flops / value / 1e9,
                        "ratio_to_dense": value / dense,
                        "error": errors.get(name),
                    }
                )
    if arguments.json:
        print_json(results)
        return
    print_table(
        ["shape", "routing", "what", "ms", "GFLOP/s", "x dense", "max error"],
        [cells(row) for row in results],
        title=f"MoE layer, E={arguments.experts} K={arguments.top_k}, {arguments.tokens} tokens, {arguments.dtype}",
    )


if __name__ == "__main__":
    main()

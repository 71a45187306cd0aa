"""Tokens per second of a training step beside Hugging Face transformers: same shapes, batch and machine, in turn.

    python benchmarks/train_step.py [--steps 3] [--rounds 3] [--out docs/benchmarks/train_step.json]

Dense: Llama class, about 6M parameters. MoE: OLMoE class, 64 experts top-8 of width 128, about 28M, and `moe-fine`
with experts of width 64, about 16M. All 4 layers, width 256, vocabulary 4,096, batch 16 x 256, AdamW with gradient
clipping. Both run in fp32, and in bf16 autocast where the processor has bf16 instructions; transformers' MoE with
`grouped_mm` and `eager` experts (`batched_mm` copies the weights for every routed row: over 10 GB here). The fastest
of each counts. Every measurement has a process of its own, so that each peak of memory is its own. moelab makes the C
library keep freed memory, as `moelab train` does; transformers is measured as it comes and ("kept") with the same.
Needs `pip install transformers`.
"""

import argparse
import importlib.util
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from moelab.architecture import ModelConfig, count_flops, count_parameters
from moelab.machine import usable_cores
from moelab.model import build_model, resolve_dispatch
from moelab.runs import TrainConfig
from moelab.training import Optimizer
from moelab.training.memory import freed_memory_kept, peak_memory_bytes, reset_peak_memory

BATCH, SEQ = 16, 256
BASE = {"vocab_size": 4096, "d_model": 256, "n_layers": 4, "n_heads": 4, "tie_embeddings": False}
MODELS = {
    "dense": {**BASE, "d_ff": 1024, "qk_norm": "none"},
    "moe": {**BASE, "qk_norm": "full", "moe": {"n_experts": 64, "top_k": 8, "d_expert": 128, "normalize_gates": False}},
    "moe-fine": {
        **BASE,
        "qk_norm": "full",
        "moe": {"n_experts": 64, "top_k": 8, "d_expert": 64, "normalize_gates": False},
    },
}
Step = Callable[[], None]


def main() -> None:
    """Measure every variant in turn, several rounds, and print medians and ratios."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=3, help="steps per measurement")
    options.add_argument("--rounds", type=int, default=3, help="measurements of each variant, taken in turn")
    options.add_argument("--threads", type=int, default=usable_cores())
    options.add_argument("--models", default=",".join(MODELS), help=f"some of {', '.join(MODELS)}")
    options.add_argument("--compile", action="store_true", help="also the peer's dense model through torch.compile")
    options.add_argument("--out", type=Path, help="also write the figures as JSON")
    options.add_argument("--one", nargs=2, metavar=("MODEL", "VARIANT"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.one:
        print(json.dumps(tokens_per_second(*chosen.one, chosen.steps)))
        return
    peak = product_peak()
    print(f"{chosen.threads} threads, torch {torch.__version__}, fp32 product peak {peak / 1e9:.0f} GFLOP/s")
    results = {kind: measure(kind, chosen, peak) for kind in chosen.models.split(",")}
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        value = {"threads": chosen.threads, "torch": torch.__version__, "peak_gflops": peak / 1e9, **results}
        chosen.out.write_text(json.dumps(value, indent=1) + "\n")


def measure(kind: str, chosen: argparse.Namespace, peak: float) -> dict[str, Any]:
    """Tokens per second of our step and of every peer's, medians over rounds that take turns."""
    config = ModelConfig.parse(MODELS[kind])
    names = [f"moelab {precision}" for precision in precisions()]
    back_ends = ("grouped_mm", "eager") if config.moe else ("", "compiled") if chosen.compile else ("",)
    if has_transformers():
        for precision, experts, kept in itertools.product(precisions(), back_ends, ("", "kept")):
            names.append(" ".join(f"transformers {precision} {experts} {kept}".split()))
    speeds: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, int] = {}
    for _ in range(chosen.rounds):
        for name in names:
            words = [
                sys.executable,
                __file__,
                "--steps",
                chosen.steps,
                "--threads",
                chosen.threads,
                "--one",
                kind,
                name,
            ]
            done = subprocess.run(list(map(str, words)), check=True, stdout=subprocess.PIPE, text=True)
            speed, memory[name] = json.loads(done.stdout.splitlines()[-1])
            speeds[name].append(speed)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return report(kind, config, medians, memory, peak)


def report(
    kind: str, config: ModelConfig, medians: dict[str, float], memory: dict[str, int], peak: float
) -> dict[str, Any]:
    """Print one model's figures and return them."""
    ours_best = max((name for name in medians if name.startswith("moelab")), key=lambda name: medians[name])
    peers = [name for name in medians if name.startswith("transformers")]
    flops = float(count_flops(config, SEQ).train)
    print(f"\n{kind}: {count_parameters(config).params_total / 1e6:.1f}M parameters, {flops / 1e6:.0f} MFLOP per token")
    for name, speed in medians.items():
        share = speed * flops / peak
        print(f"  {name:<28} {speed:>8,.0f} tokens/s  {share:6.1%} of the peak  {memory[name] / 1e6:>7,.0f} MB peak")
    if not peers:
        print("  transformers is not installed: nothing to compare with (pip install transformers)")
        return {"tokens_per_second": medians, "memory_bytes": memory, "ratio": None}
    ratios = {}
    for how, wanted in (("as it comes", False), ("freed memory kept", True)):
        best = max((name for name in peers if ("kept" in name) == wanted), key=lambda name: medians[name])
        ratios[how] = medians[ours_best] / medians[best]
        print(f"  ratio: {ours_best} / {best} = {ratios[how]:.2f}")
    return {"tokens_per_second": medians, "memory_bytes": memory, "ratio": ratios}


def precisions() -> tuple[str, ...]:
    """bf16 only where the processor has instructions for it; without them it is several times slower."""
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return ("fp32", "bf16") if has_bf16 else ("fp32",)


def ours(config: ModelConfig, precision: str) -> Step:
    """A training step of moelab: forward, backward, clip, AdamW."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    dispatch = resolve_dispatch(config, "cpu", dtype) if config.moe else "none"
    model = build_model(config, seed=0, dispatch=dispatch)
    train = TrainConfig(tokens=BATCH * SEQ, seq_len=SEQ, batch_tokens=BATCH * SEQ, learning_rate=1e-3)
    optimizer = Optimizer(model, train)
    x, y = batch()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = model.loss(x, y)
        output.total.backward()
        optimizer.step(1e-3)

    return step


def theirs(config: ModelConfig, precision: str, experts: str) -> Step:
    """The same step with the transformers class of the same architecture."""
    model = peer_model(config, experts).train()
    if experts == "compiled":
        model = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    x, y = batch()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(input_ids=x).logits
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def has_transformers() -> bool:
    """Whether the peer can be measured."""
    return importlib.util.find_spec("transformers") is not None


def peer_model(config: ModelConfig, experts: str) -> Any:
    """Llama for dense, OLMoE for MoE, randomly initialised."""
    import transformers

    shared = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "max_position_embeddings": SEQ,
        "tie_word_embeddings": False,
        "use_cache": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "attn_implementation": "sdpa",
    }
    if config.moe is None:
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(intermediate_size=config.d_ff, **shared))
    peer = transformers.OlmoeConfig(
        intermediate_size=config.moe.d_expert,
        num_experts=config.moe.n_experts,
        num_experts_per_tok=config.moe.top_k,
        norm_topk_prob=False,
        **shared,
    )
    model = transformers.OlmoeForCausalLM(peer)
    model.set_experts_implementation(experts)
    return model


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens and targets (BATCH, SEQ)."""
    tokens = torch.randint(4096, (BATCH, SEQ + 1), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def tokens_per_second(kind: str, variant: str, steps: int) -> tuple[float, int]:
    """Speed of `steps` steps after two that are not counted, and the peak memory of this process meanwhile.

    On one thread it is the processor's time that counts, which other work on the machine does not lengthen.
    """
    config = ModelConfig.parse(MODELS[kind])
    who, precision, *how = variant.split()
    kept = freed_memory_kept() if who == "moelab" or "kept" in how else nullcontext()
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    with kept:
        reset_peak_memory()
        step = (
            ours(config, precision) if who == "moelab" else theirs(config, precision, "".join(how).removesuffix("kept"))
        )
        step()
        step()
        began = clock()
        for _ in range(steps):
            step()
        seconds = clock() - began
        return steps * BATCH * SEQ / seconds, peak_memory_bytes("cpu")


def product_peak() -> float:
    """FLOP/s of a large fp32 matrix product on this machine with these threads."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    a = torch.randn(2048, 2048)
    a @ a
    times = []
    for _ in range(5):
        began = clock()
        a @ a
        times.append(clock() - began)
    return 2 * 2048**3 / min(times)


if __name__ == "__main__":
    main()

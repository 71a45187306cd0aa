"""Tokens per second of greedy generation beside `transformers.generate`: same weights, same prompts, same tokens out.

    python benchmarks/generate.py [--batches 1,16] [--new 64] [--threads 1] [--rounds 3] [--out FILE]

The models of `train_step.py`: dense in transformers' Llama class, MoE in its OLMoE class with each of its expert back
ends, with keys and values cached; the fastest counts. Without transformers only moelab's own columns are
printed. On one thread the processor's time is measured. Tokens are compared; where two differ, the two likeliest
tokens must lie within 1e-4 of each other, and the number of such sequences is printed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from train_step import MODELS, has_transformers, peer_model

from moelab.architecture import ModelConfig
from moelab.model import LanguageModel, build_model
from moelab.model.generate import generate

PROMPT = 32
Tokens = list[list[int]]


def main() -> None:
    """Measure every variant in turn and print medians and ratios."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--models", default="dense,moe")
    options.add_argument("--batches", default="1,16")
    options.add_argument("--experts", default="grouped_mm,batched_mm,eager", help="the peer's expert back ends")
    options.add_argument("--new", type=int, default=64, help="tokens generated per sequence")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--out", type=Path, help="also write the figures as JSON")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    if not has_transformers():
        print("transformers is not installed: its columns are left out (pip install transformers)")
    results = []
    for kind in chosen.models.split(","):
        for batch in map(int, chosen.batches.split(",")):
            results.append(measure(kind, batch, chosen.new, chosen.rounds, chosen.experts.split(",")))
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps({"threads": chosen.threads, "results": results}, indent=1) + "\n")


def measure(kind: str, batch: int, new: int, rounds: int, backends: list[str]) -> dict[str, Any]:
    """Tokens per second of every variant, medians over rounds that take turns, after one round not counted."""
    config = ModelConfig.parse(MODELS[kind])
    model = build_model(config, seed=0).eval()
    prompts = torch.randint(config.vocab_size, (batch, PROMPT), generator=torch.Generator().manual_seed(batch))
    variants: dict[str, Callable[[], Tokens]] = {
        "moelab": partial(generate, model, prompts.tolist(), max_new_tokens=new, temperature=0),
        "moelab, modules": partial(by_modules, model, prompts.tolist(), new),
    }
    for experts in () if not has_transformers() else backends if config.moe else ("",):
        peer = peer_with_weights(config, model, experts)
        variants[f"transformers {experts}".strip()] = partial(theirs, peer, prompts, new)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    outputs: dict[str, Tokens] = {}
    for turn in range(rounds + 1):
        for name, run in variants.items():
            began = clock()
            outputs[name] = run()
            if turn:
                seconds[name].append(clock() - began)
    speeds = {name: batch * new / statistics.median(times) for name, times in seconds.items()}
    ties = sum(check(model, prompts, outputs["moelab"], other) for other in outputs.values())
    print(f"\n{kind}, batch {batch}: {new} new tokens after {PROMPT}; {ties} sequences part at a tie")
    for name, speed in speeds.items():
        print(f"  {name:<26} {speed:>9,.0f} tokens/s")
    peers = [name for name in speeds if name.startswith("transformers")]
    ratio = None
    if peers:
        best = max(peers, key=lambda name: speeds[name])
        ratio = speeds["moelab"] / speeds[best]
        print(f"  ratio: moelab / {best} = {ratio:.2f}")
    return {"model": kind, "batch": batch, "new": new, "tokens_per_second": speeds, "ratio": ratio, "ties": ties}


def by_modules(model: LanguageModel, prompts: Tokens, new: int) -> Tokens:
    """Our generation without the compiled decode step."""
    with patch("moelab.model.decode.MOST_SEQUENCES", 0):
        return generate(model, prompts, max_new_tokens=new, temperature=0)


def theirs(peer: Any, prompts: torch.Tensor, new: int) -> Tokens:
    """transformers' greedy generation."""
    out = peer.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        use_cache=True,
    )
    tokens: Tokens = out[:, prompts.shape[1] :].tolist()
    return tokens


def peer_with_weights(config: ModelConfig, model: LanguageModel, experts: str) -> Any:
    """The transformers model with our weights under its names."""
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if config.moe is None and "gate_up_proj" in name:
            for part, half in zip(("gate_proj", "up_proj"), tensor.chunk(2), strict=True):
                weights[name.replace("gate_up_proj", part)] = half
        else:
            weights[name.replace("mlp.router", "mlp.gate")] = tensor
    peer = peer_model(config, experts).eval()
    peer.load_state_dict(weights)
    peer.generation_config.use_cache = True
    return peer


@torch.no_grad()
def check(model: LanguageModel, prompts: torch.Tensor, ours: Tokens, other: Tokens) -> int:
    """How many sequences differ; each must part where our two likeliest tokens are within 1e-4."""
    different = 0
    for prompt, mine, their in zip(prompts.tolist(), ours, other, strict=True):
        if mine == their:
            continue
        different += 1
        place = next(i for i, pair in enumerate(zip(mine, their, strict=True)) if pair[0] != pair[1])
        best = model(torch.tensor([prompt + mine[:place]]))[0, -1].topk(2).values
        assert best[0] - best[1] < 1e-4, "the peer's tokens differ"
    return different


if __name__ == "__main__":
    main()

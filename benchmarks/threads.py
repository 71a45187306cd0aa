"""Two small runs side by side on one thread each, or one on both cores? Tokens per second of both, all runs together.

    python benchmarks/threads.py [--widths 32,64,128,256] [--seconds 5] [--cores 2]

Each run trains a MoE of 8 experts top-2, 2 layers, in a process of its own; `resolve.py` takes the width from which
on several threads are used from this table. Wall-clock time: the machine must be otherwise idle.
"""

import argparse
import multiprocessing
import os
import time

import torch

from moelab.architecture import ModelConfig
from moelab.machine import usable_cores
from moelab.model import build_model
from moelab.runs import TrainConfig
from moelab.training import Optimizer

BATCH, SEQ, VOCAB = 16, 128, 1024


def main() -> None:
    """Print tokens per second of every width and placement."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--widths", default="32,64,128,256")
    options.add_argument("--seconds", type=float, default=5.0, help="time of each measurement")
    options.add_argument("--cores", type=int, default=min(2, usable_cores()))
    chosen = options.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"the machine has other work (load {load:.1f}): do not trust these figures")
    print(f"{'width':>6} {'side by side':>14} {'all cores each':>15} {'ratio':>6}")
    for width in map(int, chosen.widths.split(",")):
        apart = together(width, runs=chosen.cores, threads=1, seconds=chosen.seconds)
        alone = together(width, runs=1, threads=chosen.cores, seconds=chosen.seconds)
        print(f"{width:>6} {apart:>14,.0f} {alone:>15,.0f} {apart / alone:>6.2f}")


def together(width: int, *, runs: int, threads: int, seconds: float) -> float:
    """Tokens per second, summed, of `runs` processes with `threads` threads each."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(runs) as pool:
        return sum(pool.starmap(train, [(width, threads, seconds)] * runs))


def train(width: int, threads: int, seconds: float) -> float:
    """Tokens per second of one run, after two steps that are not counted."""
    torch.set_num_threads(threads)
    moe = {"n_experts": 8, "top_k": 2, "d_expert": 2 * width}
    sizes = {"vocab_size": VOCAB, "d_model": width, "n_layers": 2, "n_heads": max(1, width // 32), "moe": moe}
    model = build_model(ModelConfig.parse(sizes))
    config = TrainConfig(tokens=BATCH * SEQ, seq_len=SEQ, batch_tokens=BATCH * SEQ, learning_rate=1e-3)
    optimizer = Optimizer(model, config)
    tokens = torch.randint(VOCAB, (BATCH, SEQ + 1), generator=torch.Generator().manual_seed(0))
    steps, began = -2, time.perf_counter()
    while steps < 1 or time.perf_counter() - began < seconds:
        if steps == 0:
            began = time.perf_counter()
        model.loss(tokens[:, :-1], tokens[:, 1:]).total.backward()
        optimizer.step(1e-3)
        steps += 1
    return steps * BATCH * SEQ / (time.perf_counter() - began)


if __name__ == "__main__":
    main()

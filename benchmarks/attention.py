"""What windows, sinks and the latent cache save: processor time of one layer beside its plain form, in turns.

    python benchmarks/attention.py [--length 2048] [--rounds 5]

Each line is the median ratio of two kinds of one layer in one process on one thread, with the smallest and largest:
a window of 128 beside full attention (forward and backward); sinks beside none; and 32 decode steps at that context,
latent attention in its absorbed form and a window beside full attention with its cache of keys and values.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from moelab.architecture import ModelConfig
from moelab.model import LanguageModel, build_model
from moelab.model.cache import KVCache

SIZES = {"vocab_size": 64, "d_model": 256, "n_layers": 1, "n_heads": 8, "n_kv_heads": 2, "head_dim": 64, "d_ff": 64}
MLA = {"kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32}
STEPS = 32


def main() -> None:
    """Print one line for each comparison."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--length", type=int, default=2048, help="tokens of the sequence")
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    full, window, sinks, latent = (
        build_model(ModelConfig.parse({**SIZES, **changes}), seed=0)
        for changes in ({}, {"sliding_window": 128}, {"attention_sinks": True}, {"mla": MLA})
    )
    tokens = torch.randint(0, 64, (1, chosen.length), generator=torch.Generator().manual_seed(0))
    compare("window of 128 / full", lambda: step(window, tokens), lambda: step(full, tokens), chosen.rounds)
    compare("sinks / none", lambda: step(sinks, tokens), lambda: step(full, tokens), chosen.rounds)
    compare("decode, window / full", lambda: decode(window, tokens), lambda: decode(full, tokens), chosen.rounds)
    compare("decode, latent / full", lambda: decode(latent, tokens), lambda: decode(full, tokens), chosen.rounds)
    for name, model in (("full", full), ("window of 128", window), ("latent", latent)):
        cache = KVCache(model.config, 1, chosen.length, torch.float32, torch.device("cpu"))
        print(f"cache of {chosen.length} tokens, {name}: {cache.nbytes / 1024:,.0f} KiB a layer")


def compare(name: str, ours: Callable[[], float], plain: Callable[[], float], rounds: int) -> None:
    """Print the ratio of processor times, in turns, after one of each that is not counted."""
    ours(), plain()
    ratios = [ours() / plain() for _ in range(rounds)]
    print(f"{name}: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def step(model: LanguageModel, tokens: torch.Tensor) -> float:
    """Seconds of one forward and backward pass."""
    start = time.process_time()
    model.loss(tokens, tokens).total.backward()
    return time.process_time() - start


@torch.no_grad()
def decode(model: LanguageModel, tokens: torch.Tensor) -> float:
    """Seconds of decode steps with a cache that holds all but the last tokens."""
    cache = KVCache(model.config, 1, tokens.shape[1], torch.float32, torch.device("cpu"))
    before = tokens.shape[1] - STEPS
    model.hidden(tokens[:, :before], cache=cache)
    start = time.process_time()
    for place in range(before, tokens.shape[1]):
        model.hidden(tokens[:, place : place + 1], cache=cache)
    return time.process_time() - start


if __name__ == "__main__":
    main()

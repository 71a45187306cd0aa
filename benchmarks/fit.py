"""Speed and objective of moelab's fits, against SciPy's BFGS from a grid and the `chinchilla` package, in one run.

    OMP_NUM_THREADS=1 python benchmarks/fit.py [--chinchilla PYTHON] [--out result.json]

The same data and the same objective for all: the sum of Huber(1e-3) on log loss. Dense: 240 points of Besiroglu's law
(arXiv 2404.10102) with 0.5 % noise. MoE: 200 runs of Abnar's law (arXiv 2501.12370), ten coefficients. CPU seconds of
this process and its children. `chinchilla` (PyPI) is run by the interpreter given, which must have it installed; its
gradients are numerical and in long double, so it gets 32 starts, not 4,500. About three minutes in all.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from moelab.fitting.fit import fit
from moelab.laws import get_law

DELTA = 1e-3
GRID = {
    "alpha": np.arange(0, 2.5, 0.5), "beta": np.arange(0, 2.5, 0.5), "e": np.arange(-1, 1.5, 0.5),
    "a": np.arange(0, 30, 5.0), "b": np.arange(0, 30, 5.0),
}  # fmt: skip

CHINCHILLA = """
import json, sys, tempfile, numpy as np
from chinchilla import Chinchilla
from chinchilla._metrics import log_huber
rows, grid = json.load(open(sys.argv[1]))
cc = Chinchilla(tempfile.mkdtemp(), {k: np.array(v) for k, v in grid.items()}, log_level=40,
                loss_fn=lambda y, p: log_huber(y, p, 1e-3))
for n, d, loss in rows:
    cc.append(N=n, D=d, loss=loss)
cc.visualizer.optim = lambda *args, **kwargs: None
cc.fit(parallel=True)
print(json.dumps([float(v) for v in (cc.E, cc.A, cc.B, cc.alpha, cc.beta)]))
"""


def dense_points(n: int = 240, seed: int = 1) -> dict[str, Any]:
    """Sizes of 44M to 16B, 5 to 200 tokens per parameter, 0.5 % noise."""
    rng = np.random.default_rng(seed)
    params = np.exp(rng.uniform(np.log(44e6), np.log(16e9), n))
    tokens = params * np.exp(rng.uniform(np.log(5), np.log(200), n))
    table = {"params_total": params, "tokens": tokens}
    return {**table, "loss": get_law("besiroglu2024").loss(None, table) * np.exp(0.005 * rng.standard_normal(n))}


def moe_runs(n: int = 200, seed: int = 2) -> dict[str, Any]:
    """Total sizes of 100M to 20B, sparsity 0 to 0.95, 0.5 % noise."""
    rng = np.random.default_rng(seed)
    params = np.exp(rng.uniform(np.log(1e8), np.log(2e10), n))
    sparsity = rng.choice([0.0, 0.25, 0.5, 0.75, 0.9, 0.95], n)
    tokens = params * (1 - sparsity) * np.exp(rng.uniform(np.log(5), np.log(200), n))
    table = {"params_total": params, "tokens": tokens, "sparsity": sparsity}
    return {**table, "loss": get_law("abnar2025").loss(None, table) * np.exp(0.005 * rng.standard_normal(n))}


def huber_sum(r: np.ndarray) -> float:
    """The objective of moelab and of every peer."""
    size = np.abs(r)
    return float(np.sum(np.where(size <= DELTA, 0.5 * r * r, DELTA * (size - 0.5 * DELTA))))


def dense_objective(table: dict[str, Any]) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Value and gradient by (log A, alpha, log B, beta, log E_0), written out for speed."""
    log_n, log_d, log_y = np.log(table["params_total"]), np.log(table["tokens"]), np.log(table["loss"])

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        n, d, e = np.exp(x[0] - x[1] * log_n), np.exp(x[2] - x[3] * log_d), np.exp(x[4])
        total = n + d + e
        r = log_y - np.log(total)
        pull = -np.clip(r, -DELTA, DELTA) / total
        slope = np.array([pull @ n, -pull @ (n * log_n), pull @ d, -pull @ (d * log_d), pull.sum() * e])
        return huber_sum(r), slope

    return objective


def moe_objective(table: dict[str, Any]) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Value and gradient by (log a, alpha, log b, beta, log c, lambda, log d, delta, gamma, log E_0)."""
    log_n, log_d, log_y = np.log(table["params_total"]), np.log(table["tokens"]), np.log(table["loss"])
    log_s = np.log(1 - table["sparsity"])

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        n, d = np.exp(x[0] - x[1] * log_n), np.exp(x[2] - x[3] * log_d)
        s, m = np.exp(x[4] - x[5] * log_s), np.exp(x[6] - x[7] * log_s - x[8] * log_n)
        total = n + d + s + m + np.exp(x[9])
        r = log_y - np.log(total)
        p = -np.clip(r, -DELTA, DELTA) / total
        slope = [p @ n, -p @ (n * log_n), p @ d, -p @ (d * log_d), p @ s, -p @ (s * log_s)]
        return huber_sum(r), np.array([*slope, p @ m, -p @ (m * log_s), -p @ (m * log_n), p.sum() * np.exp(x[9])])

    return objective


def bfgs(objective: Callable[[np.ndarray], tuple[float, np.ndarray]], starts: list[np.ndarray]) -> float:
    """The lowest objective that SciPy's BFGS finds."""
    best = np.inf
    with np.errstate(all="ignore"):
        for start in starts:
            best = min(best, np.nan_to_num(minimize(objective, start, jac=True, method="BFGS").fun, nan=np.inf))
    return float(best)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result and the CPU seconds of this process and its children."""
    began = time.process_time(), _children()
    result = work()
    return result, time.process_time() - began[0] + _children() - began[1]


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_chinchilla(python: str, table: dict[str, Any]) -> float:
    """The objective at the coefficients that the package finds from 32 starts around plausible values."""
    grid = {"e": [0.0, 0.8], "a": [5.0, 8.0], "b": [5.0, 8.0], "alpha": [0.25, 0.5], "beta": [0.25, 0.5]}
    rows = np.stack([table["params_total"], table["tokens"], table["loss"]], axis=1).tolist()
    with tempfile.TemporaryDirectory() as folder:
        script, data = Path(folder) / "peer.py", Path(folder) / "data.json"
        script.write_text(CHINCHILLA)
        data.write_text(json.dumps([rows, grid]))
        done = subprocess.run([python, str(script), str(data)], capture_output=True, text=True, check=True)
    e0, a, b, alpha, beta = json.loads(done.stdout.strip().splitlines()[-1])
    predicted = get_law("hoffmann2022").loss({"E_0": e0, "A": a, "B": b, "alpha": alpha, "beta": beta}, table)
    return huber_sum(np.log(table["loss"]) - np.log(predicted))


def main() -> None:
    """Run everything and print a table, ratios and whether the targets hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chinchilla", metavar="PYTHON", help="interpreter that has the chinchilla package")
    parser.add_argument("--out", help="write the measurements as JSON")
    options = parser.parse_args()
    dense, moe = dense_points(), moe_runs()
    fit(dense_points(30), "hoffmann2022", bootstrap=10)  # warm up imports
    results: dict[str, tuple[float | None, float]] = {}

    def record(name: str, work: Callable[[], float | None]) -> None:
        value, seconds = timed(work)
        results[name] = (value, seconds)
        print(f"{name:58s} {'' if value is None else f'{value:.12g}':>20s} {seconds:10.2f} CPU-s", flush=True)

    record("(a) dense point fit, moelab", lambda: fit(dense, "hoffmann2022", bootstrap=0).objective)
    record(
        "(b) dense, 1,000 bootstrap replicates, moelab", lambda: fit(dense, "hoffmann2022", bootstrap=1000).objective
    )
    record("(c) MoE point fit, moelab", lambda: fit(moe, "abnar2025", bootstrap=0).objective)
    rng = np.random.default_rng(0)
    axes = (GRID["a"], GRID["alpha"], GRID["b"], GRID["beta"], GRID["e"])
    grid = [np.array(point) for point in itertools.product(*axes)]
    some = [grid[i] for i in rng.choice(len(grid), 64, replace=False)]
    record("dense, SciPy BFGS, analytic gradient, 64 starts", lambda: bfgs(dense_objective(dense), some))
    record(f"dense, SciPy BFGS, analytic gradient, {len(grid):,} starts", lambda: bfgs(dense_objective(dense), grid))
    low = np.array([0, 0, 0, 0, 0, -1, 0, -1, 0, -1.0])
    high = np.array([20, 1.25, 20, 1.25, 20, 1, 20, 1, 1.25, 1.5])
    starts = [low + (high - low) * rng.random(10) for _ in range(64)]
    record("MoE, SciPy BFGS, analytic gradient, 64 starts", lambda: bfgs(moe_objective(moe), starts))
    wide = [low + (high - low) * rng.random(10) for _ in range(4500)]
    record("MoE, SciPy BFGS, analytic gradient, 4,500 starts", lambda: bfgs(moe_objective(moe), wide))
    if options.chinchilla:
        record("dense, chinchilla package, 32 starts", lambda: run_chinchilla(options.chinchilla, dense))
    report(results)
    if options.out:
        Path(options.out).write_text(json.dumps(results, indent=1) + "\n")


def report(results: dict[str, tuple[float | None, float]]) -> None:
    """Ratios, and the targets."""
    print()
    verdicts = []
    for letter, limit, kind in (("(a)", 0.5, "dense,"), ("(b)", 5.0, "dense,"), ("(c)", 1.0, "MoE,")):
        name = next(name for name in results if name.startswith(letter))
        ours, seconds = results[name]
        verdicts.append((f"{name}: {seconds:.2f} CPU-s (target {limit:g})", seconds <= limit))
        peers = {peer: found for peer, found in results.items() if peer.startswith(kind)}
        if letter == "(b)":
            continue
        for peer, (value, cpu) in peers.items():
            print(
                f"{name} is {cpu / seconds:,.0f} times cheaper than {peer}; objective {ours / value - 1:+.1e} relative"
            )
            if "4,500" in peer and letter == "(a)":
                verdicts.append(("at least 100 times less CPU than the full dense grid", cpu / seconds >= 100))
        best = min(value for value, _ in peers.values())
        verdicts.append((f"{letter} objective never worse than the best peer by 1e-9", ours <= best * (1 + 1e-9)))
    print()
    for text, holds in verdicts:
        print(f"{'holds' if holds else 'FAILS':6s} {text}")
    sys.exit(0 if all(holds for _, holds in verdicts) else 1)


if __name__ == "__main__":
    main()

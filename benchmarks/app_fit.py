"""How long the fit page takes for 200 rows: processor time of the whole fit and of each law.

    OMP_NUM_THREADS=1 python benchmarks/app_fit.py [--rows 200] [--profile]

It fits all laws that a table supports, as a visitor who ticks none, in the process that the page starts for it: the
processor time has everything from the file to the HTML, the start of Python and its imports excluded. Tables: mixture
of experts by ludziejewski2025 (arXiv 2502.05172, 4 to 64 experts, two granularities) and dense by besiroglu2024
(arXiv 2404.10102), both with 0.5 % noise.
"""

import argparse
import cProfile
import json
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from moelab.app.fitting import examine, fit_page
from moelab.laws import get_law

NOISE = 0.005


def moe_table(rows: int, seed: int = 1) -> dict[str, Any]:
    """Active parameters of 20M to 2B, 10 to 200 tokens per parameter."""
    rng = np.random.default_rng(seed)
    active = np.exp(rng.uniform(np.log(2e7), np.log(2e9), rows))
    tokens = active * np.exp(rng.uniform(np.log(10), np.log(200), rows))
    experts = rng.choice([4, 8, 16, 32, 64], rows)
    table: dict[str, Any] = {"params_active": active, "params_total": active * (1 + 0.6 * (experts - 1) / 2)}
    table |= {
        "tokens": tokens,
        "n_experts": experts,
        "top_k": np.full(rows, 2),
        "granularity": rng.choice([1, 2], rows),
    }
    loss = get_law("ludziejewski2025").loss(None, {"params_active": active, "tokens": tokens, "expert_ratio": experts})
    return {**table, "loss": loss * np.exp(NOISE * rng.standard_normal(rows))}


def dense_table(rows: int, seed: int = 1) -> dict[str, Any]:
    """Parameters of 44M to 16B, 5 to 200 tokens per parameter."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.uniform(np.log(44e6), np.log(16e9), rows))
    table = {"params_total": size, "tokens": size * np.exp(rng.uniform(np.log(5), np.log(200), rows))}
    return {**table, "loss": get_law("besiroglu2024").loss(None, table) * np.exp(NOISE * rng.standard_normal(rows))}


def measure(table: dict[str, Any], path: Path, profile: bool) -> dict[str, Any]:
    """Processor and wall seconds of the page's fit, and the laws it fitted."""
    np.savetxt(path, np.stack(list(table.values()), axis=1), "%.8g", ",", header=",".join(table), comments="")
    mapping = examine(str(path), path.name)["mapping"]
    watch = cProfile.Profile()
    began, cpu = time.perf_counter(), time.process_time()
    if profile:
        watch.enable()
    found = fit_page(str(path), path.name, mapping, [], lambda share: None)
    watch.disable()
    spent = {"cpu_s": round(time.process_time() - cpu, 2), "wall_s": round(time.perf_counter() - began, 2)}
    if profile:
        pstats.Stats(watch).sort_stats("cumulative").print_stats(45)
    fits = json.loads(found["fits"])["fits"]
    return {**spent, "laws": {law: round(fit["cpu_seconds"], 2) for law, fit in fits.items()}}


def main() -> None:
    """Measure and print a line for each table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, table in (("moe", moe_table(given.rows)), ("dense", dense_table(given.rows))):
            found = measure(table, Path(folder) / f"{name}.csv", given.profile)
            print(json.dumps({"table": name, "rows": given.rows, **found}), flush=True)


if __name__ == "__main__":
    main()

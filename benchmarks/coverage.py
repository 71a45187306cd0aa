"""Whether 80 % intervals cover 80 %: for every law, fits of synthetic runs at known coefficients, 0.5 % noise.

For each draw: `--runs` random designs, losses from the law times exp(0.005 z); a fit with `--replicates` bootstrap
replicates; ten fixed designs predicted with their 80 % intervals. Prints the share of intervals that hold the truth and
its standard error: draws are independent, the ten designs of one draw are not, so it is that of the draws' own shares.
200 draws of 200 replicates take one to several CPU-minutes a law. Expected: 0.75 to 0.85, give or take that error.

    python benchmarks/coverage.py --law abnar2025 --runs 160
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from moelab.fitting.fit import fit
from moelab.fitting.widening import AS_DRAWN
from moelab.laws import all_laws
from tests.conftest import some_coefficients, some_variables

NOISE, LEVELS = 0.005, (0.75, 0.85)


def coverage(law_id: str, runs: int, draws: int, replicates: int) -> tuple[float, float, float]:
    """Share of intervals that hold the truth, its standard error, and CPU seconds."""
    law = all_laws()[law_id]
    coefficients = some_coefficients(law)
    points = {name: values for name, values in some_variables(10, 123).items() if name in law.variables}
    truth = law.loss(coefficients, points)
    start, inside = time.process_time(), []
    for draw in range(draws):
        designs = some_variables(runs, 1000 + draw)
        table = {name: designs[name] for name in law.variables}
        noise = NOISE * np.random.default_rng(1001 + draw).standard_normal(runs)
        table[law.kind] = law.loss(coefficients, table) * np.exp(noise)
        fitted = replace(fit(table, law, bootstrap=replicates, starts=4), widening=AS_DRAWN)
        predicted = fitted.predict(points)
        inside.append(np.mean((predicted.low <= truth) & (truth <= predicted.high)))
    error = float(np.std(inside, ddof=1) / np.sqrt(draws))
    return float(np.mean(inside)), error, time.process_time() - start


def main() -> None:
    """Print a line per law."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--law", action="append", help="a law's id; repeatable; default: all")
    parser.add_argument("--runs", type=int, default=160)
    parser.add_argument("--draws", type=int, default=200, help="at least 2")
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--json", help="write the numbers here")
    options = parser.parse_args()
    found = {}
    for law_id in options.law or list(all_laws()):
        share, error, seconds = coverage(law_id, options.runs, options.draws, options.replicates)
        found[law_id] = {"coverage": share, "standard_error": error, "draws": options.draws}
        off = max(LEVELS[0] - share, share - LEVELS[1], 0.0)
        verdict = f"  outside 0.75 to 0.85 by {off / max(error, 1e-9):.1f} standard errors" if off else ""
        counts = f"{options.runs} runs, {options.draws} draws"
        print(f"{law_id:<22} {counts}  coverage {share:.3f} +- {error:.3f}  {seconds:.0f} CPU-s{verdict}", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""How often the interval of an isoFLOP slice holds the truth, and how wide it is beside a fit of the true law.

    OMP_NUM_THREADS=1 python benchmarks/isoflop_coverage.py [--repeats 20] [--out result.json]

Slices at 1e21 FLOPs of five laws (arXiv 2203.15556, 2402.07871, 2502.05172, 2501.12370, 2509.23678), 15 sizes in
windows of half-width x2 to x16 whose centre lies at the optimum, or half a half-width (in the logarithm) below or above
it. Noise is a relative standard deviation. The fit of the true law is its own form with the exponents and amplitudes of
size and data free, 100 bootstrap replicates. An interval that is open on a side counts as holding that side and as
infinitely wide.
Without noise, windows that end before the optimum must be reported as at the edge. About four minutes.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.fitting import isoflop_slice
from moelab.fitting.fit import fit
from moelab.laws import get_law
from moelab.laws.optimum import optimum

FLOPS = 1e21
SLICES: dict[str, tuple[str, dict[str, float], tuple[str, ...]]] = {
    "hoffmann2022": ("params_total", {}, ("E_0", "A", "alpha", "B", "beta")),
    "krajewski2024": ("params_non_embedding", {"granularity": 4}, ("E_0", "a", "alpha", "b", "beta")),
    "ludziejewski2025": ("params_active", {"n_experts": 8}, ("E_0", "a", "alpha", "b", "beta")),
    "abnar2025": ("params_total", {"sparsity": 0.9}, ("E_0", "a", "alpha", "b", "beta")),
    "fivefactor2025": (
        "params_total",
        {"activation_rate": 0.1, "active_experts": 8, "shared_share": 0.3},
        ("E_0", "a", "alpha", "b", "beta"),
    ),
}
"""By law: the axis, what is pinned, and the coefficients that a fit of the true law leaves free."""
HALF_WIDTHS = (2.0, 4.0, 8.0, 16.0)
NOISE = (0.002, 0.005, 0.01)
POINTS = 15


def true_slice(name: str, half: float, shift: float) -> tuple[str, dict[str, Any], float]:
    """The axis, the slice's table without noise, and the true optimum on the axis."""
    axis, settings, _ = SLICES[name]
    law = get_law(name)
    best = optimum(law, FLOPS, settings).values[axis]
    size = best * half**shift * np.geomspace(1 / half, half, POINTS)
    assert law.at_compute is not None
    table = law.at_compute(size, FLOPS, settings)
    return axis, {**table, "loss": law.loss(None, table)}, best


def true_fit(name: str, axis: str, table: dict[str, Any], seed: int) -> tuple[float, float]:
    """The logs of the 80 % interval's ends of the optimum under a fit of the true law to the slice."""
    law, free = get_law(name), SLICES[name][2]
    assert law.published is not None
    assert law.at_compute is not None
    fixed = {key: value for key, value in law.published.items() if key not in free}
    fitted = fit(table, law, fix=fixed, bootstrap=100, starts=32, seed=seed, objective="squared")
    size = np.geomspace(np.min(table[axis]) / 100, np.max(table[axis]) * 100, 801)
    losses = fitted.draw_losses(law.at_compute(size, FLOPS, SLICES[name][1]))
    low, high = np.quantile(np.log(size[np.argmin(losses, axis=1)]), [0.1, 0.9])
    return float(low), float(high)


def ends(found: Any) -> tuple[float, float]:
    """The interval, infinite where it is open."""
    low, high = found.optimum["low"], found.optimum["high"]
    return (0.0 if low is None else low), (np.inf if high is None else high)


def exact(name: str) -> dict[str, Any]:
    """Without noise: how many windows around the optimum hold it, and how many beside it report an edge."""
    held, inside, edges, outside, widest = 0, 0, 0, 0, 0.0
    for half in HALF_WIDTHS:
        for shift in (-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75):
            axis, table, best = true_slice(name, half, shift)
            low, high = ends(isoflop_slice(table[axis], table["loss"], name=axis, log=True))
            held, inside, widest = held + (low <= best <= high), inside + 1, max(widest, high / low - 1)
        for shift in (-2.0, -1.3, 1.3, 2.0):
            axis, table, _ = true_slice(name, half, shift)
            found = isoflop_slice(table[axis], table["loss"], name=axis, log=True)
            side = "above" if shift < 0 else "below"
            open_end = found.optimum["high" if side == "above" else "low"]
            edges, outside = edges + (found.edge == side and open_end is None), outside + 1
    return {"held": held, "inside": inside, "edges": edges, "outside": outside, "widest": widest}


def noisy(name: str, half: float, noise: float, repeats: int) -> dict[str, float]:
    """With noise: the share held, the median log width, the same of fits of the true law, and the share open."""
    rng = np.random.default_rng(int(half * 1000) + int(noise * 1e5))
    held, widths, true, true_held, open_ended = [], [], [], [], 0
    for repeat in range(repeats):
        axis, table, best = true_slice(name, half, (-0.5, 0.0, 0.5)[repeat % 3])
        table = {**table, "loss": table["loss"] * np.exp(noise * rng.standard_normal(POINTS))}
        lower, upper = true_fit(name, axis, table, repeat)
        true.append(upper - lower)
        true_held.append(lower <= np.log(best) <= upper)
        try:
            low, high = ends(isoflop_slice(table[axis], table["loss"], name=axis, log=True, seed=repeat))
        except InputError:
            low, high = np.inf, -np.inf
        held.append(low <= best <= high)
        open_ended += not (low > 0 and high < np.inf)
        widths.append(np.log(high / low) if 0 < low <= high < np.inf else np.inf)
    return {
        "held": float(np.mean(held)),
        "width": float(np.median(widths)),
        "true_width": float(np.median(true)),
        "true_held": float(np.mean(true_held)),
        "open": open_ended / repeats,
    }


def main() -> None:
    """Print both tables and whether the targets hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", help="write the measurements as JSON")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    good = True
    print("without noise      held  at the edge  widest interval")
    for name in SLICES:
        found = results[name] = exact(name)
        good &= found["held"] == found["inside"] and found["edges"] == found["outside"]
        print(
            f"{name:18s} {found['held']:2d}/{found['inside']:2d} {found['edges']:8d}/{found['outside']:2d} "
            f"{found['widest']:12.1%}",
            flush=True,
        )
    print(
        "\nnoise  half-width  held  width  true law's  held  ratio  open   (means over the five laws; widths in ln N)"
    )
    for noise in NOISE:
        for half in HALF_WIDTHS:
            rows = {name: noisy(name, half, noise, options.repeats) for name in SLICES}
            results[f"{noise:g} x{half:g}"] = rows
            keys = ("held", "width", "true_width", "true_held", "open")
            held, width, true, true_held, opened = (float(np.mean([r[k] for r in rows.values()])) for k in keys)
            ratio = np.median([r["width"] / r["true_width"] for r in rows.values()])
            good &= bool(held >= 0.75 and ratio <= 3)
            print(
                f"{noise:5.1%}  x{half:<9g} {held:5.0%} {width:6.2f} {true:10.2f} {true_held:5.0%} "
                f"{ratio:7.2f} {opened:5.0%}",
                flush=True,
            )
    if options.out:
        Path(options.out).write_text(json.dumps(results, indent=1) + "\n")
    print("\nholds" if good else "\nFAILS")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

"""How often the intervals of a rule that is fitted to a sweep of learning rates (and batches) hold the truth.

    OMP_NUM_THREADS=1 python benchmarks/sweep_coverage.py [--repeats 30] [--out result.json]

Made-up sweeps whose true optimum is the published Step Law (arXiv 2503.04715), times a lognormal scatter of 3 % per
design. A run's loss is that of arXiv 2203.15556 times exp(k u^2 (1 + 0.12 u)), u = ln(rate / optimum): k is 0.005, with
a spread of 30 % between designs; the rise above the optimum is steeper than below. Rates are spaced by a factor around
a guess that is up to 0.6 off in ln rate (`guess`), or are the same for all designs (`fixed`). From a threshold above
the optimum on, some designs diverge to a loss of 5.5 to 9.

Counted are the coefficients and the rule's rate at 1e10 parameters and 2e11 tokens, beyond every sweep. Sweeps that are
refused (too few designs with a bounded optimum) are counted apart. About two minutes.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.fitting.rules import fit_rule
from moelab.laws import get_rule

SIZES, TOKENS = (3e7, 1e8, 3e8, 1e9, 3e9), (2e9, 1e10, 5e10)
AT = {"params_non_embedding": 1e10, "tokens": 2e11}
TRUE = {"learning_rate": {"a": 1.79, "alpha": -0.713, "beta": 0.307}, "batch_tokens": {"a": 0.58, "beta": 0.571}}
BEND, SPREAD, SKEW, SCATTER = 0.005, 0.3, 0.12, 0.03


@dataclass(frozen=True)
class Cell:
    """A kind of sweep: how many sizes, tokens, rates and batches, the factor between rates, noise of the log loss, the
    share of designs that diverge at large rates, and whether all designs have the same rates."""

    sizes: int
    tokens: int
    rates: int
    factor: float
    noise: float
    diverged: float = 0.0
    fixed: bool = False
    batches: int = 1


CELLS = (
    Cell(3, 2, 5, 2.0, 0.001),
    Cell(3, 3, 3, 2.0, 0.001),
    Cell(3, 2, 4, 2.5, 0.003, 0.2),
    Cell(3, 3, 5, 2.0, 0.0002),
    Cell(3, 3, 5, 2.0, 0.0005, 0.5),
    Cell(3, 3, 5, 2.0, 0.002, 0.3, batches=4),
    Cell(4, 2, 7, 2.0, 0.002, 0.3, fixed=True),
    Cell(4, 3, 6, 10**0.5, 0.001, 0.5, fixed=True),
    Cell(5, 3, 5, 2.0, 0.002, 0.2),
    Cell(5, 3, 9, 1.5, 0.0005, 0.5, fixed=True),
)


def sweep(cell: Cell, seed: int) -> dict[str, np.ndarray]:
    """One made-up sweep as a table."""
    rng, rule = np.random.default_rng([seed, CELLS.index(cell)]), get_rule("steplaw2025")
    designs = [(n, d) for n in SIZES[: cell.sizes] for d in TOKENS[: cell.tokens]]
    best = [rule.apply(params_non_embedding=n, tokens=d) for n, d in designs]
    middle = float(np.exp(np.mean([np.log(float(each["learning_rate"])) for each in best])))
    steps = cell.factor ** (np.arange(cell.rates) - (cell.rates - 1) / 2)
    rows = []
    for (n, d), optimum in zip(designs, best, strict=True):
        rate = float(optimum["learning_rate"]) * np.exp(SCATTER * rng.standard_normal())
        batch = float(optimum["batch_tokens"]) * np.exp(SCATTER * rng.standard_normal())
        bend = BEND * np.exp(SPREAD * rng.standard_normal())
        tried = (middle if cell.fixed else rate * np.exp(rng.uniform(-0.6, 0.6))) * steps
        batches = batch * np.exp(rng.uniform(-0.6, 0.6)) * 2.0 ** (np.arange(cell.batches) - (cell.batches - 1) / 2)
        limit = rate * 3.5 * np.exp(0.4 * rng.standard_normal()) if rng.random() < cell.diverged else np.inf
        least = 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28
        for each in tried:
            for other in batches:
                away = np.log(each / rate), np.log(other / batch) if cell.batches > 1 else 0.0
                rise = sum(bend * u**2 * (1 + SKEW * np.clip(u, -2.5, 2.5)) for u in away)
                loss = least * np.exp(rise + cell.noise * rng.standard_normal())
                rows.append((n, d, each, other, rng.uniform(5.5, 9.0) if each > limit else loss))
    names = ("params_non_embedding", "tokens", "learning_rate", "batch_tokens", "loss")
    table = dict(zip(names, np.array(rows).T, strict=True))
    return table if cell.batches > 1 else {name: v for name, v in table.items() if name != "batch_tokens"}


def measured(cell: Cell, repeats: int, bootstrap: int = 200) -> dict[str, Any]:
    """By quantity and coefficient, and `at` for the rate beyond the sweep: the share held and the median width (of
    logarithms for `a` and `at`); how many sweeps were refused."""
    held: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    refused = 0
    for seed in range(repeats):
        try:
            rule = fit_rule(sweep(cell, seed), "steplaw2025", bootstrap=bootstrap, starts=8, holdout=0)
        except InputError:
            refused += 1
            continue
        true = get_rule("steplaw2025").apply(**AT)
        for quantity, fitted in rule.fits.items():
            ends = {name: (value, fitted.interval(name)) for name, value in TRUE[quantity].items()}
            ends["at"] = float(true[quantity]), rule.predict(AT)[quantity]
            for name, (value, found) in ends.items():
                low, high = (found[end] for end in ("low", "high"))
                key = f"{quantity} {name}"
                held.setdefault(key, []).append((low is None or low <= value) and (high is None or value <= high))
                logs = name in ("a", "at")
                wide = np.inf if None in (low, high) else np.log(high / low) if logs else high - low
                widths.setdefault(key, []).append(float(wide))
    return {
        "held": {name: float(np.mean(values)) for name, values in held.items()},
        "width": {name: float(np.median(values)) for name, values in widths.items()},
        "refused": refused,
    }


def main() -> None:
    """Print the table and whether the means over all cells lie within 75 to 92 %."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", help="write the measurements as JSON")
    options = parser.parse_args()
    print("designs  rates  factor  noise  diverge  rates are  refused  a    alpha beta rate  width: alpha, ln rate")
    results = []
    for cell in CELLS:
        found = measured(cell, options.repeats)
        results.append({"cell": asdict(cell), **found})
        for quantity in TRUE if cell.batches > 1 else ("learning_rate",):
            held, width = (
                {k.split()[1]: v for k, v in found[m].items() if k.startswith(quantity)} for m in ("held", "width")
            )
            shown = [f"{held[name]:4.0%}" if name in held else "   -" for name in ("a", "alpha", "beta", "at")]
            first = "alpha" if "alpha" in width else "beta"
            print(
                f"{cell.sizes * cell.tokens:7d}  {cell.rates}{f' x {cell.batches}' if cell.batches > 1 else '':4s} "
                f"{cell.factor:6.2f} {cell.noise:6.2%} {cell.diverged:8.0%}  {'fixed' if cell.fixed else 'guess':9s} "
                f"{found['refused']:7d}  {' '.join(shown)}  {width[first]:.2f}, {width['at']:.2f}  {quantity}",
                flush=True,
            )
    shares = [share for each in results for share in each["held"].values()]
    mean = float(np.mean(shares))
    good = 0.75 <= mean <= 0.92
    print(f"\nmean of all {mean:.1%}, least {min(shares):.0%}, most {max(shares):.0%}: {'holds' if good else 'FAILS'}")
    if options.out:
        Path(options.out).write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

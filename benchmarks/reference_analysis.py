"""Every figure of the reference study, from the table that ships: `make reference-analysis`.

    OMP_NUM_THREADS=1 python benchmarks/reference_analysis.py [--out FOLDER] [--bootstrap 200]

Under two minutes. Prints what the table holds, the seed noise, every law's held-out error, the coefficients of
moelab2026 with what they owe to its prior, the routers side by side, and the best learning rates. Objective and
weights of the fits are those with which the cheaper runs predict the more expensive ones best, over three inner
hold-outs. Parts for which there are too few runs yet are named. With --out it also writes the fits and the figure of
predicted against measured loss.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from reference_findings import print_optima, print_pairs, print_routers, print_saturation
from reference_rates import best_rates, rule_of

from moelab.errors import InputError
from moelab.fitting import FittedLaw, compare_laws, save_fits
from moelab.fitting.fit import fit
from moelab.fitting.observations import observations
from moelab.fitting.supported import supported_laws
from moelab.laws import Law, get_law
from moelab.report.save import save_figure
from moelab.runs.datasets import reference

FEWEST = 15
"""Runs of the routers that laws know from which laws are compared."""
FEWEST_HELD = 10
"""Held-out runs below which the printed errors rank no laws."""
WEIGHTS = {
    "none": None,
    "N_a^0.5": ("params_active", 0.5),
    "C^0.25": ("train_flops", 0.25),
    "C^0.5": ("train_flops", 0.5),
}
OBJECTIVES = ("huber:1e-3", "huber:1e-2")
INNER = (0.7, 0.8, 0.9)
"""Weights and objectives of a fit, and the shares of the runs, cheapest first, that choose among them."""
KNOWN_ROUTERS = ("", "dense", "token_choice")
COMPUTES = (1e12, 1e13, 1e14)
"""FLOPs at which the best sizes are printed: two within the runs, and one at three times the largest."""


def rates(rows: pl.DataFrame) -> None:
    """The best rate of every size and kind, and the rule."""
    best = best_rates(rows.to_dicts())
    print("\nbest learning rates")
    for active, rate in best:
        print(f"  {active:9,.0f} active parameters: {rate:.4f}")
    print(f"  rule: {rule_of(best).text}" if best else "  no size has three rates yet")


def weighted(rows: pl.DataFrame, weights: str) -> pl.DataFrame:
    """The runs with a column `weight`, 1 at the median."""
    column, power = WEIGHTS[weights] or ("tokens", 0.0)
    return rows.with_columns(weight=(pl.col(column) / pl.col(column).median()) ** power)


def settings(rows: pl.DataFrame) -> tuple[str, str]:
    """The objective and the weights with which the mean of all laws predicts the more expensive runs best."""
    rows = rows.sort("train_flops", maintain_order=True)
    laws, _ = supported_laws(rows)
    print("\nobjective and weights: error of the mean of all laws after " + ", ".join(f"{s:.0%}" for s in INNER))
    found: dict[tuple[str, str], float] = {}
    for objective in OBJECTIVES:
        for weights in WEIGHTS:
            errors = [inner_error(weighted(rows, weights), laws, objective, share) for share in INNER]
            found[objective, weights] = float(np.mean(errors))
            print(f"  {objective}, {weights:8s} " + "  ".join(f"{error:.2%}" for error in errors))
    chosen = min(found, key=lambda each: found[each])
    print(f"  chosen: {chosen[0]}, {chosen[1]}; the errors below are on the runs after 80%, which helped to choose")
    return chosen


def inner_error(rows: pl.DataFrame, laws: list[Law], objective: str, share: float) -> float:
    """Mean absolute relative error of the laws' mean on the runs beyond the cheapest `share`."""
    count = int(share * len(rows))
    seen, held, guesses = rows.head(count), rows.tail(len(rows) - count), []
    for law in laws:
        try:
            found = fit(seen, law, objective=objective, weight="weight", bootstrap=0, starts=64)
        except InputError:
            continue
        guesses.append(found.predict(held).value)
    if not guesses:
        return float("inf")
    return float(np.mean(np.abs(np.mean(guesses, axis=0) / held["loss"].to_numpy() - 1)))


def laws(rows: pl.DataFrame, bootstrap: int, out: Path | None) -> FittedLaw | None:
    """Held-out errors of all laws, and moelab2026's coefficients and optima; its fit."""
    objective, weights = settings(rows)
    options = {"objective": objective, "weight": "weight"}
    found = compare_laws(weighted(rows, weights), holdout=0.2, bootstrap=bootstrap, **options)
    print("\nlaw: error on all runs, on the fifth with most compute, bias, coverage of 80 %, extrapolation, weight")
    for row in found.rows():
        print("  " + "  ".join(f"{cell:>12s}" for cell in row))
    held = max((fitted.holdout.n_runs for fitted in found.fits.values() if fitted.holdout), default=0)
    if held < FEWEST_HELD:
        print(f"  only {held} runs are held out: these errors rank no laws yet")
    for name, reason in found.skipped.items():
        print(f"  {name}: not fitted ({reason})")
    fitted = found.fits.get("moelab2026")
    if fitted is not None:
        coefficients(fitted)
        print_optima(fitted, COMPUTES)
        print_saturation(rows, weighted(rows, weights), objective)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        save_fits(found.fits, out / "fits.json")
        save_figure(found.plot(), str(out / "predicted.svg"))
    return fitted


def coefficients(fitted: FittedLaw) -> None:
    """moelab2026's coefficients, with what they owe to the prior."""
    share = (fitted.prior or {}).get("share", {})
    print("\nmoelab2026: value, p10, p90, share owed to the prior")
    for name, value, low, high, _ in fitted.coefficient_rows():
        ends = " ".join(f"{'-' if end is None else format(end, '.5g'):>12s}" for end in (value, low, high))
        print(f"  {name:9s} {ends} {share.get(name, 0):6.0%}")


def noise(rows: pl.DataFrame) -> float | None:
    """The spread between seeds, printed."""
    found = observations(rows, get_law("moelab2026")).seed_noise()
    print(
        "\nseed noise: "
        + ("no replicates yet" if found is None else f"{found['rel']:.2%} ({found['n_groups']:.0f} points)")
    )
    return None if found is None else float(found["rel"])


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bootstrap", type=int, default=200)
    options = parser.parse_args()
    every = reference()
    runs = every.filter(pl.col("study") == "reference")
    print(
        f"{len(every)} runs: " + ", ".join(f"{n} of {study}" for study, n in every.group_by("study").len().iter_rows())
    )
    rates(every.filter(pl.col("study") == "reference-rates"))
    chosen = runs.filter(pl.col("router").fill_null("").is_in(KNOWN_ROUTERS))
    if len(chosen) < FEWEST:
        known = f"{len(runs)} finished runs, {len(chosen)} of them dense or of token choice"
        print(f"\nthe study `reference` has {known}; laws are compared from {FEWEST} on")
        return
    spread, fitted = noise(chosen), None
    try:
        fitted = laws(chosen, options.bootstrap, options.out)
    except InputError as error:
        print(f"\nno comparison yet: {error}")
    print_pairs(runs, spread, fitted)
    print_routers(runs, fitted)
    hours = float(np.sum(runs["seconds"].to_numpy())) / 3600
    print(f"\n{hours:.1f} hours of training")


if __name__ == "__main__":
    main()

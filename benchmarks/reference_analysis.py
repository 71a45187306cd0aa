"""Every figure of the reference study, from the table that ships: `make reference-analysis`.

    OMP_NUM_THREADS=1 python benchmarks/reference_analysis.py [--out FOLDER] [--bootstrap 200]

Under two minutes. Prints what the table holds, the seed noise, every law's held-out error, the coefficients of
moelab2026 with what they owe to its prior, the routers side by side, and the best learning rates. Parts for which there
are too few runs yet are named. With --out it also writes the fits and the figure of predicted against measured loss.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from reference_rates import best_rates, rule_of

from moelab.errors import InputError
from moelab.fitting import FittedLaw, compare_laws, save_fits
from moelab.fitting.observations import observations
from moelab.laws import get_law
from moelab.report.save import save_figure
from moelab.runs.datasets import reference

FEWEST = 15
"""Runs of the routers that laws know from which laws are compared."""
FEWEST_HELD = 10
"""Held-out runs below which the printed errors rank no laws."""
KNOWN_ROUTERS = ("", "dense", "token_choice")
SHAPE = ("d_model", "n_experts", "top_k", "d_expert", "tokens", "unique_tokens", "seed")


def rates(rows: pl.DataFrame) -> None:
    """The best rate of every size and kind, and the rule."""
    best = best_rates(rows.to_dicts())
    print("\nbest learning rates")
    for active, rate in best:
        print(f"  {active:9,.0f} active parameters: {rate:.4f}")
    print(f"  rule: {rule_of(best).text}" if best else "  no size has three rates yet")


def laws(rows: pl.DataFrame, bootstrap: int, out: Path | None) -> None:
    """Held-out errors of all laws, and moelab2026's coefficients."""
    found = compare_laws(rows, holdout=0.2, bootstrap=bootstrap)
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
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        save_fits(found.fits, out / "fits.json")
        save_figure(found.plot(), str(out / "predicted.svg"))


def coefficients(fitted: FittedLaw) -> None:
    """moelab2026's coefficients, with what they owe to the prior."""
    share = (fitted.prior or {}).get("share", {})
    print("\nmoelab2026: value, p10, p90, share owed to the prior")
    for name, value, low, high, _ in fitted.coefficient_rows():
        ends = " ".join(f"{'-' if end is None else format(end, '.5g'):>12s}" for end in (value, low, high))
        print(f"  {name:9s} {ends} {share.get(name, 0):6.0%}")


def noise(rows: pl.DataFrame) -> None:
    """The spread between seeds."""
    found = observations(rows, get_law("moelab2026")).seed_noise()
    print(
        "\nseed noise: "
        + ("no replicates yet" if found is None else f"{found['rel']:.2%} ({found['n_groups']:.0f} points)")
    )


def routers(rows: pl.DataFrame) -> None:
    """Hash routing and Mixture of Tokens beside token choice of the same shape."""
    by = {tuple(row[name] for name in SHAPE): row for row in rows.filter(pl.col("router") == "token_choice").to_dicts()}
    print("\nother routers: loss minus that of token choice of the same shape")
    others = rows.filter(~pl.col("router").is_in(KNOWN_ROUTERS)).sort("router", "params_active").to_dicts()
    for row in others:
        same = by.get(tuple(row[name] for name in SHAPE))
        gap = "no such run yet" if same is None else f"{row['loss'] - same['loss']:+.4f}"
        print(f"  {row['router']:18s} d{row['d_model']} {row['n_experts']} experts: {row['loss']:.4f}, {gap}")
    if not others:
        print("  none yet")


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
    noise(chosen)
    try:
        laws(chosen, options.bootstrap, options.out)
    except InputError as error:
        print(f"\nno comparison yet: {error}")
    routers(runs)
    hours = float(np.sum(runs["seconds"].to_numpy())) / 3600
    print(f"\n{hours:.1f} hours of training")


if __name__ == "__main__":
    main()

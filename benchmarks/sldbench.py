"""SLDBench's MoE task (arXiv 2507.21184): Clark's runs of 1.3B from those below, with E and N the only columns.

    MOELAB_PUBLISHED_RUNS=... OMP_NUM_THREADS=1 python benchmarks/sldbench.py

221 runs whose last step is 249,000: 193 below 1e9 are fitted, 28 at 1.3B held out. Objective and weights are chosen by
the inner hold-out alone (runs up to 132M predict those of 368M); the prior knows nothing of Clark's paper. Reference:
the human baseline's R2 is 0.703, the best published 0.963. About half a minute.
"""

import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
from holdout import OBJECTIVES, WEIGHTS, fitted_law, prepared
from prior_tables import LARGEST, tables

from moelab.fitting.hierarchy import build_prior
from moelab.fitting.prior import Prior
from moelab.laws import get_law
from moelab.laws.clark2022 import TOKENS

LAW = get_law("moelab2026")
LAST_STEP, INNER = 249_000, 3e8


def task(folder: Path) -> pl.DataFrame:
    """The task's rows."""
    rows = pl.read_csv(folder / "clark2022" / "final_losses.csv").filter(pl.col("step") == LAST_STEP)
    return prepared(
        rows.select(
            params_active=pl.col("dense_parameter_count"),
            expert_ratio=pl.col("num_experts").cast(pl.Float64),
            tokens=pl.lit(TOKENS),
            train_flops=6 * pl.col("dense_parameter_count") * TOKENS,
            loss=pl.col("loss_validation"),
        )
    )


def r_squared(fit_rows: pl.DataFrame, rest: pl.DataFrame, setting: tuple[str, str | None], prior: Prior) -> float:
    """R2 of the losses of `rest`."""
    guess = fitted_law(LAW, fit_rows, setting, prior, 0).predict(rest).value
    measured = rest["loss"].to_numpy()
    return float(1 - np.sum((guess - measured) ** 2) / np.sum((measured - measured.mean()) ** 2))


def main() -> None:
    """Choose on the inner hold-out, then open the task's."""
    folder = os.environ.get("MOELAB_PUBLISHED_RUNS")
    if not folder:
        sys.exit("MOELAB_PUBLISHED_RUNS must name the folder of published runs")
    rows = task(Path(folder))
    below, above = rows.filter(pl.col("params_active") < LARGEST), rows.filter(pl.col("params_active") >= LARGEST)
    prior = build_prior(LAW, tables(Path(folder), without=("clark2022",)), "without clark2022")
    small, middle = below.filter(pl.col("params_active") < INNER), below.filter(pl.col("params_active") >= INNER)
    inner = {(o, w): r_squared(small, middle, (o, w), prior) for o in OBJECTIVES for w in WEIGHTS}
    for setting, value in inner.items():
        print(f"inner R2 {value:6.3f}  {setting[0]}{', weights N^0.5' if setting[1] else ''}")
    chosen = max(inner, key=lambda setting: inner[setting])
    print(
        f"{len(below)} runs fitted, {len(above)} held out with {chosen}: "
        f"R2 {r_squared(below, above, chosen, prior):.3f}"
    )


if __name__ == "__main__":
    main()

"""By how much laws fitted without a prior go wrong beyond the fitted runs, and whether their intervals hold that.

    MOELAB_PUBLISHED_RUNS=... OMP_NUM_THREADS=1 python benchmarks/extrapolation.py

The drift of a law is its relative error for each e-fold of parameters times tokens beyond the largest fitted run, where
its bootstrap draws do not explain it. First it is measured for every law on every table: the cheapest half and two
thirds of the runs predict the others. The mean over papers of the root mean square is `ALONE` of
moelab.fitting.widening. Then the cheapest 15, 30 and half of each table's runs predict the rest, and 80 % intervals of
one more run are counted: as drawn, and as fits have them, with ALONE measured again without the table's paper. Where
dense and MoE runs are both held out, the share of the squared error in which they differ is `BETWEEN`: half the squared
difference of their mean errors over the mean square. Less than a minute.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
from holdout import OURS, fixed, laws_for, prepared
from prior_tables import LARGEST, run_tables

from moelab.errors import InputError
from moelab.fitting import bootstrap_fit
from moelab.fitting.fit import fit_observations
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.observations import observations
from moelab.fitting.widening import ALONE, AS_DRAWN, BETWEEN, beyond
from moelab.laws import Law

FEWEST_ROWS, DRAWS = 20, 100
OPTIONS = {"objective": "huber:1e-2", "starts": 32, "prior": "none"}
ROOT = Path(__file__).parents[1]


def all_tables(folder: Path, ours: Path) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Name, paper and runs of each table with enough of them; Clark's largest were seen when laws were chosen."""
    for name, (paper, _, rows) in run_tables(folder, ours).items():
        rows = prepared(rows)
        rows = rows.filter(pl.col("params_active") < LARGEST) if paper == "clark2022" else rows
        if len(rows) >= FEWEST_ROWS:
            yield name, paper, rows


def fitted(rows: pl.DataFrame, law: Law, usual: tuple[float, float]) -> FittedLaw:
    """A fit, where other tables have this drift, worth so many splits."""
    with patch.object(bootstrap_fit, "ALONE", usual):
        data = observations(rows, law, group="none")
        return fit_observations(data, law, fix=fixed(law, rows), bootstrap=DRAWS, **OPTIONS)


def drifts(tables: list[tuple[str, str, pl.DataFrame]]) -> dict[str, float]:
    """By paper, the root mean square of the drift over laws and tables."""
    found: dict[str, list[float]] = defaultdict(list)
    for name, paper, rows in tables:
        for law in laws_alone(rows):
            own = fitted(rows, law, (1.0, 1e-12)).widening
            if own.drift < 1:  # of no held-out run beyond the others, what was given stays
                found[paper].append(own.drift)
                print(f"{name:34s} {law.id:24s} {own.drift:7.2%} of {own.held_out} held-out runs", flush=True)
    return {paper: float(np.sqrt(np.mean(np.square(own)))) for paper, own in found.items()}


def laws_alone(rows: pl.DataFrame) -> list[Law]:
    """The laws that the table supports, but for ours, which is fitted with a prior."""
    return [law for law in laws_for(rows) if not law.id.startswith(OURS)]


def inside(
    name: str, paper: str, rows: pl.DataFrame, by_paper: Mapping[str, float]
) -> Iterator[tuple[float, float, float, float]]:
    """For each law and number of fitted runs: the shares of held-out runs inside intervals as drawn and as fits have
    them, half the width of the latter, and the share of the squared error between dense and MoE runs."""
    usual = float(np.mean([drift for other, drift in by_paper.items() if other != paper])), ALONE[1]
    for count in (15, 30, len(rows) // 2):
        if count > len(rows) - 4:
            continue
        rest = rows.tail(len(rows) - count)
        measured = rest["loss"].to_numpy()
        for law in laws_alone(rows):
            try:
                found = fitted(rows.head(count), law, usual)
            except InputError:
                continue
            shares = []
            for widening in (AS_DRAWN, found.widening):
                at = replace(found, widening=widening).predict(rest, noise=True)
                shares.append(float(np.mean((at.low <= measured) & (measured <= at.high))))
            off, half = np.mean(np.abs(at.value / measured - 1)), float(np.mean((at.high - at.low) / 2 / at.value))
            head = f"{name:34s} {count:4d} {law.id:24s} error {off:6.2%}, drift {found.widening.drift:.2%}"
            print(f"{head}, half-width {half:.1%}, inside {shares[0]:.0%}, {shares[1]:.0%}", flush=True)
            yield (*shares, half, between(found, rest, at.value))


def between(found: FittedLaw, rest: pl.DataFrame, predicted: np.ndarray) -> float:
    """Half the squared difference of the mean errors of dense and of MoE runs per e-fold, over the mean square; NaN
    with fewer than two of a kind."""
    data = observations(rest, found.law)
    errors = np.log(data.measured / predicted) / np.maximum(beyond(data.variables, found.widening.reach), 1.0)
    dense = data.kinds == "dense"
    if min(dense.sum(), (~dense).sum()) < 2:
        return float("nan")
    return float((errors[dense].mean() - errors[~dense].mean()) ** 2 / 2 / np.mean(errors**2))


def main() -> None:
    """Print the drift by table and law, ALONE, and the shares of held-out runs inside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, default=ROOT / "results" / "reference", help="folder of own records")
    options = parser.parse_args()
    folder = os.environ.get("MOELAB_PUBLISHED_RUNS")
    if not folder:
        parser.error("set MOELAB_PUBLISHED_RUNS to the folder of the public run tables")
    tables = list(all_tables(Path(folder), options.reference))
    by_paper = drifts(tables)
    print("drift by paper: " + ", ".join(f"{paper} {drift:.2%}" for paper, drift in by_paper.items()))
    print(f"mean over papers {np.mean(list(by_paper.values())):.2%}; ALONE holds {ALONE[0]:.2%}")
    shares: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    for name, paper, rows in tables:
        shares[paper] += inside(name, paper, rows, by_paper)
    for paper, found in [*shares.items(), ("all", [row for rows in shares.values() for row in rows])]:
        drawn, wider, half, _ = np.mean(found, axis=0)
        print(f"{paper}: {len(found)} fits; inside {drawn:.0%} as drawn, {wider:.0%} with the drift (+-{half:.1%})")
    kinds = {paper: [row[3] for row in found if np.isfinite(row[3])] for paper, found in shares.items()}
    medians = {paper: float(np.median(known)) for paper, known in kinds.items() if known}
    print(
        "between dense and MoE runs, median: " + ", ".join(f"{paper} {share:.2f}" for paper, share in medians.items())
    )
    print(f"mean over papers {np.mean(list(medians.values())):.2f}; BETWEEN holds {BETWEEN:.2f}")


if __name__ == "__main__":
    main()

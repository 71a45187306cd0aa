"""A contest of laws that cannot be cheated: fit the cheapest runs of a table, predict the rest.

    MOELAB_PUBLISHED_RUNS=... OMP_NUM_THREADS=1 python benchmarks/holdout.py [--out result.json] [--markdown table.md]

Cells: every table x its cheapest 15, 30 and half of the runs, and every table left out whole. In each cell moelab2026's
prior is rebuilt without the table's paper: its runs, its other routers, its coefficients. Objective and weights are
chosen per law and cell by an inner hold-out (the cheapest two thirds of the fitted runs predict the others), which is
printed. So is the factor on moelab2026's intervals that each fit takes from hold-outs of its own runs. Clark's runs of
1.3B were seen while moelab2026 was found: they are reported and not counted. About two minutes.
"""

import argparse
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from prior_tables import LARGEST, run_tables, tables

from moelab.errors import InputError
from moelab.fitting.fit import fit
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.hierarchy import build_prior
from moelab.fitting.observations import observations
from moelab.fitting.prior import Prior, to_coefficients
from moelab.fitting.supported import supported_laws
from moelab.laws import Law, get_law
from moelab.laws.reuse import SUFFIX

OURS = "moelab2026"
SIZES: tuple[int | str, ...] = (15, 30, "half")
OBJECTIVES = ("huber:1e-3", "huber:1e-2", "squared")
WEIGHTS: tuple[str | None, ...] = (None, "weight")
NO_DATA_TERM: dict[str, dict[str, float]] = {
    "ludziejewski2025": {"b": 1e-9, "beta": -0.1775, "omega": 0.0, "zeta": 0.0},
    "wang2024": {"B": 1e-9, "beta": 0.2},
    "yun2024": {"C": 1e-9, "gamma": 0.2},
    "abnar2025": {"b": 1e-9, "beta": 0.3954},
    "hoffmann2022": {"B": 1e-9, "beta": 0.2849},
}
"""Where all runs saw as many tokens, a law's data term is not identified and is switched off."""
NEAR, WITHIN = 0.05, 1.10
"""Runs within this share of FLOPs are one budget; errors within this factor of the lowest are near it."""
DRAWS, SEED = 200, 0


@dataclass(frozen=True)
class Score:
    """One law in one cell: what was chosen on the inner hold-out, and the errors on the held-out runs."""

    setting: str
    inner: float | None
    errors: np.ndarray
    inside: np.ndarray
    regret: float | None


@dataclass
class Cell:
    """One table and how many of its cheapest runs are fitted (0: none)."""

    table: str
    size: int | str
    fitted: int
    scores: dict[str, Score] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Table and size."""
        return f"{self.table}, {'left out whole' if self.size == 0 else f'cheapest {self.size}'}"

    def error(self, law: str) -> float:
        """Mean absolute relative error."""
        return float(np.mean(np.abs(self.scores[law].errors)))

    def best(self) -> str:
        """The law with the lowest error."""
        return min(self.scores, key=self.error)

    def holds(self) -> bool:
        """Whether moelab2026 is lowest, or within 10 % of it with a paired difference that may be 0."""
        best = self.best()
        if OURS not in self.scores:
            return False
        if best == OURS:
            return True
        low, high = paired(self.scores[OURS].errors, self.scores[best].errors)
        return self.error(OURS) <= WITHIN * self.error(best) and low <= 0 <= high


def paired(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean difference of absolute errors over the same runs."""
    gap = np.abs(ours) - np.abs(theirs)
    rng = np.random.default_rng(SEED)
    means = gap[rng.integers(0, len(gap), (2000, len(gap)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def prepared(rows: pl.DataFrame) -> pl.DataFrame:
    """Runs in order of their compute, with weights that favour large ones."""
    rows = rows.sort("train_flops", maintain_order=True)
    size = rows["params_active"].to_numpy()
    return rows.with_columns(weight=np.sqrt(size / np.median(size)))


def laws_for(rows: pl.DataFrame) -> list[Law]:
    """Every law that the table supports."""
    return supported_laws(rows)[0]


def fixed(law: Law, rows: pl.DataFrame) -> dict[str, float]:
    """The data term switched off where the runs have one number of tokens."""
    return NO_DATA_TERM.get(law.id, {}) if rows["tokens"].n_unique() == 1 else {}


def fitted_law(law: Law, rows: pl.DataFrame, setting: tuple[str, str | None], prior: Prior, draws: int) -> FittedLaw:
    """One fit of the contest."""
    objective, weight = setting
    ours = law.id == OURS
    extra: dict[str, Any] = {"prior": prior} if ours else {"fix": fixed(law, rows)}
    return fit(
        rows, law, objective=objective, weight=weight, bootstrap=draws, starts=64, seed=SEED, group="none", **extra
    )


def inner_error(law: Law, rows: pl.DataFrame, setting: tuple[str, str | None], prior: Prior) -> float:
    """The error of the cheapest two thirds of the fitted runs on the others; infinite where there is none."""
    count = max(3, 2 * len(rows) // 3)
    try:
        found = fitted_law(law, rows.head(count), setting, prior, 0)
        rest = rows.tail(len(rows) - count)
        return float(np.mean(np.abs(found.predict(rest).value / rest["loss"].to_numpy() - 1)))
    except InputError:
        return np.inf


def score(law: Law, rows: pl.DataFrame, rest: pl.DataFrame, prior: Prior) -> Score:
    """Choose the setting on the inner hold-out, then fit, then open the held-out runs."""
    inner = {(o, w): inner_error(law, rows, (o, w), prior) for o in OBJECTIVES for w in WEIGHTS}
    chosen = min(inner, key=lambda setting: inner[setting])
    found = fitted_law(law, rows, chosen, prior, DRAWS)
    guess = found.predict(rest, noise=True)
    measured = rest["loss"].to_numpy()
    text = chosen[0] + (", weights N^0.5" if chosen[1] else "")
    if law.id == OURS:
        text += f", intervals x {found.widening.factor:.2f}, drift {found.widening.drift:.2%} per e-fold"
    best = inner[chosen] if np.isfinite(inner[chosen]) else None
    inside = (guess.low <= measured) & (measured <= guess.high)
    return Score(text, best, guess.value / measured - 1, inside, regret(guess.value, rest))


def whole(law: Law, rest: pl.DataFrame, prior: Prior) -> Score:
    """The table without a fit: the mean of the prior for moelab2026, published coefficients for others."""
    data = observations(rest, law)
    if law.id == OURS:
        prior = prior.of(law).of_text(data.bytes_per_token)
        draws = law.loss(prior.draw_coefficients(law, 2000, SEED), data.variables)
        value = law.loss(to_coefficients(law, prior.mean[None]), data.variables)[0]
        low, high = np.quantile(draws, [0.1, 0.9], axis=0)
    else:
        value, low, high = law.loss(None, data.variables), np.nan, np.nan
    inside = (low <= data.measured) & (data.measured <= high)
    return Score("no fit", None, np.asarray(value) / data.measured - 1, inside, regret(np.asarray(value), rest))


def regret(predicted: np.ndarray, rest: pl.DataFrame) -> float | None:
    """Excess loss of the design that a law chooses among the held-out ones of each budget, mean over the budgets."""
    flops, measured = np.log(rest["train_flops"].to_numpy()), rest["loss"].to_numpy()
    order, found, first = np.argsort(flops), [], 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and flops[order[last + 1]] - flops[order[first]] <= np.log1p(NEAR):
            last += 1
        rows = order[first : last + 1]
        if len(rows) >= 3:
            found.append(measured[rows[np.argmin(predicted[rows])]] / measured[rows].min() - 1)
        first = last + 1
    return float(np.mean(found)) if found else None


def contest(folder: Path, ours: Path) -> tuple[list[Cell], dict[str, dict[str, float]]]:
    """All cells, and the errors on Clark's 1.3B runs, which do not count."""
    cells: list[Cell] = []
    seen: dict[str, dict[str, float]] = {}
    priors: dict[str, Prior] = {}
    for table, (group, _, rows) in run_tables(folder, ours).items():
        if len(rows) < 20:
            continue
        if group not in priors:
            priors[group] = build_prior(
                get_law(OURS), tables(folder, ours, without=excluded(group)), f"without {group}"
            )
        prior = priors[group]
        rows = prepared(rows)
        largest = rows.filter((pl.col("params_active") >= LARGEST) & (group == "clark2022"))
        rows = rows.filter((pl.col("params_active") < LARGEST) | (group != "clark2022"))
        for size in (*SIZES, 0):
            count = len(rows) // 2 if size == "half" else int(size)
            if count >= len(rows) - 3:
                continue
            cell = Cell(table, size, count, sources=tuple(source["group"] for source in prior.sources))
            print(f"\n{cell.name} ({count} runs fitted, {len(rows) - count} held out)", flush=True)
            run_cell(cell, rows, count, prior)
            cells.append(cell)
        if len(largest):
            seen[table] = on_largest(rows, largest, prior)
    return cells, seen


def foreign(laws: list[Law], table: str) -> list[Law]:
    """The laws whose published coefficients owe nothing to the table's paper; without +reuse where that is its own."""
    paper = table.split()[0]
    found = [get_law(law.id.removesuffix(SUFFIX)) if paper == "muennighoff2023" else law for law in laws]
    return [law for law in found if law.id.split("-")[0] != paper]


def excluded(group: str) -> tuple[str, ...]:
    """The groups of sources that fall with a table's paper: Clark's routers share one group."""
    return (group,)


def run_cell(cell: Cell, rows: pl.DataFrame, count: int, prior: Prior) -> None:
    """Every law in one cell."""
    rest = rows.tail(len(rows) - count)
    for law in laws_for(rows) if count else foreign(laws_for(rows), cell.table):
        try:
            cell.scores[law.id] = score(law, rows.head(count), rest, prior) if count else whole(law, rest, prior)
        except InputError as error:
            cell.unfit[law.id] = str(error)
            continue
        found = cell.scores[law.id]
        inner = "-" if found.inner is None else f"{found.inner:.2%}"
        print(f"  {law.id:24s} inner {inner:>7s} ({found.setting}): {cell.error(law.id):.2%}", flush=True)


def on_largest(rows: pl.DataFrame, largest: pl.DataFrame, prior: Prior) -> dict[str, float]:
    """Errors on Clark's 1.3B runs after a fit to all others."""
    found = {}
    for law in laws_for(rows):
        try:
            found[law.id] = float(np.mean(np.abs(score(law, rows, largest, prior).errors)))
        except InputError:
            continue
    return found


def summary(cells: list[Cell]) -> dict[str, Any]:
    """In how many cells the goal holds, coverage pooled over the held-out runs, and regret law by law."""
    counted = [cell for cell in cells if OURS in cell.scores]
    fits = [cell for cell in counted if cell.size != 0]
    inside = np.concatenate([cell.scores[OURS].inside for cell in fits])
    laws = sorted({law for cell in fits for law in cell.scores})
    regrets = {
        law: [cell.scores[law].regret for cell in fits if law in cell.scores and cell.scores[law].regret is not None]
        for law in laws
    }
    return {
        "cells": len(counted),
        "held": sum(cell.holds() for cell in counted),
        "lowest": sum(cell.best() == OURS for cell in counted),
        "coverage_80": float(np.mean(inside)),
        "lost": [cell.name for cell in counted if not cell.holds()],
        "regret": {law: float(np.mean(values)) for law, values in regrets.items() if values},
    }


def markdown(cells: list[Cell], seen: dict[str, dict[str, float]]) -> str:
    """The table of docs: per cell moelab2026's error, coverage and regret beside the best other law."""
    head = "| table | fitted | moelab2026 | coverage | best other law | goal |\n|---|---|---|---|---|---|"
    lines = [head]
    for cell in cells:
        others = {law: cell.error(law) for law in cell.scores if law != OURS}
        law = min(others, key=lambda name: others[name]) if others else ""
        ours = cell.scores[OURS]
        lines.append(
            f"| {cell.table} | {'none' if cell.size == 0 else cell.fitted} | {cell.error(OURS):.2%} "
            f"| {np.mean(ours.inside):.0%} | {f'{law} {others[law]:.2%}' if others else 'none applies'} "
            f"| {'holds' if cell.holds() else 'lost'} |"
        )
    for table, errors in seen.items():
        law = min((name for name in errors if name != OURS), key=lambda name: errors[name])
        lines.append(
            f"| {table}, 1.3B (seen, not counted) | all others | {errors[OURS]:.2%} | | {law} {errors[law]:.2%} | |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the contest, print and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--markdown", type=Path, help="write the table of docs/benchmarks.md")
    parser.add_argument("--reference", type=Path, default=Path(__file__).parents[1] / "results" / "reference")
    options = parser.parse_args()
    folder = os.environ.get("MOELAB_PUBLISHED_RUNS")
    if not folder:
        parser.error("MOELAB_PUBLISHED_RUNS must name the folder of published runs")
    cells, seen = contest(Path(folder), options.reference)
    found = summary(cells)
    print("\n" + markdown(cells, seen) + "\n")
    print(json.dumps(found, indent=1))
    if options.out:
        rows = [
            {
                "cell": cell.name,
                "errors": {law: cell.error(law) for law in cell.scores},
                "settings": {law: each.setting for law, each in cell.scores.items()},
                "inner": {law: each.inner for law, each in cell.scores.items()},
                "regret": {law: each.regret for law, each in cell.scores.items()},
                "coverage_80": float(np.mean(cell.scores[OURS].inside)),
                "unfit": cell.unfit,
                "sources": cell.sources,
                "holds": cell.holds(),
            }
            for cell in cells
        ]
        options.out.write_text(json.dumps({"summary": found, "cells": rows, "seen": seen}, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(cells, seen) + "\n")


if __name__ == "__main__":
    main()

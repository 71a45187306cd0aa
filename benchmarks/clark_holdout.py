"""Predict Clark's 1.3B runs from those up to 370M, with the way to do it chosen without looking at them.

    MOELAB_PUBLISHED_RUNS=... OMP_NUM_THREADS=1 python benchmarks/clark_holdout.py [--out result.json]

Runs: Clark et al. 2022 (arXiv 2202.01169), three routers, 130B tokens each, `loss_validation`. Candidates are laws,
weights that favour large runs, a constant shrunk to another paper's, and an ensemble. The choice is made by two inner
hold-outs, pooled over the routers (fit up to 57M, predict 130M; fit up to 130M, predict 370M); only then are the 1.3B
runs opened, for all candidates, so that the reader sees what the choice was worth. About a minute.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from moelab.fitting import FittedLaw
from moelab.fitting.fit import fit
from moelab.fitting.prediction import Prediction
from moelab.fitting.widening import AS_DRAWN
from moelab.laws import get_law

SIZES = (57369600, 132163584, 368123904, 1308819456)
ROUTERS = {"S-Base": "sbase", "RL-R": "rlr", "Hash": "hash"}
NO_DATA_TERM = {"b": 1e-9, "beta": -0.1775, "omega": 0.0, "zeta": 0.0}
"""All runs saw 130B tokens: the joint law's data term is not identified and is switched off."""
FLOOR = float((get_law("ludziejewski2025").published or {})["E_0"])

CANDIDATES: dict[str, tuple[str, dict[str, float], str | None]] = {
    "published form (Clark)": ("clark2022-sbase", {}, None),
    "published form, weights ~ N": ("clark2022-sbase", {}, "weight"),
    "Clark without saturation": ("clark2022-bilinear", {}, None),
    "joint law (constant fitted)": ("ludziejewski2025", NO_DATA_TERM, None),
    "joint law, weights ~ N": ("ludziejewski2025", NO_DATA_TERM, "weight"),
    "joint law, constant 1.3637": ("ludziejewski2025", {**NO_DATA_TERM, "E_0": FLOOR}, None),
    "joint law, constant 1.3637, weights ~ N": ("ludziejewski2025", {**NO_DATA_TERM, "E_0": FLOOR}, "weight"),
    "Wang": ("wang2024", {"B": 1e-9, "beta": 0.2}, None),
    "Wang, weights ~ N": ("wang2024", {"B": 1e-9, "beta": 0.2}, "weight"),
}
ENSEMBLE = "ensemble of all, weights by inner error"


def runs_of(router: str, folder: Path) -> dict[str, np.ndarray]:
    """One router's runs and the dense ones, as the paper fits them, with the columns that the candidates name."""
    rows = pl.read_csv(folder / "clark2022" / "final_losses.csv").filter(
        (pl.col("routing_frequency") == 0.5)
        & (pl.col("k") == 1)
        & (pl.col("seed") == 42)
        & pl.col("router_type").is_in([router, "Dense"])
    )
    params, experts = rows["dense_parameter_count"].to_numpy(), rows["num_experts"].to_numpy().astype(float)
    columns = dict.fromkeys(("params_active_non_embedding", "params_active"), params)
    columns |= dict.fromkeys(("n_experts", "expert_ratio"), experts)
    return {
        **columns,
        "tokens": np.full(len(params), 130e9),
        "weight": params / 1e8,
        "loss": rows["loss_validation"].to_numpy(),
    }


def chosen(table: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Some rows of a table."""
    return {name: values[rows] for name, values in table.items()}


def largest(table: dict[str, np.ndarray], target: float) -> dict[str, np.ndarray]:
    """The runs of one size."""
    return chosen(table, np.abs(table["params_active"] / target - 1) < 0.01)


def coverage(predicted: Prediction, measured: np.ndarray) -> float:
    """The share of runs inside their intervals."""
    return float(np.mean((predicted.low <= measured) & (measured <= predicted.high)))


def trial(
    name: str, table: dict[str, np.ndarray], limit: float, target: float, bootstrap: int = 0
) -> tuple[FittedLaw, Prediction]:
    """Fit a candidate to sizes up to `limit` and predict the runs of size `target`."""
    law, fix, weight = CANDIDATES[name]
    size = table["params_active"]
    fitted = fit(
        chosen(table, size <= 1.01 * limit), law, fix=fix, weight=weight, objective="squared", bootstrap=bootstrap
    )
    return fitted, fitted.predict(largest(table, target), noise=True)


def errors(table: dict[str, np.ndarray], target: float, predicted: np.ndarray) -> np.ndarray:
    """Relative errors on the runs of one size."""
    return predicted / table["loss"][np.abs(table["params_active"] / target - 1) < 0.01] - 1


def main() -> None:
    """Choose on inner hold-outs, then open the largest runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="write the numbers as JSON")
    options = parser.parse_args()
    folder = os.environ.get("MOELAB_PUBLISHED_RUNS")
    if not folder:
        parser.error("MOELAB_PUBLISHED_RUNS must name the folder of published runs")
    tables = {router: runs_of(router, Path(folder)) for router in ROUTERS}
    inner = {name: inner_errors(name, tables) for name in CANDIDATES}
    score = {name: float(np.mean([np.abs(e).mean() for e in found])) for name, found in inner.items()}
    weights = {name: 1 / float(np.mean(np.concatenate(found) ** 2)) for name, found in inner.items()}
    choice = min(score, key=lambda name: score[name])
    print(f"chosen on the inner hold-outs: {choice}\n")
    print(f"{'candidate':42s} {'inner':>7s}   {'1.3B: error, bias, inside: drawn, with drift: ' + ', '.join(ROUTERS)}")
    results: dict[str, Any] = {"chosen": choice, "inner": score, "outer": {}}
    logs: dict[str, list[np.ndarray]] = {}
    for name in CANDIDATES:
        cells, results["outer"][name] = [], {}
        for router, table in tables.items():
            fitted, predicted = trial(name, table, SIZES[2], SIZES[3], bootstrap=500)
            relative = errors(table, SIZES[3], predicted.value)
            measured = predicted.value / (1 + relative)
            drawn = replace(fitted, widening=AS_DRAWN).predict(largest(table, SIZES[3]), noise=True)
            cover, before = coverage(predicted, measured), coverage(drawn, measured)
            logs.setdefault(router, []).append(np.log(predicted.value))
            cells.append(f"{np.abs(relative).mean():6.2%} {relative.mean():+7.2%} {before:4.0%} {cover:4.0%}")
            results["outer"][name][router] = {
                "in_sample": fitted.in_sample["mean_abs_rel"],
                "mean_abs_rel": float(np.abs(relative).mean()),
                "bias_rel": float(relative.mean()),
                "coverage_80": cover,
                "coverage_80_as_drawn": before,
                "mean_width_rel": float(np.mean((predicted.high - predicted.low) / predicted.value)),
            }
        print(f"{name:42s} {score[name]:7.2%}   {'   '.join(cells)}{'   <- chosen' if name == choice else ''}")
    share = np.array([weights[name] for name in CANDIDATES]) / sum(weights.values())
    cells = []
    for router, table in tables.items():
        relative = errors(table, SIZES[3], np.exp(share @ np.array(logs[router])))
        cells.append(f"{np.abs(relative).mean():6.2%} {relative.mean():+7.2%}     ")
    print(f"{ENSEMBLE:42s} {'':7s}   {'   '.join(cells)}")
    print("\nin-sample error of the published form: ", end="")
    print(", ".join(f"{found['in_sample']:.2%}" for found in results["outer"]["published form (Clark)"].values()))
    if options.out:
        Path(options.out).write_text(json.dumps(results, indent=1) + "\n")


def inner_errors(name: str, tables: dict[str, dict[str, np.ndarray]]) -> list[np.ndarray]:
    """Errors of both inner hold-outs for every router."""
    return [
        errors(table, SIZES[i + 1], trial(name, table, SIZES[i], SIZES[i + 1])[1].value)
        for i in (0, 1)
        for table in tables.values()
    ]


if __name__ == "__main__":
    main()

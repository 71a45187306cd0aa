"""What the reference study's runs say of each question, by pairs of runs that differ in one thing.

`make reference-analysis` prints it. A pair has one size, one number of tokens per active parameter, the same epochs,
experts, granularity, shared experts, router and seed, but for what it compares.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from moelab.errors import InputError
from moelab.fitting import FittedLaw
from moelab.fitting.fit import fit
from moelab.fitting.observations import observations
from moelab.fitting.prior import Prior, shipped

AXES = ("d_model", "tokens_per_active", "epochs", "expansion", "granularity", "shared", "router", "seed")
"""What a pair has in common but for one; `expansion` is the width of all experts over the dense feed-forward's."""
QUESTIONS = {
    "granularity": "experts of a half, a quarter and an eighth of the width, as many more of them",
    "expansion": "more experts of the same width",
    "shared": "one of the chosen experts shared",
    "epochs": "the same tokens from less text, repeated",
}


def with_axes(rows: pl.DataFrame) -> pl.DataFrame:
    """The runs with the columns of AXES; sizes that embeddings and routers change a little count as one."""
    ratio = (pl.col("tokens") / pl.col("params_active")).log(2).round(1)
    dense = {"granularity": 1.0, "expansion": 1.0, "n_shared_experts": 0, "router": "dense"}
    filled = rows.with_columns(pl.col(name).fill_null(value) for name, value in dense.items())
    return filled.with_columns(
        tokens_per_active=(2.0**ratio).round(0),
        epochs=pl.col("epochs").round(),
        expansion=2.0 ** pl.col("expansion").log(2).round(),
        shared=pl.col("n_shared_experts"),
    )


def pairs(rows: pl.DataFrame, axis: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Runs that differ in `axis` alone, each beside the next higher one."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows.to_dicts():
        groups.setdefault(tuple(row[name] for name in AXES if name != axis), []).append(row)
    found = []
    for group in groups.values():
        group.sort(key=lambda row: row[axis])
        found += [(low, high) for low, high in pairwise(group) if low[axis] < high[axis]]
    return sorted(found, key=lambda pair: (pair[0][axis], pair[1][axis], pair[0]["params_active"]))


def print_pairs(rows: pl.DataFrame, noise: float | None, law: FittedLaw | None) -> None:
    """For each question its pairs, with the mean difference by step; after each pair's place what moelab2026 has,
    fitted to the runs that it describes."""
    rows = with_axes(rows)
    fitted = {} if law is None else fitted_losses(rows, law)
    spread = "" if noise is None else f"; seeds differ by {np.sqrt(2) * noise:.2%} between two runs"
    for axis, meaning in QUESTIONS.items():
        found = pairs(rows, axis)
        print(f"\n{axis}: {meaning}; loss of the second over the first, less one ({len(found)} pairs{spread})")
        steps: dict[tuple[float, float], list[tuple[str, float]]] = {}
        for low, high in found:
            where = f"d{low['d_model']} {low['tokens_per_active']:.0f}x{'' if axis == 'epochs' else _epochs(low)}"
            if {low["run_id"], high["run_id"]} <= set(fitted):
                where += f": {fitted[high['run_id']] / fitted[low['run_id']] - 1:+.1%}"
            steps.setdefault((low[axis], high[axis]), []).append((where, high["loss"] / low["loss"] - 1))
        for (first, second), each in steps.items():
            mean = float(np.mean([gap for _, gap in each]))
            listed = ", ".join(f"{gap:+.1%} ({where})" for where, gap in each)
            print(f"  {first:g} to {second:g}: {mean:+.1%} of {len(each)}: {listed}")


def fitted_losses(rows: pl.DataFrame, law: FittedLaw) -> dict[str, float]:
    """By run, the losses of a law for the dense and token-choice runs."""
    known = rows.filter(pl.col("router").is_in(("dense", "token_choice")))
    losses = law.predict(observations(known, law.law).variables).value
    return dict(zip(known["run_id"].to_list(), losses.tolist(), strict=True))


def print_saturation(rows: pl.DataFrame, runs: pl.DataFrame, objective: str) -> None:
    """Pairs of more experts beside fits of moelab2026 to `runs` that owe less and less of E_max to the prior."""
    rows, usual = with_axes(rows), shipped("moelab2026")
    assert usual is not None
    priors = {"the shipped prior": usual, "E_max freed: log 4 +- 2": _freed(usual, "E_max", 4.0, 2.0), "none": "none"}
    found = [pair for pair in pairs(rows, "expansion") if pair[0]["epochs"] == 1]
    print("\nmore experts, one epoch, by moelab2026 with priors that hold E_max less and less")
    for name, prior in priors.items():
        try:
            law = fit(runs, "moelab2026", prior=prior, objective=objective, weight="weight", bootstrap=0)
        except InputError as error:
            print(f"  {name}: not fitted ({error})")
            continue
        known = fitted_losses(rows, law)
        each = [(low, high) for low, high in found if {low["run_id"], high["run_id"]} <= set(known)]
        steps = [
            f"{low['expansion']:g} to {high['expansion']:g} {known[high['run_id']] / known[low['run_id']] - 1:+.1%}"
            f" ({high['loss'] / low['loss'] - 1:+.1%})"
            for low, high in each
        ]
        print(f"  {name}: E_max {law.coefficients['E_max']:.0f}; fitted (measured) {', '.join(steps)}")


def _freed(prior: Prior, name: str, mean: float, spread: float) -> Prior:
    """The prior with another mean and spread of one coordinate, independent of the others."""
    at = prior.coefficients.index(name)
    means, covariance = prior.mean.copy(), prior.covariance.copy()
    means[at], covariance[at], covariance[:, at] = mean, 0.0, 0.0
    covariance[at, at] = spread**2
    return replace(prior, mean=means, covariance=covariance)


def _epochs(row: dict[str, Any]) -> str:
    return "" if row["epochs"] == 1 else f" {row['epochs']:.0f} epochs"


def print_routers(rows: pl.DataFrame, law: FittedLaw | None) -> None:
    """Hash routing and Mixture of Tokens beside what a law fitted to the others says of token choice and of dense."""
    known = ("dense", "token_choice")
    others = with_axes(rows).filter(~pl.col("router").is_in(known)).sort("router", "params_active", "expansion")
    print(
        "\nother routers: measured loss over what moelab2026 predicts of token choice, and of a dense model, less one"
    )
    for row in others.to_dicts() if law is not None else []:
        assert law is not None
        gaps = [row["loss"] / float(predict(law, row).value[0]) - 1 for predict in (_token_choice, _dense)]
        shape = f"d{row['d_model']} {row['n_experts']} experts, {row['tokens_per_active']:.0f} tokens per parameter"
        print(f"  {row['router']:18s} {shape}: {row['loss']:.3f}, {gaps[0]:+.1%}, {gaps[1]:+.1%}")
    if not len(others) or law is None:
        print("  none yet")


def _token_choice(law: FittedLaw, row: dict[str, Any]) -> Any:
    known = {name: row[name] for name in ("params_active", "tokens", "unique_tokens", "granularity")}
    return law.predict(**known, expert_ratio=row["expansion"])


def _dense(law: FittedLaw, row: dict[str, Any]) -> Any:
    return law.predict(**{name: row[name] for name in ("params_active", "tokens", "unique_tokens")})


def print_optima(law: FittedLaw, flops: tuple[float, ...]) -> None:
    """At each compute and number of experts: the best active size and its loss."""
    sizes = np.geomspace(2e4, 4e6, 400)
    print("\nbest active size by moelab2026 at granularity 4 (dense: 1), C = 6 N_a D, one epoch")
    for compute in flops:
        for experts in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0):
            fine = 1.0 if experts == 1 else 4.0
            loss = law.predict(
                params_active=sizes,
                tokens=compute / (6 * sizes),
                expert_ratio=np.full(400, experts),
                granularity=np.full(400, fine),
            ).value
            at = int(np.argmin(loss))
            print(f"  {compute:.1e} FLOPs, E {experts:2.0f}: {sizes[at] / 1e3:7.0f}K active, {loss[at]:.3f}")

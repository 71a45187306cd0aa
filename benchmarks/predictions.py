r"""Predictions before runs: eight runs above every fitted compute, predicted by each law and by the ensemble.

    OMP_NUM_THREADS=1 python benchmarks/reference_analysis.py --out studies/reference-fits
    OMP_NUM_THREADS=1 python benchmarks/predictions.py --fits studies/reference-fits/fits.json \
        --data studies/reference/data
    git add results/predictions configs/studies/predictions.yaml && git commit -m "Predictions"
    moelab study configs/studies/predictions.yaml --workers 1         # trains them, after the commit
    python benchmarks/predictions_score.py                            # predicted beside measured

The plan at `--times` the largest fitted compute decides the runs: its choice and its best dense baseline with two
seeds, the strict dense baseline, a finer and a coarser MoE, and the choice on a quarter of its tokens, four times. The
file holds run ids, the hash of the fits, and predicted losses with 80 % intervals of one more measured run. The same
fits give the same file. A test compares the start of each finished record with the time of the file's commit.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from reference_rates import Rule, fitted_rule
from reference_speeds import SPEEDS, seconds

from moelab.architecture import ModelConfig, count_flops, count_parameters
from moelab.data import Dataset
from moelab.errors import InputError
from moelab.files import write_json, write_text
from moelab.fitting import FittedLaw, load_fits
from moelab.fitting.widening import AS_DRAWN
from moelab.planning import Budget, Plan, Space
from moelab.planning.baselines import strict_pair
from moelab.planning.given_laws import predictors_of
from moelab.planning.plan import plan
from moelab.planning.uncertainty import quantiles
from moelab.runs import RunConfig
from moelab.runs.datasets import reference
from moelab.studies import StudyConfig, load_study
from moelab.studies.build import build_runs
from moelab.studies.verify import compared_designs
from moelab.training.resolve import resolve_run

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "results" / "predictions"
STUDY = ROOT / "configs" / "studies" / "predictions.yaml"
LIKE = STUDY.with_name("reference.yaml")
HEADER = """# The runs predicted in results/predictions/predictions.json before any of them was trained.
#   moelab study configs/studies/predictions.yaml --workers 1
# Hardware and time: {runs} runs, about {hours:.1f} hours of one thread.
# Expect: docs/explanation/findings.md; `python benchmarks/predictions_score.py` prints predicted beside measured.
"""
SPACE = {
    "d_model": {"from": 48, "to": 192, "step": 16}, "n_layers": [3, 4, 5, 6], "aspect": [12, 40], "head_dim": [16],
    "heads_per_kv": [1], "ffn_ratio": [3], "n_experts": [8, 16, 32, 64], "top_k": [2, 4], "n_shared_experts": [0],
    "n_dense_layers": [0], "d_expert_step": 2, "d_ff_step": 8, "min_d_expert": 12, "vocab_size": 512, "seq_len": 128,
    "tie_embeddings": True,
}  # fmt: skip
"""Designs as the reference study has them, with experts in all layers; top_k of at least 2, so that one is coarser."""
EPOCHS, LONGEST = 4, 2 * 3600
"""Epochs of the run on repeated data, and the most seconds of a run on one thread."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run to predict: its role, model, tokens, unique tokens (None: all) and seed."""

    role: str
    model: ModelConfig
    tokens: int
    unique: int | None = None
    seed: int = 0


def eight_runs(found: Plan) -> list[Run]:
    """The runs that the plan asks for, all at its compute. Raises InputError where it recommends no MoE."""
    if not found.best.is_moe:
        raise InputError("plan: recommends a dense model; the eight runs are of a recommended MoE")
    pair, seq_len = compared_designs(found), int(found.space.seq_len)
    best, dense = pair["recommended"], pair["best_dense"]
    strict = strict_pair(best, seq_len)[0]
    flops = float(count_flops(best.config, seq_len).train) * best.tokens
    others = {name: recut(best.config, finer) for name, finer in (("finer", True), ("coarser", False))}
    runs = [Run(role="recommended", model=best.config, tokens=best.tokens, seed=seed) for seed in (0, 1)]
    runs += [Run(role="best_dense", model=dense.config, tokens=dense.tokens, seed=seed) for seed in (0, 1)]
    runs.append(Run(role="strict_dense", model=strict[0], tokens=int(strict[1])))
    for role, model in others.items():
        runs.append(Run(role=role, model=model, tokens=int(flops / float(count_flops(model, seq_len).train))))
    return [*runs, Run(role="four_epochs", model=best.config, tokens=best.tokens, unique=best.tokens // EPOCHS)]


def recut(model: ModelConfig, finer: bool) -> ModelConfig:
    """The model with experts of half the width, twice as many and twice as many per token; or of twice the width."""
    moe = model.moe
    assert moe is not None
    numbers = (moe.d_expert,) if finer else (moe.n_experts, moe.top_k)
    if any(number % 2 for number in numbers):
        raise InputError(f"plan: experts of width {moe.d_expert}, top-{moe.top_k}, cannot be cut in two or joined")
    counts = {"n_experts": moe.n_experts, "top_k": moe.top_k}
    change = {name: count * 2 if finer else count // 2 for name, count in counts.items()}
    change["d_expert"] = moe.d_expert // 2 if finer else moe.d_expert * 2
    gates = {"normalize_gates": False} if change["top_k"] == 1 else {}
    return ModelConfig.parse({**model.to_dict(), "moe": {**moe.to_dict(), **change, **gates}})


def study_of(runs: list[Run], rule: Rule, like: StudyConfig) -> StudyConfig:
    """The study that trains them, as listed: the base of the reference study, the rates of its rule."""
    entries = []
    for number, run in enumerate(runs, 1):
        active = count_parameters(run.model).params_active
        fields: dict[str, Any] = {"model": run.model.to_dict(), "train.tokens": run.tokens, "train.seed": run.seed}
        fields["train.learning_rate"] = rule.rate(active)
        if run.unique is not None:
            fields["data.unique_tokens"] = (
                run.unique // int(like.base["train"]["seq_len"]) * like.base["train"]["seq_len"]
            )
        entries.append({"name": f"p{number}-{run.role}", "set": fields})
    about = "Written by benchmarks/predictions.py with results/predictions/predictions.json, before any is trained."
    base = {name: value for name, value in like.base.items() if name != "model"}
    order = {"executor": {"order": "listed"}}
    head = {"name": "predictions", "title": "Do the fitted laws predict larger runs?", "about": about}
    return StudyConfig.parse(
        {**head, "data": like.data.to_dict(), "base": base, **order, "verify": None, "runs": entries}, "study"
    )


def predicted(fits: Mapping[str, FittedLaw], weights: Mapping[str, float], config: RunConfig) -> dict[str, Any]:
    """By law and for the ensemble: the loss and the 80 % interval of one more measured run.

    In the ensemble every law drifts beyond the fitted runs as moelab2026's held-out runs show: when these fits were
    made, laws without a prior had no drift of their own.
    """
    tokens, train = float(config.train.steps * config.train.batch_tokens), config.train
    unique = float(min(config.data.unique_tokens or tokens, tokens))
    found: dict[str, Any] = {}
    drawn, shares = [], []
    for name, fitted in fits.items():
        read = fitted.variables_of(config.model, tokens, train.seq_len, unique)
        if not read.covered.all():
            continue
        guess = fitted.predict(read.variables, noise=True)
        found[name] = {"value": float(guess.value[0]), "low": float(guess.low[0]), "high": float(guess.high[0])}
        losses = draws_of(fitted, fits, read.variables, config.model, tokens)
        chance = fitted.draw_residuals(np.random.default_rng(0), len(losses))
        drawn.append(losses * np.exp(fitted.widening.factor * chance))
        shares.append(np.full(len(losses), weights[name] / max(len(losses), 1)))
    total = sum(weights[name] for name in found)
    if not total:
        raise InputError(f"fits: no law with a weight applies to {config.name}")
    value = sum(weights[name] * found[name]["value"] for name in found) / total
    low, high = quantiles(np.concatenate(drawn), np.concatenate(shares))
    return {"laws": found, "ensemble": {"value": value, "low": min(low, value), "high": max(high, value)}}


def draws_of(
    fitted: FittedLaw, fits: Mapping[str, FittedLaw], variables: Mapping[str, Any], model: ModelConfig, tokens: float
) -> np.ndarray:
    """A law's draws (R,) of one design's loss; a fit without a drift of its own takes that of the fit with a prior."""
    at = {name: np.atleast_1d(value) for name, value in variables.items()}
    losses = fitted.draw_losses(at)
    if not fitted.widening.drift:
        usual = next((each.widening for each in fits.values() if each.prior is not None), AS_DRAWN)
        scale = {"params_active": np.array([float(count_parameters(model).params_active)])}
        scale |= {"tokens": np.array([tokens]), "n_experts": np.array([model.moe.n_experts if model.moe else 1])}
        losses = replace(usual, factor=1.0).of(losses, fitted.predict(at).value, scale)
    return losses[:, 0]


def document(
    fits: Mapping[str, FittedLaw], sha256: str, found: Plan, runs: list[Run], configs: list[RunConfig]
) -> dict[str, Any]:
    """What predictions.json holds; the same for the same fits."""
    weights = {member.id: member.weight for member in predictors_of(list(fits.values()))}
    speeds = json.loads(SPEEDS.read_text(encoding="utf-8"))
    rows = []
    for run, config in zip(runs, configs, strict=True):
        counts, tokens = count_parameters(config.model), config.train.steps * config.train.batch_tokens
        per_token = float(count_flops(config.model, config.train.seq_len).train)
        shape = {"model": config.model.to_dict(), "flops": per_token, "total": counts.params_total, "tokens": tokens}
        row = {"run_id": config.run_id, "role": run.role, "name": config.name, "seed": run.seed}
        row |= {"params_total": counts.params_total, "params_active": counts.params_active, "tokens": tokens}
        row |= {"unique_tokens": min(config.data.unique_tokens or tokens, tokens), "train_flops": per_token * tokens}
        rows.append({**row, "seconds": round(seconds(shape, speeds)), **predicted(fits, weights, config)})
    slow = [row["name"] for row in rows if row["seconds"] > LONGEST]
    if slow:
        raise InputError(f"times: {', '.join(slow)} would take more than two hours of a thread; lower --times")
    return {
        "fits_sha256": sha256,
        "largest_fitted_flops": largest_flops(),
        "flops": found.budget.flops,
        "weights": weights,
        "p_moe_beats_dense": found.p_moe_beats_dense,
        "runs": rows,
    }


def largest_flops() -> float:
    """The training FLOPs of the largest run of the reference study's table."""
    rows = reference()
    return float(rows.filter(rows["study"] == "reference")["train_flops"].to_numpy().max())


def main() -> None:
    """Write the predictions and their study, or score what was trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=Path, help="the fits of the reference table")
    parser.add_argument("--data", type=Path, help="the prepared text of the reference study, for the run ids")
    parser.add_argument("--times", type=float, default=3.0, help="compute over the largest fitted, 3 to 10")
    parser.add_argument(
        "--max-params", type=float, default=4e6, help="total parameters, which a step's time grows with"
    )
    options = parser.parse_args()
    if options.fits is None or options.data is None or not 3 <= options.times <= 10:
        parser.error("give --fits and --data, and --times from 3 to 10")
    fits = load_fits(options.fits)
    budget = Budget(flops=options.times * largest_flops(), max_params=options.max_params)
    found = plan(budget, list(fits.values()), Space.parse(SPACE, "space"))
    runs = eight_runs(found)
    study = study_of(runs, fitted_rule(), load_study(str(LIKE)))
    dataset = Dataset.open(options.data)
    configs = [resolve_run(config, dataset) for config in build_runs(study, study.runs, str(options.data), {})]
    text = document(fits, hashlib.sha256(options.fits.read_bytes()).hexdigest(), found, runs, configs)
    write_json(PLACE / "predictions.json", text)
    hours = sum(row["seconds"] for row in text["runs"]) / 3600
    head = HEADER.format(runs=len(text["runs"]), hours=hours)
    write_text(STUDY, head + yaml.safe_dump(study.to_dict(), sort_keys=False, width=110))
    for row in text["runs"]:
        value, low, high = row["ensemble"].values()
        minutes = f"{row['seconds'] / 60:.0f} min"
        print(f"{row['run_id']} {row['name']:18s} {value:.3f} ({low:.3f} to {high:.3f})  {minutes}")
    print(f"{hours:.1f} hours of a thread")


if __name__ == "__main__":
    main()

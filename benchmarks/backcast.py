"""Released MoE models beside the plan of their own budgets: what the planner would have chosen, and why they differ.

    python benchmarks/backcast.py [--ratios 0,1,2,4,8] [--laws LAW ...] [--out FILE.json]

Every released MoE with published tokens is planned twice: with its training compute, its total parameters as the limit
and its tokens as unique data; and with a compute that also pays for serving. Served tokens are one multiple of the
trained tokens for all models: it is chosen on every second model and scored on the others, and the other way round
(active parameters and tokens within a factor of 1.5). The excess is the compute that the laws find wasted in the
released design; the implied ratio is the multiple of its own tokens at which the plan comes nearest to the model.
Neither is fitted.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from moelab.architecture import count_flops, count_parameters
from moelab.architecture.released import ReleasedModel, released_models
from moelab.errors import InputError
from moelab.laws.design import Design
from moelab.planning import Budget, Space
from moelab.planning.chosen_laws import laws_of
from moelab.planning.credit import credited_design
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import Lattice, enumerate_designs
from moelab.planning.predictors import Predictor
from moelab.planning.ranking import Ranking
from moelab.planning.search import search
from moelab.planning.settle import settled_rows

WITHIN = 1.5
"""Factor within which active parameters and tokens count as met."""


def main() -> None:
    """Print the table, the ratio and its score; write them as JSON with --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratios", default="0,1,1.5,2,3,4,6,8,12,16,24,32", help="served over trained tokens to try")
    parser.add_argument("--laws", nargs="*", help="laws that rank; default: all published")
    parser.add_argument("--out", help="write the rows as JSON")
    chosen = parser.parse_args()
    predictors = predictors_of(laws_of(chosen.laws or None))
    lattice = enumerate_designs(Space())
    ratios = [float(text) for text in chosen.ratios.split(",")]
    models = [m for m in released_models().values() if m.tokens is not None and m.config.moe is not None]
    rows = [row for model in models if (row := backcast(model, lattice, predictors, ratios)) is not None]
    _print(rows)
    halves = {"first": rows[::2], "second": rows[1::2]}
    print("within a factor of 1.5, by ratio:", ", ".join(f"{r:g}: {met(rows, r):.0%}" for r in ratios))
    scores = {}
    for name, other in (("first", "second"), ("second", "first")):
        here, there = halves[name], halves[other]
        ratio = best_ratio(here, ratios)
        scores[name] = {"ratio": ratio, "chosen_on": met(here, ratio), "held_out": met(there, ratio), "n": len(there)}
        print(
            f"one ratio of served to trained tokens, chosen on the {name} {len(here)} models: {ratio:g}; "
            f"it meets {met(here, ratio):.0%} of those and {met(there, ratio):.0%} of the other {len(there)}"
        )
    together = sum(score["held_out"] * score["n"] for score in scores.values()) / len(rows)
    print(f"held out, both halves together: {together:.0%} of {len(rows)} models")
    if chosen.out:
        Path(chosen.out).write_text(json.dumps({"rows": rows, "scores": scores}, indent=1))


def backcast(
    model: ReleasedModel, lattice: Lattice, predictors: list[Predictor], ratios: list[float]
) -> dict[str, Any] | None:
    """The plan of a released model's own budget, by ratio of served to trained tokens; None where nothing fits."""
    config, tokens = model.config, model.tokens
    assert tokens is not None
    params, flops = count_parameters(config), count_flops(config, lattice.space.seq_len)
    plans: dict[float, dict[str, float]] = {}
    excess = float("nan")
    for ratio in ratios:
        served = round(ratio * tokens)
        budget = Budget(
            flops=flops.train * tokens + flops.forward * served,
            max_params=float(params.params_total),
            unique_tokens=tokens,
            serve_flops_tokens=served,
        )
        try:
            ranking = search(lattice, budget, predictors)
        except InputError:
            continue
        at = settled_rows(ranking, 1)[0].chosen
        if ratio == 0:
            excess = _excess(ranking, credited_design(config, np.array([tokens]), None, lattice.space.seq_len), at)
        plans[ratio] = {
            "params_active": float(ranking.feasible.lattice.params_active[at]),
            "params_total": float(ranking.feasible.lattice.params_total[at]),
            "tokens": float(ranking.feasible.tokens[at]),
        }
    if not plans:
        return None
    row = {"name": model.name, "params_active": float(params.params_active), "tokens": tokens, "excess": excess}
    row |= {"params_total": float(params.params_total), "plans": plans}
    return row | {"implied_ratio": min(plans, key=lambda ratio: _distance(row, plans[ratio]))}


def _excess(ranking: Ranking, design: Design, chosen: int) -> float:
    """Excess compute of the released design over the plan's, by the median over the ensemble."""
    parts = []
    for member, curve in zip(ranking.ensemble, ranking.curves, strict=True):
        own, base = float(member.loss(design)[0]), float(ranking.mean(member, chosen))
        if np.isfinite(own) and np.isfinite(base):
            parts.append(float(curve.log_excess(own) - curve.log_excess(base)))
    return float(-np.expm1(-np.median(parts))) if parts else float("nan")


def _distance(row: dict[str, Any], plan: dict[str, float]) -> float:
    """How far a plan is from the released model, in logs of active parameters and tokens."""
    return max(abs(np.log(plan[name] / row[name])) for name in ("params_active", "tokens"))


def best_ratio(rows: list[dict[str, Any]], ratios: list[float]) -> float:
    """The ratio at which most of these models are met; of equals the one of least median distance."""
    return max(ratios, key=lambda ratio: (met(rows, ratio), -_median_distance(rows, ratio)))


def _median_distance(rows: list[dict[str, Any]], ratio: float) -> float:
    return float(np.median([_distance(row, row["plans"][ratio]) for row in rows if ratio in row["plans"]] or [np.inf]))


def met(rows: list[dict[str, Any]], ratio: float) -> float:
    """The share of models whose active parameters and tokens the plan meets within `WITHIN`."""
    hits = [ratio in row["plans"] and _distance(row, row["plans"][ratio]) <= np.log(WITHIN) for row in rows]
    return float(np.mean(hits)) if hits else float("nan")


def _print(rows: list[dict[str, Any]]) -> None:
    print("model                active    total   tokens | plan: active  tokens | excess | nearest at served/trained")
    for row in rows:
        plain = row["plans"].get(0.0) or next(iter(row["plans"].values()))
        print(
            f"{row['name']:<20} {row['params_active'] / 1e9:6.1f}B {row['params_total'] / 1e9:7.0f}B "
            f"{row['tokens'] / 1e12:6.1f}T | {plain['params_active'] / 1e9:10.1f}B {plain['tokens'] / 1e12:6.2f}T | "
            f"{row['excess']:6.0%} | {row['implied_ratio']:g} "
            f"({_text(row['plans'][row['implied_ratio']])})",
            flush=True,
        )


def _text(plan: dict[str, float]) -> str:
    return f"{plan['params_active'] / 1e9:.1f}B on {plan['tokens'] / 1e12:.1f}T"


if __name__ == "__main__":
    main()

"""Yun et al.'s claims (arXiv 2404.02852) in shape, with the joint law (arXiv 2502.05172) for their unpublished one.

    OMP_NUM_THREADS=1 python benchmarks/inference_optimal.py [--flops 1e21] [--hardware a100]

Top-1 experts of width 4 d in every layer (theirs: top-2 in every second), prices of the roofline instead of their
measured tables. For each number of experts: its loss-optimal model at the budget; the compute at which its optimum
reaches the loss that 16 experts reach, and what that optimum then costs to serve; and the cheapest model to serve at no
more than the loss of the dense and of the 4-expert optimum (the first algorithm), with its active size relative to its
own optimum. Expected: ten seconds.
"""

import argparse
from typing import Any

import numpy as np

from moelab.cli.output import print_table
from moelab.laws import get_law
from moelab.planning import Budget, Space
from moelab.planning.budget import Serving
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import Lattice, enumerate_designs
from moelab.planning.predictors import Predictor
from moelab.planning.ranking import Ranking
from moelab.planning.search import search
from moelab.quantities import format_number, parse_number

EXPERTS = (1, 2, 4, 8, 16, 32)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flops", default="1e21")
    parser.add_argument("--hardware", default="a100")
    options = parser.parse_args()
    flops = parse_number(options.flops)
    serving = Serving.parse({"hardware": options.hardware, "traffic": {"prompt": 512, "output": 128}})
    space = Space(
        n_experts=EXPERTS[1:], top_k=(1,), n_shared_experts=(0,), n_dense_layers=(0,), head_dim=(128,), ffn_ratio=(4.0,)
    )
    lattice, predictors = enumerate_designs(space), predictors_of([get_law("ludziejewski2025")])
    experts = np.maximum(lattice.n_experts, 1)
    groups = {e: lattice.take(np.flatnonzero(experts == e)) for e in EXPERTS}
    found = {e: search(group, Budget(flops=flops, serving=serving), predictors) for e, group in groups.items()}
    best = {e: float(ranking.score[ranking.best]) for e, ranking in found.items()}
    rows = []
    for e, ranking in found.items():
        size, price, top = ranking.feasible.lattice, prices(ranking), ranking.best
        needed = compute_for(groups[e], best[16], flops, predictors)
        equal = search(groups[e], Budget(flops=needed, serving=serving), predictors)
        rows.append(
            (
                e,
                f"{best[e]:.3f}",
                f"{format_number(size.params_active[top])} / {format_number(size.params_total[top])}",
                f"{price[top]:.4f}",
                f"{needed / flops:.2f}",
                f"{prices(equal)[equal.best]:.4f}",
                cheapest(ranking, best[1]),
                cheapest(ranking, best[4]),
            )
        )
    columns = ["experts", "loss", "active / total", "$/M", "compute for loss of 16", "$/M then"]
    print_table([*columns, "cheapest at loss of dense", "cheapest at loss of 4"], rows)


def prices(ranking: Ranking) -> Any:
    """Dollars per million tokens (n,)."""
    assert ranking.serving is not None
    return ranking.serving.cost_per_million_tokens


def cheapest(ranking: Ranking, loss: float) -> str:
    """The least price at no more than this loss, and the model's active size relative to its own optimum."""
    reach = np.flatnonzero(ranking.score <= loss)
    if not len(reach):
        return "-"
    at = reach[np.argmin(prices(ranking)[reach])]
    active = ranking.feasible.lattice.params_active
    return f"${prices(ranking)[at]:.4f}, {active[at] / active[ranking.best]:.0%} of its size"


def compute_for(group: Lattice, loss: float, flops: float, predictors: list[Predictor]) -> float:
    """The compute at which this group's optimum reaches the loss, by bisection."""
    low, high = flops / 100, flops * 100
    for _ in range(20):
        middle = np.sqrt(low * high)
        reached = search(group, Budget(flops=middle), predictors).score.min() <= loss
        low, high = (low, middle) if reached else (middle, high)
    return float(high)


if __name__ == "__main__":
    main()

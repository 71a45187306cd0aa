"""Design the reference study: which runs identify moelab2026's coefficients best in 13 hours of one thread.

    python benchmarks/reference_design.py --measure     # speeds of some shapes here, a minute
    python benchmarks/reference_design.py --write       # src/moelab/studies/ready/reference.yaml, and the comparison

Runs are chosen one by one: each is the candidate that adds most information about the law's coefficients (the
determinant of the posterior's precision, under the shipped prior and the reference records so far) for its time. So
every first part of the list is a useful table. The script compares the design with three others of the same cost.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from reference_rates import Rule, fitted_rule
from reference_runs import LAW, SIZES, TOKENS_PER_PARAM, Candidate, candidate, candidates, others
from reference_speeds import SPEEDS, measure, seconds

from moelab.files import write_text
from moelab.fitting.objective import Objective
from moelab.fitting.observations import observations
from moelab.fitting.prior import by_coordinates, shipped, to_coefficients
from moelab.fitting.prior_fit import posterior_of

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "src" / "moelab" / "studies" / "ready" / "reference.yaml"
RUNS, SECONDS, LONGEST = 144, 13 * 3600, 1200
"""Runs that the design chooses, processor seconds of the whole study, and of its longest run."""
NOISE = 0.005
"""Seed noise of log loss at this size (docs/log.md: 0.012 to 0.024 nats of 3.4)."""
SEEDS = (1, 2)
"""Further seeds of six points."""


def rows_of(runs: list[Candidate], theta: np.ndarray) -> np.ndarray:
    """(n, P): d log(loss) / d coordinates of each run at the expected law."""
    variables = {name: np.array([run["variables"][name] for run in runs]) for name in LAW.variables}
    coefficients = to_coefficients(LAW, theta[None])
    loss, gradient = LAW.formula(coefficients, variables)
    return by_coordinates(LAW, gradient(), coefficients, np.broadcast_to(loss, (1, len(runs))))[0]


def expected() -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the law that these runs are expected to follow, and the prior's precision."""
    from prior_tables import records

    prior = shipped(LAW.id)
    assert prior is not None
    prior = prior.of(LAW)
    table = records(ROOT / "results" / "reference")
    found = posterior_of(observations(table, LAW), LAW, prior, Objective.parse("squared"), {}, 0)
    return found.theta, np.linalg.inv(prior.covariance)


SHARES: dict[str, dict[Any, float]] = {
    "size": dict.fromkeys(SIZES, 1 / len(SIZES)),
    "experts": {1: 0.2, 2: 0.1, 4: 0.14, 8: 0.14, 16: 0.14, 32: 0.14, 64: 0.14},
    "fine": {1: 0.4, 2: 0.2, 4: 0.25, 8: 0.15},
    "epochs": {1: 0.55, 2: 0.15, 4: 0.15, 8: 0.15},
    "ratio": dict.fromkeys(TOKENS_PER_PARAM, 1 / len(TOKENS_PER_PARAM)),
}
"""Share of the runs that each level should have. The most informative runs by themselves are corners, which cannot show
where the law's form is wrong: levels above their share count for less."""


def greedy(
    runs: list[Candidate], jacobian: np.ndarray, cost: np.ndarray, start: np.ndarray, power: float, count: int
) -> list[int]:
    """`count` candidates, each the one with most information for cost^power, levels balanced; none twice."""
    inverse, chosen = np.linalg.inv(start), []
    left = np.ones(len(cost), bool)
    levels = {axis: np.array([str(run.get(axis, 1)) for run in runs]) for axis in SHARES}
    seen = {axis: dict.fromkeys(map(str, shares), 0) for axis, shares in SHARES.items()}
    for number in range(count):
        gain = np.log1p(np.einsum("np,pq,nq->n", jacobian, inverse, jacobian) / NOISE**2)
        for axis, shares in SHARES.items():
            weight = {str(level): (1 + seen[axis][str(level)] / (share * (number + 1))) ** -1.0
                      for level, share in shares.items()}  # fmt: skip
            gain = gain * np.array([weight[level] for level in levels[axis]])
        pick = int(np.argmax(np.where(left, gain / cost**power, -np.inf)))
        chosen.append(pick)
        left[pick] = False
        for axis in SHARES:
            seen[axis][str(levels[axis][pick])] += 1
        row = inverse @ jacobian[pick] / NOISE
        inverse = inverse - np.outer(row, row) / (1 + row @ jacobian[pick] / NOISE)
    return chosen


def chosen_runs(runs: list[Candidate], cost: np.ndarray, budget: float) -> list[int]:
    """The greedy choice whose total cost meets the budget: the power of the cost is found by bisection."""
    theta, start = expected()
    jacobian = rows_of(runs, theta)
    low, high = 0.0, 2.0
    found = greedy(runs, jacobian, cost, start, high, RUNS)
    for _ in range(8):
        middle = 0.5 * (low + high)
        picks = greedy(runs, jacobian, cost, start, middle, RUNS)
        if cost[picks].sum() <= budget:
            high, found = middle, picks
        else:
            low = middle
    return found


def factorial(runs: list[Candidate]) -> list[int]:
    """An alternative: dense over sizes and tokens, then one factor at a time around E = 8."""

    def plain(run: Candidate) -> bool:
        split, shared, repeated = run.get("fine", 1) > 1, bool(run.get("shared")), run["epochs"] > 1
        return (run.get("experts", 1) not in (1, 8)) + split + shared + repeated <= 1

    return [k for k, run in enumerate(runs) if plain(run)]


def compare(runs: list[Candidate], cost: np.ndarray, picks: list[int], budget: float) -> None:
    """Print what each design would leave of the prior's spread, and of the predictions at 3 to 10 times the compute."""
    theta, start = expected()
    jacobian = rows_of(runs, theta)
    rng = np.random.default_rng(0)
    affordable = np.arange(len(runs))
    designs = {
        "chosen": picks,
        "at random": _within(rng.permutation(affordable), cost, budget),
        "one factor at a time": _within(rng.permutation(np.array(factorial(runs))), cost, budget),
        "cheapest first": _within(np.argsort(cost), cost, budget),
        "chosen, first third": picks[: len(picks) // 3],
    }
    kinds: tuple[dict[str, Any], ...] = (
        {}, {"experts": 8}, {"experts": 32, "fine": 4}, {"experts": 16, "fine": 2, "shared": True}
    )  # fmt: skip
    targets = [candidate("d112", ratio, epochs, **kind) for ratio, epochs in ((30, 1), (100, 4)) for kind in kinds]
    ahead = rows_of(targets, theta)
    prior = np.sqrt(np.diag(np.linalg.inv(start)))
    print(
        f"\n{'share of the prior spread left':24s}"
        + "".join(f"{name[:9]:>10s}" for name in LAW.coefficients)
        + "   predictions"
    )
    for name, rows in designs.items():
        posterior = np.linalg.inv(start + jacobian[rows].T @ jacobian[rows] / NOISE**2)
        left = np.sqrt(np.diag(posterior)) / prior
        spread = np.sqrt(np.einsum("np,pq,nq->n", ahead, posterior, ahead)).mean()
        print(f"{name:24s}" + "".join(f"{value:10.2f}" for value in left) + f"   +-{spread:.2%}  ({len(rows)} runs)")


def _within(order: np.ndarray, cost: np.ndarray, budget: float) -> list[int]:
    total = np.cumsum(cost[order])
    return [int(k) for k in order[total <= budget]]


def study(runs: list[Candidate], rule: Rule, cost: list[float]) -> str:
    """The study's file: one line per run, in the order in which they are worth training."""
    hours = sum(cost) / 3600
    lines = []
    for number, run in enumerate(runs, 1):
        fields: dict[str, Any] = {f"model.{key}": value for key, value in run["model"].items() if key != "vocab_size"}
        fields["train.tokens"] = run["tokens"]
        fields["train.learning_rate"] = rule.rate(run["active"])
        if run["epochs"] > 1:
            fields["data.unique_tokens"] = run["unique"]
        if run.get("seed"):
            fields["train.seed"] = run["seed"]
        lines.append(f"  - {{name: r{number:03d}, set: {json.dumps(fields).replace(chr(34), '')}}}")
    return HEAD.format(count=len(runs), hours=hours, longest=max(cost) / 60, rule=rule.text) + "\n".join(lines) + "\n"


HEAD = """# The reference study: moelab's own runs, for the law's coefficients at small scale and for its prior.
#   moelab study configs/studies/reference.yaml --workers 1
# Hardware and time: {count} runs, about {hours:.1f} hours of one thread alone, the longest {longest:.0f} minutes.
# Expect: every first part of the list is a useful table; `make reference-analysis` reads whatever is finished.
# Written by benchmarks/reference_design.py. Rates: {rule}
name: reference
title: What does a small model's loss depend on?
about: >
  Dense models and mixtures of 2 to 64 times their feed-forward, in experts of a whole to an eighth of it, with and
  without a shared one, on 5 to 100 tokens per active parameter and 1 to 8 epochs; hash routing and Mixture of Tokens
  at a few points; three seeds at six. Each run is the one that adds most information about the law for its time.
data: {{sources: [default], vocab_size: 512}}
base:
  model: {{vocab_size: 512, d_model: 24, n_layers: 2, n_heads: 2, d_ff: 72}}
  train:
    tokens: 540K
    seq_len: 128
    batch_tokens: 1024
    optimizer: muon
    schedule: cosine
    evaluations: 2
    eval_tokens: 256K
    precision: fp32
    threads: 1
executor: {{order: listed}}
runs:
"""


def replicates(chosen: list[Candidate], cost: list[float]) -> list[Candidate]:
    """Two more seeds at six points spread over the sizes: dense and MoE at the smallest, a middle and a large size."""
    found = []
    for size in ("d24", "d40", "d64"):
        for moe in (False, True):
            of = [k for k, run in enumerate(chosen) if run["size"] == size and (run.get("experts", 1) > 1) == moe]
            pick = min(of, key=lambda k: abs(np.log(cost[k] / np.median([cost[j] for j in of]))))
            found += [{**chosen[pick], "seed": seed} for seed in SEEDS]
    return found


def spread(first: list[Candidate], *more: list[Candidate]) -> list[Candidate]:
    """`more` spread evenly through `first`, beginning after a fifth of it."""
    placed = [(float(k), run) for k, run in enumerate(first)]
    for group in more:
        places = np.linspace(len(first) / 5, len(first), len(group)) + 0.5
        placed += list(zip(places.tolist(), group, strict=True))
    return [run for _, run in sorted(placed, key=lambda pair: pair[0])]


def main() -> None:
    """Measure, or design and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure speeds on this machine")
    parser.add_argument("--write", action="store_true", help="write the study")
    options = parser.parse_args()
    if options.measure:
        measure()
        return
    speeds = json.loads(SPEEDS.read_text(encoding="utf-8"))
    runs = candidates()
    cost = np.array([seconds(run, speeds) for run in runs])
    able = np.flatnonzero(cost <= LONGEST)
    runs, cost = [runs[k] for k in able], cost[able]
    special = others()
    reserved = sum(seconds(run, speeds) for run in special)
    picks = chosen_runs(runs, cost, 0.93 * SECONDS - reserved)
    chosen = [runs[k] for k in picks]
    again = replicates(chosen, [float(cost[k]) for k in picks])
    every = spread(chosen, special, again)
    times = [seconds(run, speeds) for run in every]
    print(f"{len(runs)} candidates; {len(every)} runs, {sum(times) / 3600:.1f} h, longest {max(times) / 60:.0f} min")
    compare(runs, cost, picks, float(cost[picks].sum()))
    if options.write:
        write_text(STUDY, study(every, fitted_rule(), times))


if __name__ == "__main__":
    main()

"""Design the reference study: which runs identify moelab2026's coefficients best in 13 hours of one thread.

    python benchmarks/reference_design.py --measure     # speeds of some shapes here, a minute
    python benchmarks/reference_design.py --write       # src/moelab/studies/ready/reference.yaml, and the comparison

Runs are chosen one by one: each is the candidate that adds most information about the law's coefficients (the
determinant of the posterior's precision, under the shipped prior and the reference records so far) for its time. So
every first part of the list is a useful table. The script compares the design with three others of the same cost.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from reference_rates import Rule, fitted_rule

from moelab.architecture import ModelConfig, count_flops, count_parameters
from moelab.files import write_json, write_text
from moelab.fitting.objective import Objective
from moelab.fitting.observations import observations
from moelab.fitting.prior import by_coordinates, shipped, to_coefficients
from moelab.fitting.prior_fit import posterior_of
from moelab.laws import get_law

ROOT = Path(__file__).parents[1]
SPEEDS = ROOT / "benchmarks" / "measured" / "reference_speeds.json"
STUDY = ROOT / "src" / "moelab" / "studies" / "ready" / "reference.yaml"
LAW = get_law("moelab2026")
SIZES = {
    "d24": (24, 2, 2, 72), "d32": (32, 2, 2, 96), "d40": (40, 3, 5, 120), "d48": (48, 4, 4, 144),
    "d64": (64, 4, 4, 192), "d80": (80, 4, 5, 240), "d96": (96, 4, 6, 288), "d112": (112, 4, 7, 336),
}  # fmt: skip
"""Width, layers, heads and feed-forward width of each size: 27 to 750 thousand active parameters."""
TOKENS_PER_PARAM = (5, 10, 20, 40, 100)
EXPERTS, GRANULARITY, EPOCHS = (2, 4, 8, 16, 32, 64), (1, 2, 4, 8), (1, 2, 4, 8)
VOCABULARY, SEQ_LEN, BATCH = 512, 128, 1024
EVALUATED = 2 * 256_000
UNIQUE = 18_000_000
"""Unique training tokens of the default text at vocabulary 512, with some room."""
RUNS, SECONDS, LONGEST = 144, 13 * 3600, 1200
"""Runs that the design chooses, processor seconds of the whole study, and of its longest run."""
NOISE = 0.005
"""Seed noise of log loss at this size (docs/log.md: 0.012 to 0.024 nats of 3.4)."""
SEEDS = (1, 2)
"""Further seeds of six points."""
CACHED = 2_000_000
"""Parameters beyond which a step also waits for memory."""
Candidate = dict[str, Any]


def model_of(size: str, experts: int = 1, fine: int = 1, shared: bool = False, router: str = "") -> dict[str, Any]:
    """The fields of one model: `experts` times the feed-forward's width, in experts of 1/`fine` of it."""
    width, layers, heads, hidden = SIZES[size]
    model: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "d_model": width,
        "n_layers": layers,
        "n_heads": heads,
        "d_ff": hidden,
    }
    if router == "mixture_of_tokens":
        model["moe"] = {"n_experts": experts, "top_k": 1, "d_expert": hidden, "router": router, "group_size": experts}
        model["moe"] |= {"balance_loss": 0.0, "z_loss": 0.0, "normalize_gates": False}
    elif experts > 1:
        narrow = hidden // fine
        moe: dict[str, Any] = {"n_experts": experts * fine - shared, "top_k": fine - shared, "d_expert": narrow}
        if shared:
            moe |= {"n_shared_experts": 1, "d_shared": narrow}
        if router:
            moe |= {"router": router, "balance_loss": 0.0, "z_loss": 0.0, "normalize_gates": False}
        model["moe"] = moe
    return model


def candidate(size: str, ratio: float, epochs: int, **options: Any) -> Candidate:
    """One run: its model, tokens and unique tokens, with the law's variables."""
    model = model_of(size, **options)
    config = ModelConfig.parse(model)
    count = count_parameters(config)
    tokens = int(ratio * count.params_active) // BATCH * BATCH
    conversion = LAW.variables_of(config, float(tokens), SEQ_LEN, tokens / epochs, published=False)
    return {
        "size": size,
        "model": model,
        "active": int(count.params_active),
        "total": int(count.params_total),
        "tokens": tokens,
        "unique": tokens // epochs,
        "epochs": epochs,
        "ratio": ratio,
        "flops": float(count_flops(config, SEQ_LEN).train),
        "variables": {name: float(value) for name, value in conversion.variables.items()},
        **options,
    }


def candidates() -> list[Candidate]:
    """Every run that may be chosen: within the tokens per parameter of its size, its text and its time."""
    found = []
    for size, (width, *_) in SIZES.items():
        kinds: list[dict[str, Any]] = [{}]
        for experts in EXPERTS:
            for fine in GRANULARITY:
                if fine == 8 and width < 64:  # experts of fewer than 24 columns
                    continue
                kinds.append({"experts": experts, "fine": fine})
                if fine > 1:
                    kinds.append({"experts": experts, "fine": fine, "shared": True})
        for kind in kinds:
            for ratio in TOKENS_PER_PARAM:
                for epochs in EPOCHS:
                    run = candidate(size, ratio, epochs, **kind)
                    most = 100 if run["active"] <= 110_000 else 40 if run["active"] <= 250_000 else 10
                    if ratio <= most and run["unique"] <= UNIQUE and run["tokens"] >= 100_000:
                        found.append(run)
    return found


def seconds(run: Candidate, speeds: dict[str, Any]) -> float:
    """Processor seconds of one thread: training and its two evaluations."""
    return float(features(run) @ np.array(speeds["coefficients"])) * (run["tokens"] + EVALUATED / 3)


def features(run: Candidate) -> np.ndarray:
    """What the processor seconds of a token are linear in: FLOPs, the optimiser's work on every parameter, layers."""
    moe, layers = run["model"].get("moe"), run["model"]["n_layers"]
    chosen = moe["top_k"] * layers if moe else 0
    beyond = max(run["total"] - CACHED, 0)
    return np.array([1.0, run["flops"], run["total"], beyond, layers * bool(moe), chosen])


def measure() -> None:
    """Tokens per processor second of some shapes, and the law of speed fitted to them."""
    from moelab.executors.probe import probe_text
    from moelab.runs import RunConfig, RunFolder
    from moelab.training import Trainer, resolve_run

    kinds: list[dict[str, Any]] = [{}, {"experts": 8}, {"experts": 64}, {"experts": 8, "fine": 4},
                                   {"experts": 64, "fine": 4}, {"experts": 16, "fine": 2, "shared": True}]  # fmt: skip
    runs = [candidate(size, 10, 1, **kind) for size in ("d24", "d40", "d64", "d112") for kind in kinds]
    rows = []
    import tempfile

    with probe_text() as text:
        for run in runs:
            model = {**run["model"], "vocab_size": 512}
            given = {"model": model, "data": {"path": str(text.folder)}, "train": {**TRAIN, "tokens": 50 * BATCH}}
            resolved = resolve_run(RunConfig.parse(given), text)
            with tempfile.TemporaryDirectory() as folder:
                trainer = Trainer(resolved, RunFolder(Path(folder)), text)
                for _ in range(2):
                    trainer.step()
                times = []
                while len(times) < 5 or (sum(times) < 2.0 and len(times) < 40):
                    began = time.process_time()
                    trainer.step()
                    times.append(time.process_time() - began)
            rows.append(
                {"size": run["size"], "moe": model.get("moe"), "tokens_per_second": BATCH / float(np.median(times))}
            )
            print(rows[-1], flush=True)
    from scipy.optimize import nnls

    rates = np.array([row["tokens_per_second"] for row in rows])
    inputs = np.array([features(run) for run in runs]) * rates[:, None]
    scale = inputs.max(axis=0)
    solved = nnls(inputs / scale, np.ones(len(rows)))[0] / scale
    error = float(np.max(np.abs(inputs @ solved - 1)))
    print(f"largest error of the fitted speed: {error:.0%}")
    write_json(SPEEDS, {"shapes": rows, "coefficients": solved.tolist(), "largest_error": error})


TRAIN = {
    "seq_len": SEQ_LEN, "batch_tokens": BATCH, "optimizer": "muon", "learning_rate": 0.01, "schedule": "cosine",
    "evaluations": 2, "eval_tokens": 256_000, "precision": "fp32", "threads": 1,
}  # fmt: skip


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
        return (
            sum(
                (
                    run.get("experts", 1) not in (1, 8),
                    run.get("fine", 1) != 1,
                    bool(run.get("shared")),
                    run["epochs"] > 1,
                )
            )
            <= 1
        )

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


def others() -> list[Candidate]:
    """Routers that the law does not know: hash routing and Mixture of Tokens, beside token choice of the same shape."""
    found = []
    for size, ratio in (("d24", 40), ("d40", 20), ("d64", 10)):
        for experts in (4, 8):
            found.append(candidate(size, ratio, 1, experts=experts, router="hash"))
            found.append(candidate(size, ratio, 1, experts=experts, router="mixture_of_tokens"))
    return found


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

"""The router zoo on real text: seven designs of equal active size, three seeds each, as trained and leak-free.

    python benchmarks/zoo.py --out zoo [--data data/quickstart] [--seeds 0,1,2] [--only dense,hash]

Dense, token choice, fine-grained token choice, Expert Choice, hash, Mixture of Tokens, and Mixture of Tokens turned to
token choice for the last tenth; width 32, 2 layers, eight times the feed-forward's parameters, 1.2M tokens, one
learning rate. About fifteen minutes on one core; a second call reads what is there. Prints tables of loss, of steps to
the dense model's final loss and of routing, and measures the speed of a training step in turns.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moelab.data import Dataset, PrepareConfig, TrainBatches, ValidationBatches
from moelab.data.prepare import prepare
from moelab.evaluation import Evaluation, evaluate
from moelab.files import write_json
from moelab.model import build_model
from moelab.runs import RunConfig, RunRecord
from moelab.training import Optimizer, load_trained, resolve_run, train_run

DATA = {"sources": ["wheels"], "vocab_size": 512, "max_tokens": 8_000_000}
MODEL = {"vocab_size": 512, "d_model": 32, "n_layers": 2, "n_heads": 2}
TRAIN = {
    "tokens": 1_200_000, "seq_len": 128, "batch_tokens": 2048, "optimizer": "muon", "schedule": "cosine",
    "evaluations": 8, "eval_tokens": 65_536, "precision": "fp32", "threads": 1,
}  # fmt: skip
MIXTURE = {"router": "mixture_of_tokens", "n_experts": 16, "top_k": 2, "d_expert": 48, "group_size": 8}
EXPERT_CHOICE = {"router": "expert_choice", "n_experts": 16, "top_k": 2, "d_expert": 48, "output_norm": True}
DESIGNS: dict[str, dict[str, Any]] = {
    "dense": {"model": {"d_ff": 96}},
    "token choice": {"model": {"moe": {"n_experts": 16, "top_k": 2, "d_expert": 48}}},
    "fine-grained": {"model": {"moe": {"n_experts": 32, "top_k": 4, "d_expert": 24}}},
    "expert choice": {"model": {"moe": {**EXPERT_CHOICE, "group_size": 16}}},
    "hash": {"model": {"moe": {"router": "hash", "n_experts": 16, "top_k": 2, "d_expert": 48}}},
    "mixture of tokens": {"model": {"moe": MIXTURE}},
    "tuned mixture": {
        "model": {"moe": MIXTURE},
        "train": {"transition": {"at": 0.9, "to": "token_choice"}},
    },
    "word experts": {
        "model": {"moe": {"router": "word", "routing_vocab": 20_000, "n_experts": 16, "top_k": 2, "d_expert": 48}}
    },
    "expert choice in a sequence": {"model": {"moe": {**EXPERT_CHOICE, "grouping": "sequence", "group_size": 128}}},
}


def main() -> None:
    """Train, evaluate, measure speed, print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("zoo"), help="folder of the runs and of results.json")
    options.add_argument("--data", type=Path, help="prepared data; default: the quickstart's text, made under --out")
    options.add_argument("--only", default=",".join(DESIGNS), help="designs, separated by commas")
    options.add_argument("--seeds", default="0,1,2", help="several calls, one seed each, may run side by side")
    options.add_argument("--rate", type=float, default=0.04, help="learning rate of all designs")
    options.add_argument("--rounds", type=int, default=3, help="rounds of the speed measurement; 0 leaves it out")
    chosen = options.parse_args()
    names = [name.strip() for name in chosen.only.split(",")]
    path = chosen.data or chosen.out / "data"
    dataset = Dataset.open(path) if chosen.data else prepare(PrepareConfig.parse(DATA), path).dataset
    records = train(names, [int(seed) for seed in chosen.seeds.split(",")], chosen.rate, dataset, path, chosen.out)
    dense = [float(record.loss or np.nan) for record in records.get("dense", [])]
    target = statistics.fmean(dense) if dense else None
    rows = {name: describe(found, chosen.out / "runs", dataset, target) for name, found in records.items()}
    for name, speed in speeds(names, dataset, path, chosen.rounds).items():
        rows[name]["tokens_per_second"] = speed
    write_json(chosen.out / "results.json", rows)
    show(rows)


def design(name: str, path: Path, rate: float, seed: int = 0) -> RunConfig:
    """One run of a design."""
    own = DESIGNS[name]
    options = {**TRAIN, **own.get("train", {}), "learning_rate": rate, "seed": seed}
    return RunConfig.parse(
        {"name": f"{name} {seed}", "model": {**MODEL, **own["model"]}, "data": {"path": str(path)}, "train": options}
    )


def train(
    names: list[str], seeds: list[int], rate: float, dataset: Dataset, path: Path, out: Path
) -> dict[str, list[RunRecord]]:
    """All runs of all designs, seed after seed; a finished run is only read."""
    found: dict[str, list[RunRecord]] = {name: [] for name in names}
    for seed in seeds:
        for name in names:
            record = train_run(resolve_run(design(name, path, rate, seed), dataset), out / "runs", dataset)
            found[name].append(record)
            print(f"{record.name}: {record.loss:.4f}", flush=True)
    return found


def describe(records: list[RunRecord], runs: Path, dataset: Dataset, target: float | None) -> dict[str, Any]:
    """One design's numbers over its seeds; losses and routing of the trained weights, evaluated here and now."""
    evaluations = [evaluated(runs / record.run_id, dataset) for record in records]
    layers = [layer for evaluation in evaluations for layer in evaluation.routing]
    leak_free = [each.loss if each.loss_leak_free is None else each.loss_leak_free for each in evaluations]
    return {
        "learning_rate": records[0].learning_rate,
        "params_active": records[0].params_active,
        "params_total": records[0].params_total,
        "flops_per_token": records[0].flops_per_token,
        "loss": [each.loss for each in evaluations],
        "leak_free": leak_free,
        "steps": records[0].tokens // records[0].batch_tokens,
        "steps_to_dense": [steps_to(record, target) for record in records] if target is not None else [],
        "curve": [record.loss_curve for record in records],
        "routing": {name: statistics.fmean(layer[name] for layer in layers) for name in layers[0]} if layers else {},
    }


def evaluated(run: Path, dataset: Dataset) -> Evaluation:
    """The validation loss, as trained and leak-free, and the routing of a finished run."""
    config, model = load_trained(run)
    torch.set_num_threads(1)
    return evaluate(model, ValidationBatches(dataset, config.train.seq_len, 32, config.train.eval_tokens))


def steps_to(record: RunRecord, target: float) -> float | None:
    """Steps until the loss first falls to `target`, by straight lines between evaluations; None if it never does."""
    points = [(row["step"], row["loss"]) for row in record.loss_curve]
    for (step, loss), (later, lower) in itertools.pairwise(points):
        if lower <= target < loss:
            return step + (later - step) * (loss - target) / (loss - lower)
    return None


def speeds(names: list[str], dataset: Dataset, path: Path, rounds: int, steps: int = 20) -> dict[str, float]:
    """Tokens per second of processor time on one thread, the median of rounds that take the designs in turn."""
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in names:
            config = resolve_run(design(name, path, 0.01), dataset)
            model = build_model(config.model, dispatch=config.train.dispatch)
            optimizer, batches = Optimizer(model, config.train), TrainBatches(dataset, 128, 16, 0)
            for step in range(-3, steps):
                if step == 0:
                    start = time.process_time()
                inputs, targets = (torch.from_numpy(part) for part in batches.batch(step + 3))
                model.loss(inputs, targets).total.backward()
                optimizer.step(0.01)
            found.setdefault(name, []).append(steps * batches.tokens_per_step / (time.process_time() - start))
    return {name: statistics.median(values) for name, values in found.items()}


def show(rows: dict[str, dict[str, Any]]) -> None:
    """The table of docs/log.md."""
    dense = rows.get("dense")
    columns = ["design", "active / total", "FLOPs per token", "rate", "loss as trained", "leak-free", "steps to dense"]
    print(f"| {' | '.join([*columns, 'tokens/s'])} |\n|{'---|' * (len(columns) + 1)}")
    for name, row in rows.items():
        flops = f"{row['flops_per_token'] / dense['flops_per_token']:.3f}" if dense else f"{row['flops_per_token']:.3g}"
        reached = [step for step in row["steps_to_dense"] if step is not None]
        share = statistics.fmean(reached) / row["steps"] if reached else 0.0
        steps = f"{share:.0%} ({len(reached)} of {len(row['loss'])})" if reached else "never"
        steps = "100%" if name == "dense" else steps
        print(
            f"| {name} | {row['params_active'] / 1e3:.0f}K / {row['params_total'] / 1e3:.0f}K | {flops} | "
            f"{row['learning_rate']:g} | {spread(row['loss'])} | {spread(row['leak_free'])} | {steps} | "
            f"{row.get('tokens_per_second', 0):,.0f} |"
        )
    print()
    names = next((list(row["routing"]) for row in rows.values() if row["routing"]), [])
    print("| design | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for name, row in rows.items():
        if row["routing"]:
            print(f"| {name} | " + " | ".join(f"{row['routing'].get(key, 0):.3f}" for key in names) + " |")


def spread(values: list[float]) -> str:
    """Mean and, with several seeds, their standard deviation."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


if __name__ == "__main__":
    main()

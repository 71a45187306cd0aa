"""Many small runs on one device: runs an hour of one alone, of processes side by side, and of streams with graphs.

The peer is what a study does without a GPU: two CPU cores, a process of one thread on each. The aim is 20 times its
runs an hour for models under 5M parameters. What is measured is the trainer itself, as `moelab study` shares a device.
Whether steps were recorded as graphs, and whether such a run has the curve and the weights of a plain one, is a row.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_sections import resume
from gpu_sections.common import Bench, error
from moelab.architecture import count_parameters
from moelab.data import Dataset
from moelab.executors.order import Sharing
from moelab.executors.sharing import mps_runs
from moelab.executors.trial import steps_per_second
from moelab.runs import RunConfig, RunFolder
from moelab.training import Trainer, resolve_run
from moelab.training.graphs import WARM_STEPS
from moelab.training.turns import Place

MOE = {"n_experts": 8, "top_k": 2, "d_expert": 64, "balance_loss": 0.01}
SIZES: dict[str, Any] = {"vocab_size": 300, "d_model": 64, "n_layers": 2, "n_heads": 2, "d_ff": 192}
LARGER: dict[str, Any] = {"vocab_size": 300, "d_model": 192, "n_layers": 6, "n_heads": 3, "d_ff": 576}
MODELS: dict[str, dict[str, Any]] = {
    "moe": {**SIZES, "moe": MOE},
    "dense": SIZES,
    "dense, larger": LARGER,
}
STEPS = 1000
"""Steps of a run, for the runs an hour."""
AIM = 20


def run(bench: Bench) -> None:
    """Every model alone, shared in each way, and on two CPU cores."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = resume.write_data(Path(folder))
        for name in bench.pick(tuple(MODELS), ("moe", "dense")):
            with bench.guarded("recorded steps", model=name):
                compare_recorded(bench, name, resolved(bench, name, dataset, bench.device), dataset, Path(folder))
            peer = None
            with bench.guarded("many", model=name, how="two CPU cores"):
                config = resolved(bench, name, dataset, "cpu")
                peer = emit(bench, name, config, dataset, "two CPU cores", Sharing(runs=2), None)
            for how, sharing in ways(bench):
                with bench.guarded("many", model=name, how=how, runs=sharing.runs):
                    emit(bench, name, resolved(bench, name, dataset, bench.device), dataset, how, sharing, peer)


def ways(bench: Bench) -> list[tuple[str, Sharing]]:
    """One alone, and the two ways to share."""
    streams, processes = bench.pick((16, 8), (2, 2))
    return [
        ("alone", Sharing()),
        ("streams and graphs", Sharing(by="streams", runs=streams)),
        ("processes", Sharing(by="processes", runs=processes)),
    ]


def resolved(bench: Bench, name: str, dataset: Dataset, device: str) -> RunConfig:
    """A run on a device: bf16 on a GPU, fp32 on a CPU, as each resolves it."""
    batch, length = bench.pick((16 * 128, 128), (2 * 16, 16))
    train = {
        "tokens": STEPS * batch,
        "batch_tokens": batch,
        "seq_len": length,
        "learning_rate": 1e-3,
        "eval_tokens": 16 * length,
        "evaluations": 1,
        "device": device,
        "threads": 1,
    }
    config = RunConfig.parse({"model": MODELS[name], "data": {"path": str(dataset.folder)}, "train": train})
    return resolve_run(config, dataset)


def compare_recorded(bench: Bench, name: str, config: RunConfig, dataset: Dataset, root: Path) -> None:
    """A run on a stream of its own with recorded steps, where the device records them, beside a plain one."""
    steps = bench.pick(50, WARM_STEPS + 3)
    found = [trained(config, dataset, root / name / how, how == "recorded", steps) for how in ("recorded", "plain")]
    (recorded, curve, weights), (_, plain_curve, plain_weights) = found
    reasons = recorded.not_recorded() if bench.device == "cuda" else ["a CPU records no graphs"]
    same = all(torch.equal(weights[key], tensor) for key, tensor in plain_weights.items())
    bench.emit(
        "recorded steps",
        model=name,
        steps=steps,
        recorded=not reasons,
        reason="; ".join(reasons) or None,
        curve_equal=curve == plain_curve,
        loss_apart=max(abs(a / b - 1) for (a, _), (b, _) in zip(curve, plain_curve, strict=True)),
        weights_equal=same,
        ok=same and curve == plain_curve and (bench.dry or not reasons),
        worst_weight=max(error(weights[key], tensor) for key, tensor in plain_weights.items()),
    )


def trained(
    config: RunConfig, dataset: Dataset, root: Path, recorded: bool, steps: int
) -> tuple[Trainer, list[tuple[float, float]], dict[str, Tensor]]:
    """The trainer after so many steps, (loss, gradient norm) of each, and the weights."""
    place = Place(config.train, recorded)
    with place.entered():
        trainer = Trainer(config, RunFolder.create(root, config), dataset, capture=place.capture)
        curve = [(float(trainer.step()), float(trainer.grad_norm)) for _ in range(steps)]
        weights = {name: tensor.detach().clone() for name, tensor in trainer.layout.state().items()}
    return trainer, curve, weights


def emit(
    bench: Bench, name: str, config: RunConfig, dataset: Dataset, how: str, sharing: Sharing, peer: float | None
) -> float:
    """A row of results; the steps a second of all runs together."""
    rate = steps_per_second(config, str(dataset.folder), sharing, bench.pick(2.0, 0.2))
    times = None if peer is None else rate / peer
    bench.emit(
        "many",
        model=name,
        params=count_parameters(config.model).params_total,
        how=how,
        runs=sharing.runs,
        device=config.train.device,
        precision=config.train.precision,
        mps=mps_runs(),
        tokens_per_second=rate * config.train.batch_tokens,
        runs_per_hour=3600 * rate / STEPS,
        times_two_cpu_cores=times,
        aim=AIM,
    )
    return rate

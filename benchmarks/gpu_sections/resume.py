"""A run killed with SIGKILL and begun again ends with the digits of one that was not: loss, curve and weights."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_sections.common import Bench
from moelab.data import Dataset
from moelab.data.prepare import PrepareConfig, prepare
from moelab.files import sha256_file
from moelab.runs import RunConfig, RunFolder
from moelab.runs.folder import CHECKPOINTS, WEIGHTS
from moelab.training import resolve_run, train_run

TEXT = "the cat sat on a mat while two dogs ran past seven tall trees and over an old wall"
MOE = {"n_experts": 8, "top_k": 2, "d_expert": 64, "balance_loss": 0.01}


def run(bench: Bench) -> None:
    """Dense and MoE."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        dataset = write_data(root)
        for kind, moe in (("dense", None), ("moe", MOE)):
            with bench.guarded("resume", model=kind):
                killed_and_resumed(bench, kind, config(bench, dataset, moe), root, dataset)


def write_data(root: Path) -> Dataset:
    """A made-up text, prepared."""
    texts = root / "texts"
    texts.mkdir()
    vocabulary = TEXT.split()
    for index in range(200):
        words = [vocabulary[(index * 7 + i * i) % len(vocabulary)] for i in range(300)]
        (texts / f"{index}.txt").write_text(" ".join([*words, str(index)]), encoding="utf-8")
    return prepare(PrepareConfig(sources=(str(texts),), vocab_size=300, validation_share=0.1), root / "data").dataset


def config(bench: Bench, dataset: Dataset, moe: dict[str, Any] | None) -> RunConfig:
    """A small run in bf16 on a GPU, and in fp32 in a dry run."""
    model: dict[str, Any] = {"vocab_size": 300, "d_model": 64, "n_layers": 2, "n_heads": 2, "d_ff": 192, "moe": moe}
    steps, batch = bench.pick((400, 64 * 128), (24, 4 * 32))
    train = {
        "tokens": steps * batch,
        "batch_tokens": batch,
        "seq_len": bench.pick(128, 32),
        "learning_rate": 1e-3,
        "eval_tokens": bench.pick(2000, 100),
        "device": bench.device,
        "threads": 1,
    }
    return resolve_run(
        RunConfig.parse({"model": model, "data": {"path": str(dataset.folder)}, "train": train}), dataset
    )


def killed_and_resumed(bench: Bench, kind: str, run: RunConfig, root: Path, dataset: Dataset) -> None:
    """Train undisturbed here, then in a process that is killed once it has a checkpoint, then to the end."""
    whole = train_run(run, root / "whole", dataset)
    code = "import json, sys; from gpu_sections.resume import child; child(*json.loads(sys.argv[1]))"
    words = json.dumps([run.to_dict(), str(root / "killed"), str(dataset.folder)])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", code, words], env=environment, stdout=sys.stderr)
    checkpoints, ends = root / "killed" / run.run_id / CHECKPOINTS, time.monotonic() + 60
    while process.poll() is None and time.monotonic() < ends and not list(checkpoints.glob("0*")):
        time.sleep(0.01)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = train_run(run, root / "killed", dataset)
    hashes = [sha256_file(RunFolder(root / where / run.run_id).path / WEIGHTS) for where in ("whole", "killed")]
    row = {"loss": whole.loss, "loss_resumed": resumed.loss, "killed": alive, "resumed": resumed.resumed}
    row |= {"curve_equal": whole.loss_curve == resumed.loss_curve, "weights_equal": hashes[0] == hashes[1]}
    row["ok"] = alive and row["curve_equal"] and row["weights_equal"]
    how = {"precision": run.train.precision, "dispatch": run.train.dispatch, "compile": run.train.compile}
    bench.emit("resume", model=kind, **how, **row, tokens_per_second=whole.tokens_per_second)


def child(run: dict[str, Any], root: str, data: str) -> None:
    """In the process that is killed: a checkpoint at every step."""
    train_run(RunConfig.parse(run), root, Dataset.open(data), checkpoint_seconds=0)

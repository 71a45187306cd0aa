"""Processor seconds of a run of the reference study: measured on some shapes, and a law of speed fitted to them."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from reference_runs import BATCH, SEQ_LEN, Candidate, candidate

from moelab.files import write_json

SPEEDS = Path(__file__).parents[1] / "benchmarks" / "measured" / "reference_speeds.json"
EVALUATED = 2 * 256_000
CACHED = 2_000_000
"""Parameters beyond which a step also waits for memory."""
TRAIN = {
    "seq_len": SEQ_LEN, "batch_tokens": BATCH, "optimizer": "muon", "learning_rate": 0.01, "schedule": "cosine",
    "evaluations": 2, "eval_tokens": 256_000, "precision": "fp32", "threads": 1,
}  # fmt: skip


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

"""The serving model beside moelab's own engine on this machine: fitted on dense models, held out on MoE.

    python benchmarks/serving_this_machine.py [--threads 1] [--new 32]

Measures the machine as `moelab calibrate` does, then the time per output token of small untrained models in float32 at
batches of 1 to 32, without the prompt's own time. A minute or two; a busy machine spoils it, so the load is printed.
"""

import argparse
import os
import statistics
import time

import numpy as np
import torch

from moelab.architecture import ModelConfig
from moelab.model import build_model
from moelab.model.generate import generate
from moelab.model.machine_rates import measure_machine
from moelab.serving import Traffic
from moelab.serving.fit_rows import FIXED, fit_rows
from moelab.serving.layout import Layout
from moelab.serving.measured import MeasuredRows, Row

BATCHES, PROMPT = (1, 4, 32), 32
BACKBONE = {"vocab_size": 4096, "n_heads": 8, "n_kv_heads": 4, "head_dim": 64}
MODELS = {
    "dense, 6 layers of 512": {**BACKBONE, "d_model": 512, "n_layers": 6, "d_ff": 1536},
    "dense, 4 layers of 768": {**BACKBONE, "d_model": 768, "n_layers": 4, "d_ff": 2048},
    "dense, 8 layers of 384": {**BACKBONE, "d_model": 384, "n_layers": 8, "d_ff": 1024},
    "MoE, 6 layers of 512, 16 experts": {
        **BACKBONE,
        "d_model": 512,
        "n_layers": 6,
        "moe": {"n_experts": 16, "top_k": 2, "d_expert": 768},
    },
    "MoE, 4 layers of 384, 32 experts": {
        **BACKBONE,
        "d_model": 384,
        "n_layers": 4,
        "moe": {"n_experts": 32, "top_k": 4, "d_expert": 512},
    },
}


def main() -> None:
    """Print the machine, and predicted over measured of every model and batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--new", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine, rates = measure_machine()
    print(
        f"load {os.getloadavg()[0]:.1f}; copies {rates['copy_bytes_per_second']:.3g} bytes a second, fp32 products of "
        f"512 rows {rates['fp32_flops_512_rows']:.3g} FLOPs a second"
    )
    rows = []
    for name, shape in MODELS.items():
        config = ModelConfig.parse(shape)
        for batch in BATCHES:
            seconds = measure(config, batch, options.new)
            traffic = Traffic(
                prompt=PROMPT,
                output=options.new,
                precision="fp32",
                kv_precision="fp32",
                batch=batch,
                gpus=1,
                disaggregated=True,
            )
            rows.append(
                Row(len(rows), name, config, "this machine", machine, "vllm", Layout(1), traffic, seconds, None, "")
            )
    measured = MeasuredRows(tuple(rows), 0)
    assert machine.calibration is not None
    start = machine.calibration.coefficients.model_dump()
    spreads = {"matmul": 0.7, "experts": 0.7, "bandwidth": 0.5, "kernel": 2.0, "request": 2.0, "step": 2.0}
    prior = {name: (max(value, 1e-6), spreads.get(name, 0.1)) for name, value in start.items() if name not in FIXED}
    fitted = fit_rows(measured.where(lambda row: row.config.moe is None), {}, prior)
    for row, seconds in zip(rows, fitted.predict(rows), strict=True):
        print(
            f"  {row.model}, batch {row.traffic.batch}: measured {row.value * 1e3:.2f} ms, predicted over measured "
            f"{seconds / row.value:.2f}"
        )
    ratio = fitted.predict(rows) / np.array([row.value for row in rows])
    moe = np.array([row.config.moe is not None for row in rows])
    print(
        f"median absolute error: dense, fitted {np.median(np.abs(ratio[~moe] - 1)):.1%}; "
        f"MoE, held out {np.median(np.abs(ratio[moe] - 1)):.1%}"
    )


def measure(config: ModelConfig, batch: int, new: int) -> float:
    """Median seconds per output token of several runs, the prompt's time taken off."""
    model = build_model(config, seed=0).eval()
    prompts = torch.randint(config.vocab_size, (batch, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()

    def run(tokens: int) -> float:
        began = time.process_time()
        generate(model, prompts, max_new_tokens=tokens, temperature=0)
        return time.process_time() - began

    run(2)
    return statistics.median((run(new + 1) - run(1)) / new for _ in range(3))


if __name__ == "__main__":
    main()

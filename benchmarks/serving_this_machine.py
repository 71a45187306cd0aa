"""The serving model beside engines on this machine: fitted on dense models, held out on MoE and on the other engine.

    python benchmarks/serving_this_machine.py [--engines moelab,llama.cpp] [--out FILE.json] [--measured FILE.json]

Measures the machine as `moelab calibrate` does, then decode and prefill of small untrained models in float32, in one
thread, with moelab's own engine and, where the package xllamacpp is installed, with llama.cpp on their GGUF exports.
Processor time, the least of several turns, since a busy machine only adds to it. `--measured` repeats the analysis of
an earlier `--out`. About five minutes; the load is printed.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moelab.architecture import ModelConfig, Shape
from moelab.files import read_json, write_json
from moelab.model import build_model
from moelab.model.generate import generate
from moelab.model.machine_rates import measure_machine
from moelab.serving import Hardware, Traffic
from moelab.serving.layout import Layout
from moelab.serving.step import step_of
from moelab.serving.work import load_of

BATCHES, PROMPT, NEW, TURNS = (1, 4, 16, 32), 64, 24, 4
BACKBONE = {"vocab_size": 4096, "n_heads": 8, "n_kv_heads": 4, "head_dim": 64}
MODELS: dict[str, dict[str, Any]] = {
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
FITTED = {"matmul": 0.7, "bandwidth": 0.5, "cache": 0.5, "kernel": 2.0, "step": 2.0, "request": 2.0, "passes": 0.7}
"""Coefficients that dense models decide, and how far (standard deviation of the logarithm) they may leave what
`moelab calibrate` measured. The rate of experts moves with that of dense matrices."""

Run = Callable[[int], object]


def main() -> None:
    """Print the machine, and predicted over measured of every engine, model and batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", default="moelab,llama.cpp")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measured", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = read_json(options.measured, "measured") if options.measured else measured(options.engines.split(","))
    if options.out:
        write_json(options.out, found)
    report(Hardware.parse(found["machine"], "machine"), found["rows"])


def measured(engines: list[str]) -> dict[str, Any]:
    """The machine, and seconds of decode (a step) and prefill (all prompts) by engine, model and batch."""
    began = time.perf_counter()
    machine, rates = measure_machine()
    print(f"machine measured in {time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f}: {rates}")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = text_of(Path(folder))
        for name, shape in MODELS.items():
            model = build_model(ModelConfig.parse(shape), seed=0).eval()
            file = exported(model, data, Path(folder)) if "llama.cpp" in engines else None
            for batch in BATCHES:
                prompts = torch.randint(3, 250, (batch, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()
                runs: dict[str, Run] = {"moelab": own(model, prompts)}
                if file is not None:
                    runs["llama.cpp"] = llama(file, prompts)
                rows += [{"engine": engine, "model": name, "batch": batch, **timed(runs[engine])} for engine in engines]
                print(rows[-len(engines) :], flush=True)
    return {"machine": machine.to_dict(), "rates": rates, "rows": rows}


def timed(run: Run) -> dict[str, float]:
    """Least processor seconds of several turns: of the prompts with one token, and of each further token."""
    run(2)
    spent: dict[int, list[float]] = {1: [], NEW + 1: []}
    for _ in range(TURNS):
        for tokens, seconds in spent.items():
            began = time.process_time()
            run(tokens)
            seconds.append(time.process_time() - began)
    return {"prefill": min(spent[1]), "decode": (min(spent[NEW + 1]) - min(spent[1])) / NEW}


def own(model: Any, prompts: list[list[int]]) -> Run:
    """moelab's own engine."""
    return lambda tokens: generate(model, prompts, max_new_tokens=tokens, temperature=0)


def llama(file: Path, prompts: list[list[int]]) -> Run:
    """llama.cpp in one thread, float32 weights and cache, as many slots as prompts."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = str(file), 256 * len(prompts), len(prompts)
    params.n_gpu_layers, params.warmup, params.verbosity, params.fit_params = 0, False, -1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.kv_unified = False
    server = xllamacpp.Server(params)
    fixed = {"temperature": 0, "ignore_eos": True, "cache_prompt": False}

    def run(tokens: int) -> None:
        answer = server.handle_completions({"prompt": prompts, "n_predict": tokens, **fixed})
        assert "error" not in answer, answer

    return run


def text_of(folder: Path) -> Any:
    """A small prepared text: an export needs a tokenizer."""
    from moelab.data import PrepareConfig
    from moelab.data.prepare import prepare

    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 2000, encoding="utf-8")
    config = PrepareConfig.parse({"sources": [str(folder / "text.txt")], "vocab_size": 280})
    return prepare(config, folder / "data").dataset


def exported(model: Any, data: Any, folder: Path) -> Path:
    """The untrained model as a GGUF file."""
    from moelab.export import Source
    from moelab.export.gguf_file import export_gguf
    from moelab.runs import RunConfig, RunRecord, run_columns

    train = {"tokens": 51200, "seq_len": 512, "batch_tokens": 512, "device": "cpu", "precision": "fp32", "threads": 1}
    config = RunConfig.parse(
        {
            "model": model.config.to_dict(),
            "data": {"path": str(data.folder), "manifest_hash": data.manifest_hash},
            "train": {**train, "dispatch": "loop"},
        }
    )
    values = dict.fromkeys(("loss", "bits_per_byte", "seconds", "tokens_per_second"), 1.0)
    record = RunRecord(
        **run_columns(config), **values, run_id=config.run_id, status="finished", device="cpu", precision="fp32",
        threads=1, dispatch="loop", peak_memory_bytes=1, data_hash=data.manifest_hash,
    )  # fmt: skip
    source = Source(folder=folder / config.run_id, config=config, record=record, model=model, dataset=data)
    file = folder / "model.gguf"
    export_gguf(source, file, force=True, check=False)
    return file


def report(machine: Hardware, rows: list[dict[str, Any]]) -> None:
    """Errors of what was fitted and of what was held out, by engine and phase."""
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    dense = {
        engine: [r for r in rows if r["engine"] == engine and "moe" not in MODELS[r["model"]]] for engine in engines
    }
    for source in engines:
        values = fit(machine, dense[source])
        print(f"\nfitted on dense models of {source}:", {name: float(f"{v:.3g}") for name, v in values.items()})
        for engine in engines:
            for kind in ("dense", "MoE"):
                some = [r for r in rows if r["engine"] == engine and r["model"].startswith(kind)]
                held = "fitted" if (engine, kind) == (source, "dense") else "held out"
                print(f"  {engine}, {kind} ({held}): " + "; ".join(line(machine, values, some, p) for p in PHASES))


PHASES = ("decode", "prefill")


def line(machine: Hardware, values: dict[str, float], rows: list[dict[str, Any]], phase: str) -> str:
    """Median and worst error of one phase."""
    ratio = np.array([predict(machine, values, row)[phase] / row[phase] for row in rows])
    worst = ratio[np.argmax(np.abs(np.log(ratio)))] - 1
    return f"{phase} {np.median(np.abs(ratio - 1)):.1%}, worst {worst:+.0%}"


def fit(machine: Hardware, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Coefficients from both phases of dense models: logarithms, soft absolute values, priors around the machine's."""
    from scipy.optimize import least_squares

    assert machine.calibration is not None
    start = machine.calibration.coefficients.model_dump()
    centre = {name: max(start[name], 1e-6) for name in FITTED}

    def values(z: Any) -> dict[str, float]:
        return {name: centre[name] * float(np.exp(FITTED[name] * z[i])) for i, name in enumerate(FITTED)}

    def residuals(z: Any) -> Any:
        off = [np.log(predict(machine, values(z), row)[phase] / row[phase]) / 0.12 for row in rows for phase in PHASES]
        return np.concatenate([np.sign(off) * np.sqrt(2 * (np.sqrt(1 + np.square(off)) - 1)), z])

    return values(least_squares(residuals, np.zeros(len(FITTED))).x)


def predict(machine: Hardware, values: dict[str, float], row: dict[str, Any]) -> dict[str, float]:
    """Seconds of a decoded step, and of reading all prompts with one token each."""
    own = machine.calibration
    assert own is not None
    experts = own.coefficients.experts * values["matmul"] / own.coefficients.matmul
    coefficients = own.coefficients.model_copy(update={**values, "experts": experts})
    device = machine.model_copy(update={"calibration": own.model_copy(update={"coefficients": coefficients})})
    traffic = Traffic(prompt=PROMPT, output=NEW, precision="fp32", kv_precision="fp32", disaggregated=True, gpus=1)
    load = load_of(Shape.of(ModelConfig.parse(MODELS[row["model"]])), traffic, device)
    step, batch = step_of(load, Layout(1), device, traffic, mixed=False), np.array([float(row["batch"])])
    tokens = batch * PROMPT
    # Each prompt ends in a token that the head and the server count once.
    reading = step.fixed + step.products(tokens) + tokens * (load.activations + load.prompt_scores)
    once = np.maximum(batch * step.head, step.read_head) + batch * values["request"]
    return {"decode": float(step.seconds(batch)[0]), "prefill": float((reading + once)[0])}


if __name__ == "__main__":
    main()

"""The serving model beside engines on this machine: fitted on dense models, held out on MoE and on the other engine.

    python benchmarks/serving_this_machine.py [--engines moelab,llama.cpp] [--out FILE.json] [--measured FILE.json]

Measures the machine as `moelab calibrate` does, then decode and prefill of small untrained models in float32, in one
thread, with moelab's own engine and, where the package xllamacpp is installed, with llama.cpp on their GGUF exports;
llama.cpp's products are measured alone too (`ggml_rates.py`). Products and models take turns, and the least processor
time of each counts, since a busy machine only adds to it. `--out` is written after each turn, and turns of an earlier
call are kept; `--measured` repeats its analysis. About 150 seconds of a processor for each of three turns.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moelab.architecture import ModelConfig, Shape
from moelab.files import read_json, write_json
from moelab.model import build_model
from moelab.model.generate import generate
from moelab.model.machine_rates import measure_launch, measure_machine, measure_products
from moelab.serving import Hardware, Traffic
from moelab.serving.layout import Layout
from moelab.serving.loaded_step import step_of
from moelab.serving.products import ProductRates
from moelab.serving.work import Load, load_of

BATCHES, PROMPT, NEW, TURNS = (1, 4, 16, 32), 64, 24, 3
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
    "MoE, 5 layers of 640, 8 experts": {
        **BACKBONE,
        "d_model": 640,
        "n_layers": 5,
        "moe": {"n_experts": 8, "top_k": 2, "d_expert": 1024},
    },
}
FITTED = {"cache": 0.5, "attention": 0.5, "kernel": 1.0, "step": 2.0, "request": 2.0, "passes": 0.7}
"""Coefficients that dense models decide, and how far (standard deviation of the logarithm) they may leave what
`moelab calibrate` measured or assumes. Products, launches and llama.cpp's attention are measured by themselves."""
HOST = 1e-4
"""Seconds of a step and of each of its requests before dense models decide: Python or a server picks the tokens."""
READ = {"moelab": 2**20, "llama.cpp": 512}
"""Tokens of prompts that an engine computes at once: all; llama.cpp's n_ubatch."""
KEYS = {"llama.cpp": 256}
"""Keys that a query meets, masked or not: llama.cpp pads its cache to this (llama-kv-cache.cpp, get_n_kv)."""
MICRO = 0.05
"""Seconds for each product of one turn."""

Run = Callable[[int], object]


def main() -> None:
    """Print the machine, and predicted over measured of every engine, model and batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", default="moelab,llama.cpp")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measured", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = (
        read_json(options.measured, "measured")
        if options.measured
        else measured(options.engines.split(","), options.out)
    )
    report(found)


def measured(engines: list[str], file: Path | None) -> dict[str, Any]:
    """The machine, the products of each engine, and seconds of decode (a step) and prefill (all prompts) by engine,
    model and batch: the least of all turns, those of an earlier file counted too. The file is written after each turn.
    """
    began = time.perf_counter()
    machine, rates = measure_machine()
    print(f"machine measured in {time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f}")
    found: dict[str, Any] = {"machine": machine.to_dict(), "rates": rates, "products": {}, "launch": {}, "rows": []}
    if file is not None and file.exists():
        found = read_json(file, "measured")
    with tempfile.TemporaryDirectory() as folder:
        runs = prepared(engines, Path(folder))
        for turn in range(TURNS):
            for (engine, name, batch), run in runs.items():
                add(found["rows"], {"engine": engine, "model": name, "batch": batch, **timed(run)})
            for engine in engines:
                found["products"][engine] = faster(found["products"].get(engine), products_of(engine))
                found["launch"][engine] = min(found["launch"].get(engine, 1.0), launch_of(engine))
            if "llama.cpp" in engines:
                found["attention"] = faster_attention(found.get("attention"))
            print(
                f"turn {turn + 1} after {time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True
            )
            if file is not None:
                write_json(file, found)
    return found


def prepared(engines: list[str], folder: Path) -> dict[tuple[str, str, int], Run]:
    """What is timed, by engine, model and batch."""
    runs: dict[tuple[str, str, int], Run] = {}
    data = text_of(folder)
    for name, shape in MODELS.items():
        model = build_model(ModelConfig.parse(shape), seed=0).eval()
        server = llama(exported(model, data, folder), max(BATCHES)) if "llama.cpp" in engines else None
        for batch in BATCHES:
            prompts = torch.randint(3, 250, (batch, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()
            if "moelab" in engines:
                runs["moelab", name, batch] = own(model, prompts)
            if server is not None:
                runs["llama.cpp", name, batch] = partial(server, prompts)
    return runs


def add(rows: list[dict[str, Any]], new: dict[str, Any]) -> None:
    """Keep the least seconds with and without further tokens; a decoded step is a share of their difference."""
    known = [row for row in rows if all(row[key] == new[key] for key in ("engine", "model", "batch"))]
    row = known[0] if known else new
    if not known:
        rows.append(row)
    row |= {name: min(row[name], new[name]) for name in ("prefill", "whole")}
    row["decode"] = max(row["whole"] - row["prefill"], 1e-9) / NEW


def products_of(engine: str) -> ProductRates:
    """The engine's own products, each for a short time."""
    if engine == "moelab":
        return measure_products(torch.device("cpu"), torch.float32, MICRO)
    import ggml_rates

    return ggml_rates.products(MICRO)


def launch_of(engine: str) -> float:
    """Seconds of the engine's smallest operation."""
    if engine == "moelab":
        return measure_launch(torch.device("cpu"), MICRO)
    import ggml_rates

    return ggml_rates.launch(MICRO)


def faster_attention(before: dict[str, float] | None) -> dict[str, float]:
    """llama.cpp's attention: bytes of the cache read a second in decode, FLOPs a second in prompts."""
    import ggml_rates

    keys, heads, size = ggml_rates.KEYS, ggml_rates.HEADS, ggml_rates.HEAD_DIM
    read = 2 * keys * ggml_rates.KV_HEADS * size * 4 / ggml_rates.attention(1, MICRO)
    compute = 4 * keys * PROMPT * heads * size / ggml_rates.attention(PROMPT, MICRO)
    known = before or {"read": 0.0, "compute": 0.0}
    return {"read": max(read, known["read"]), "compute": max(compute, known["compute"])}


def faster(before: dict[str, Any] | None, new: ProductRates) -> dict[str, Any]:
    """Of each product the higher rate."""
    value = new.model_dump(mode="json")
    return value if before is None else _faster(before, value)


def _faster(before: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The same of plain data: of experts of each width too."""
    value = dict(new)
    for name, rates in new.items():
        if name == "other_widths":
            value[name] = [_faster(*pair) for pair in zip(before[name], rates, strict=True)]
        elif isinstance(rates, list):
            value[name] = np.maximum(rates, before[name]).tolist()
    return value


def timed(run: Run) -> dict[str, float]:
    """Processor seconds of the prompts with one token (prefill), and with NEW further tokens of each (whole)."""
    spent = {}
    for name, tokens in (("prefill", 1), ("whole", NEW + 1)):
        began = time.process_time()
        run(tokens)
        spent[name] = time.process_time() - began
    return spent


def own(model: Any, prompts: list[list[int]]) -> Run:
    """moelab's own engine."""
    return lambda tokens: generate(model, prompts, max_new_tokens=tokens, temperature=0)


def llama(file: Path, slots: int) -> Callable[[list[list[int]], int], None]:
    """llama.cpp in one thread, float32 weights and cache, as many slots as the largest batch."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = str(file), 256 * slots, slots
    params.n_gpu_layers, params.warmup, params.verbosity, params.fit_params = 0, False, -1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.kv_unified = False
    server = xllamacpp.Server(params)
    fixed = {"temperature": 0, "ignore_eos": True, "cache_prompt": False}

    def run(prompts: list[list[int]], tokens: int) -> None:
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
    file = folder / f"{config.run_id}.gguf"
    export_gguf(source, file, force=True, check=False)
    return file


def report(found: dict[str, Any]) -> None:
    """Errors of what was fitted and of what was held out, by engine and phase: products are each engine's own."""
    rows, machines = found["rows"], {name: with_products(found, name) for name in found["products"]}
    print("launch:", {name: f"{seconds * 1e6:.2f} us" for name, seconds in found["launch"].items()})
    for source, machine in machines.items():
        values = fit(machine, [r for r in rows if r["engine"] == source and "moe" not in MODELS[r["model"]]])
        print(f"\nfitted on dense models of {source}:", {name: float(f"{v:.3g}") for name, v in values.items()})
        for engine in machines:
            own = values if engine == source else moved(values, machine, machines[engine])
            for kind in ("dense", "MoE"):
                some = [r for r in rows if r["engine"] == engine and r["model"].startswith(kind)]
                held = "fitted" if (engine, kind) == (source, "dense") else "held out"
                lines = "; ".join(line(machines[engine], own, some, p) for p in PHASES)
                print(f"  {engine}, {kind} ({held}): {lines}")


def moved(values: dict[str, float], source: Hardware, target: Hardware) -> dict[str, float]:
    """One engine's fitted coefficients for another: what was measured for each of them follows its measurements."""
    assert source.calibration is not None
    assert target.calibration is not None
    old, new = source.calibration.coefficients, target.calibration.coefficients
    own = {name: getattr(new, name) for name in ("cache", "attention")}
    return values | own | {"kernel": values["kernel"] * new.kernel / old.kernel}


def with_products(found: dict[str, Any], engine: str) -> Hardware:
    """The machine with an engine's products and launches."""
    machine = Hardware.parse(found["machine"], "machine")
    assert machine.calibration is not None
    products = {"fp32": ProductRates.parse(found["products"][engine], "products")}
    values = {"kernel": found["launch"][engine], "step": HOST, "request": HOST}
    if engine == "llama.cpp":
        read, compute = found["attention"]["read"], found["attention"]["compute"]
        values |= {"cache": min(read / machine.bandwidth, 1.0), "attention": min(compute / machine.bf16, 1.0)}
    coefficients = machine.calibration.coefficients.model_copy(update=values)
    update = {"products": products, "coefficients": coefficients}
    return machine.model_copy(update={"calibration": machine.calibration.model_copy(update=update)})


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
    centre = {name: start[name] for name in FITTED}

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
    coefficients = own.coefficients.model_copy(update=values)
    device = machine.model_copy(update={"calibration": own.model_copy(update={"coefficients": coefficients})})
    traffic = Traffic(prompt=PROMPT, output=NEW, precision="fp32", kv_precision="fp32", disaggregated=True, gpus=1)
    load = padded(load_of(Shape.of(ModelConfig.parse(MODELS[row["model"]])), traffic, device), traffic, row["engine"])
    step, batch = step_of(load, Layout(1), device, traffic, mixed=False), np.array([float(row["batch"])])
    tokens = batch * PROMPT
    pieces = np.ceil(tokens / READ[row["engine"]])
    # Each prompt ends in a token that the head and the server count once.
    reading = pieces * (step.fixed + step.products(tokens / pieces)) + tokens * (load.activations + load.prompt_scores)
    once = step.head_seconds(batch) + batch * values["request"]
    return {"decode": float(step.seconds(batch)[0]), "prefill": float((reading + once)[0])}


def padded(load: Load, traffic: Traffic, engine: str) -> Load:
    """The same with the keys that the engine's queries meet; of a prompt they are half its tokens on average."""
    if engine not in KEYS:
        return load
    keys, decoding = KEYS[engine], KEYS[engine] / traffic.context
    return replace(
        load,
        scores=load.scores * decoding,
        read_kv=load.read_kv * decoding,
        prompt_scores=load.prompt_scores * (keys / (traffic.prompt / 2)),
    )


if __name__ == "__main__":
    main()

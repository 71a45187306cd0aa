"""How far the serving model is from measurements that were left out of its fit.

    python benchmarks/serving_accuracy.py --measured FOLDER [--write FILE.yaml] [--json FILE]

FOLDER holds `serving.csv` (one measured setup a row, the columns of `moelab calibrate`) and `mlperf_offline.csv`
(Llama-2-70B, offline). Rows are fitted by the newest of each setup. `--write` writes the calibrations that ship with
the package. About six minutes beside other work.
"""

import argparse
import csv
import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from moelab.architecture import ModelConfig
from moelab.config import dump_yaml
from moelab.files import write_json, write_text
from moelab.serving.calibration import Z80
from moelab.serving.coefficients import PRIORS
from moelab.serving.cost import serve_one
from moelab.serving.fit_rows import Fitted, error_of, fit_rows, held_out
from moelab.serving.hardware import load_hardware
from moelab.serving.measured import MeasuredRows, Row, find_model, parse_measured, plain_name
from moelab.serving.replicates import Replicates, residual_of, widths_apart
from moelab.serving.traffic import Traffic

DENSE = ("llama-3.3-70b", "llama-2-70b")
SYSTEMS = {"MI300X": "mi300x", "MI325X": "mi325x", "H200": "h200", "H100": "h100"}
"""Devices of MLPerf's systems that are fitted at fp8. Blackwell's rows may be fp4 and are predicted alone."""
LENGTHS = (294, 294)
"""Mean tokens of prompts and answers of MLPerf's OpenOrca set (mlcommons inference, Llama-2-70B reference)."""


ACCEPTANCE = 0.85
"""Of a drafted token, which no row states: 0.85 to 0.9 of second tokens were kept in DeepSeek-V3 (arXiv 2412.19437)."""
DRAFTS = {True: 1, False: 3}
"""Drafted tokens, which no row states either: with and without data parallel attention, as in InferenceX's scripts of
DeepSeek-R1 with TensorRT-LLM."""


PUBLISHED: tuple[tuple[str, str, int, dict[str, Any], float, bool], ...] = (
    # report, device, devices, traffic, output (or prompt) tokens per second and device, whether of prompts
    ("LMSYS 2025-05, prompts", "h100", 32, {"prompt": 2000, "output": 100}, 52_300 / 8, True),
    ("LMSYS 2025-05, answers", "h100", 72, {"prompt": 2000, "output": 100}, 22_300 / 8, False),
    (
        "DeepSeek 2025-02, prompts",
        "h800",
        32,
        {"prompt": 3619, "output": 1000, "cached": 0.5625, "tpot": "50ms"},
        73_700 / 8,
        True,
    ),
    (
        "DeepSeek 2025-02, answers",
        "h800",
        144,
        {"prompt": 4489, "output": 1000, "cached": 0.5625, "tpot": "50ms"},
        14_800 / 8,
        False,
    ),
)
"""Published rates of DeepSeek-V3 in fp8 with expert parallelism over several nodes, prompts on devices of their own.
LMSYS, large-scale-ep, 2025-05-05: 4 nodes of 8 read prompts of 2,000 tokens, 9 answer. DeepSeek, open-infra-index, day
6: means of a day over its fleet, idle hours among them; groups of 32 and 144 devices, 608 G tokens of prompts, 342 G of
them cached, and 168 G of answers: 3,619 for 1,000; 20 to 22 tokens a second, a mean context of 4,989."""


def model_of(name: str) -> ModelConfig:
    """The architecture of a name in the tables; Llama-2-70B is Llama-3-70B with a smaller vocabulary."""
    if plain_name(name) == "llama-2-70b":
        return find_model("llama3-70b").replace(vocab_size=32000)
    return find_model(name)


def tables(folder: Path) -> MeasuredRows:
    """Both files as one table: of MLPerf, the median system of each device."""
    with (folder / "serving.csv").open(encoding="utf-8") as file:
        rows: list[dict[str, str | None]] = list(csv.DictReader(file))
    for device, rate in mlperf(folder).items():
        gpus = 2 if device == "h100" else 1
        rows.append(
            {
                "model": "llama-2-70b",
                "hardware": device,
                "precision": "fp8",
                "engine": "vllm" if device.startswith("mi") else "tensorrt-llm",
                "speculative": "none",
                "gpus": str(gpus),
                "input_length": str(LENGTHS[0]),
                "output_length": str(LENGTHS[1]),
                "concurrency": "max",
                "kv_precision": "fp8",
                "output_tokens_per_s_per_gpu": str(rate),
                "date": "2025-09",
            }
        )
    return parse_measured(rows, str(folder), model_of)


def drafted(folder: Path) -> MeasuredRows:
    """The rows with multi-token prediction, which no fit sees, at the assumed drafts and acceptance."""
    with (folder / "serving.csv").open(encoding="utf-8") as file:
        rows = [row | {"speculative": "none"} for row in csv.DictReader(file) if row["speculative"] == "mtp"]
    found = parse_measured(rows, str(folder), model_of)
    return replace(found, rows=tuple(_drafting(row) for row in found.rows)).newest()


def _drafting(row: Row) -> Row:
    changed = {"draft": DRAFTS[row.layout.expert_parallel], "acceptance": ACCEPTANCE}
    return replace(row, traffic=row.traffic.replace(**changed))


def mlperf(folder: Path) -> dict[str, float]:
    """Device -> median tokens a second and device of Llama-2-70B offline, over systems of that device alone."""
    found: dict[str, list[float]] = {}
    with (folder / "mlperf_offline.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            devices = [device for text, device in SYSTEMS.items() if text in row["system"]]
            if len(devices) == 1 and row["tokens_per_s_per_gpu"] and "NVL_" not in row["system"]:
                found.setdefault(devices[0], []).append(float(row["tokens_per_s_per_gpu"]))
    return {device: statistics.median(rates) for device, rates in found.items()}


def slowdowns(folder: Path) -> dict[str, tuple[float, float]]:
    """Slowdowns of other vendors' devices beside their data sheets, from MLPerf's dense model alone.

    The share of peak fp8 arithmetic that H200 reaches there, over the share that the device reaches.
    """
    rates = mlperf(folder)
    share = {device: rate / load_hardware(device).peak("fp8") for device, rate in rates.items()}
    return {device: (share["h200"] / share[device], 0.05) for device in ("mi300x", "mi325x")}


def report(name: str, ratio: Any, factor: float | None = None) -> dict[str, Any]:
    """One printed line: the median absolute error, the bias, the worst, and the intervals' coverage."""
    off = np.abs(ratio - 1)
    line = {
        "test": name,
        "rows": len(ratio),
        "median_error": round(float(np.median(off)), 3),
        "bias": round(float(np.median(ratio) - 1), 3),
        "worst": round(float(ratio[np.argmax(np.abs(np.log(ratio)))] - 1), 3),
    }
    if factor is not None:
        line["coverage_80"] = round(float(np.mean(np.abs(np.log(ratio)) <= np.log(factor))), 3)
        line["half_width"] = round((factor - 1 / factor) / 2, 3)
    print("  ".join(f"{key} {value}" for key, value in line.items()))
    return line


def coverage(groups: dict[str, Any]) -> dict[str, Any]:
    """How often 80 % intervals hold, each group's made from the held-out errors of the others alone."""
    inside, widths = [], []
    for name, ratio in groups.items():
        others = np.concatenate([values for other, values in groups.items() if other != name])
        factor = float(np.exp(Z80 * error_of(others)[1]))
        held = np.abs(np.log(ratio)) <= np.log(factor)
        inside.append(held)
        widths.append((factor - 1 / factor) / 2)
        print(f"  {name}: {held.mean():.0%} of {len(held)} within a factor of {factor:.2f}")
    line = {
        "test": "80 % intervals, spread from other groups",
        "rows": sum(len(held) for held in inside),
        "coverage_80": round(float(np.concatenate(inside).mean()), 3),
        "half_width": round(float(np.median(widths)), 3),
    }
    print("  ".join(f"{key} {value}" for key, value in line.items()))
    return line


def main() -> None:
    """Print every held-out table; write the calibrations where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", required=True, type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    measured, slow = tables(options.measured), slowdowns(options.measured)

    def fit(rows: MeasuredRows) -> Fitted:
        return fit_rows(rows, slow)

    fitted = fit(measured)
    print_coefficients(fitted, slow)
    lines, pooled = [], {}
    print("\ntime per output token, DeepSeek-R1 at a concurrency")
    tests: dict[str, Callable[[Row], bool]] = {
        "without MI300X": lambda row: row.seconds is not None and row.hardware == "mi300x",
        "without H200": lambda row: row.seconds is not None and row.hardware == "h200",
        "without SGLang": lambda row: row.seconds is not None and row.engine == "sglang",
        "without TensorRT-LLM": lambda row: row.seconds is not None and row.engine == "tensorrt-llm",
        "without concurrency >= 64": lambda row: row.seconds is not None and (row.traffic.batch or 0) >= 64,
    }
    for name, test in tests.items():
        left = measured.where(test)
        kept = fit(measured.where(lambda row, test=test: not test(row)))  # type: ignore[misc]
        pooled[name] = kept.predict(left.newest().rows) / np.array([row.value for row in left.newest().rows])
        every = kept.predict(left.rows) / np.array([row.value for row in left.rows])
        spread = error_of(pooled[name])[1]
        lines.append(report(f"{name}, all rows", every))
        lines.append(report(f"{name}, newest of each setup", pooled[name], float(np.exp(Z80 * spread))))

    print("\nthroughput at maximum load, one model left out at a time")
    rows, ratio = held_out(measured, lambda row: row.model, fit)
    models = list(dict.fromkeys(row.model for row in rows))
    most = np.array([row.seconds is None for row in rows])
    by_model = {model: ratio[most & np.array([row.model == model for row in rows])] for model in models}
    by_model = {model: values for model, values in by_model.items() if len(values)}
    for model, values in by_model.items():
        lines.append(report(model, values))
    lines.append(report("all models", np.concatenate(list(by_model.values()))))
    first = next(model for model in models if model.lower().startswith("deepseek-r1-0528 ("))
    tpot = ratio[~most & np.array([row.model == first for row in rows])]
    lines.append(report("DeepSeek-R1, time per output token, no row of it fitted", tpot))

    print("\npredicted over measured for MoE, over the same for dense, fitted without either")
    errors_of_pairs = print_pairs(measured, fit, lines)
    members = {model: fit(measured.where(lambda row, m=model: row.model != m)) for model in models}  # type: ignore[misc]
    residual = pair_residual(measured, fitted, members, errors_of_pairs)
    print(f"residual of ratios beside their jackknife error: {residual:.3f}")

    print("\nintervals: of each left-out group, with the spread of all other groups")
    lines.append(coverage(pooled | by_model))
    # Where the only model of an engine is left out, so is the engine: those rows hold both errors.
    engine_stays = np.array(
        [any(other.engine == row.engine and other.model != row.model for other in rows) for row in rows]
    )
    own, both = (error_of(ratio[rows_of])[1] for rows_of in (engine_stays, ~engine_stays))
    errors = {
        "none": (ratio, "model"),
        "engine": (np.concatenate([pooled["without SGLang"], pooled["without TensorRT-LLM"]]), "engine"),
        "device": (
            np.concatenate([pooled["without MI300X"], pooled["without H200"], ratio[most]]),
            "device, and by model at maximum load",
        ),
    }
    print("\nwith drafted tokens, without a row of the model")
    errors |= {
        "draft": (print_drafts(drafted(options.measured), members[first]), "model with drafted tokens"),
        "precision": (without_both(measured, lambda row: row.traffic.precision, fit), "model and precision"),
        "kv_precision": (
            without_both(measured, lambda row: row.traffic.kv_precision, fit),
            "model and cache precision",
        ),
    }
    print("\nseveral nodes: predicted over published, in no fit")
    errors["nodes"] = (print_published(fitted), "four published rates over nodes, on which the form was chosen")
    spreads = inherited_spreads(errors, own, both)
    for name, (values, what) in errors.items():
        spread = error_of(values)[1]
        lines.append(report(f"held out by {what} ({name})", values, float(np.exp(Z80 * spread))))
        print(f"  shipped with a factor of {np.exp(Z80 * spreads[name]):.3f}")
    at_once = ratio[~engine_stays]
    lines.append(report("held out by model and engine at once", at_once, float(np.exp(Z80 * spreads["engine"]))))
    # A design that is planned is a new model: of an engine without rows, the error of both ships.
    errors["engine"] = (at_once, "model and engine")
    print("\nworst of these")
    for i in np.argsort(-np.abs(np.log(ratio)))[:6]:
        row = rows[i]
        print(
            f"  {row.model} on {row.layout.gpus} x {row.hardware}, {row.engine}, {row.traffic.prompt}+"
            f"{row.traffic.output}, batch {row.traffic.batch or 'max'}: {ratio[i] - 1:+.0%} without the model"
        )
    if options.json:
        write_json(options.json, lines)
    if options.write:
        write_text(options.write, calibrations(fitted, measured, errors, spreads, members, residual))


def print_coefficients(fitted: Fitted, slow: dict[str, tuple[float, float]]) -> None:
    """Every fitted number with its 80 % interval."""
    print("slowdown from MLPerf alone:", {name: round(value, 3) for name, (value, _) in slow.items()})
    values = fitted.coefficients.model_dump() | fitted.engines | fitted.slowdowns | {"progress": fitted.progress}
    for name, (low, high) in fitted.intervals.items():
        print(f"  {name:14s} {values[name]:.4g} [{low:.4g}, {high:.4g}]")


Pair = tuple[str, str]


def without_both(measured: MeasuredRows, part: Callable[[Row], Any], fit: Callable[[MeasuredRows], Fitted]) -> Any:
    """Predicted over measured of the newest rows, each from a fit that saw neither its model nor its `part` (n,)."""
    rows = measured.newest().rows
    keys = [(row.model, part(row)) for row in rows]
    ratio = np.full(len(rows), np.nan)
    for model, value in dict.fromkeys(keys):
        kept = measured.newest().where(lambda row, m=model, v=value: row.model != m and part(row) != v)  # type: ignore[misc]
        left = [i for i, key in enumerate(keys) if key == (model, value)]
        some = [rows[i] for i in left]
        ratio[left] = fit(kept).predict(some) / np.array([row.value for row in some])
    return ratio


def print_drafts(drafts: MeasuredRows, fitted: Fitted) -> Any:
    """Predicted over measured of rows with drafted tokens (n,), and their bias at other acceptances."""
    target = np.array([row.value for row in drafts.rows])
    for acceptance in (0.6, 0.7, 0.8, ACCEPTANCE, 0.9):
        rows = [replace(row, traffic=row.traffic.replace(acceptance=acceptance)) for row in drafts.rows]
        ratio = fitted.predict(rows) / target
        print(f"  acceptance {acceptance}: median {np.median(ratio):.2f}, {ratio.min():.2f} to {ratio.max():.2f}")
    for row, off in zip(drafts.rows, fitted.predict(drafts.rows) / target, strict=True):
        lengths = f"{row.traffic.prompt}+{row.traffic.output}"
        print(f"  {row.engine}, {lengths}, batch {row.traffic.batch}, {row.traffic.draft} drafted: {off:.2f}")
    return fitted.predict(drafts.rows) / target


def print_published(fitted: Fitted) -> Any:
    """Predicted over published rates of groups over several nodes (n,)."""
    found = []
    model = find_model("deepseek-v3")
    for report_name, hardware, gpus, lengths, rate, of_prompts in PUBLISHED:
        device = load_hardware(hardware).replace(calibration=fitted.calibration(hardware, "sglang"))
        asked = {"precision": "fp8", "gpus": gpus, "parallel": "expert", "disaggregated": True}
        cost = serve_one(model, Traffic.parse(asked | lengths), device)
        speed = cost["tokens_per_second"] / (cost["prefill_gpus"] if of_prompts else gpus)
        speed *= lengths["prompt"] / lengths["output"] if of_prompts else 1.0
        found.append(speed / rate)
        print(f"  {report_name}, {gpus} x {hardware}: {speed:,.0f} over {rate:,.0f} a device, {found[-1]:.2f}")
    return np.array(found)


def print_pairs(
    measured: MeasuredRows, fit: Callable[[MeasuredRows], Fitted], lines: list[dict[str, Any]]
) -> dict[Pair, float]:
    """Each two models, fitted without either: the ratio of their medians of predicted over measured at maximum load.

    Prints those of MoE over dense models, and returns all.
    """
    rows = measured.newest()
    names = sorted({row.model for row in rows.rows if row.seconds is None}, key=lambda n: plain_name(n) in DENSE)
    found: dict[Pair, float] = {}
    for pair in itertools.combinations(names, 2):
        kept = fit(rows.where(lambda row, pair=pair: row.model not in pair))  # type: ignore[misc]
        medians = []
        for name in pair:
            some = [row for row in rows.rows if row.model == name and row.seconds is None]
            medians.append(np.median(kept.predict(some) / np.array([row.value for row in some])))
        found[pair] = float(medians[0] / medians[1])
    mixed = {pair: r for pair, r in found.items() if [plain_name(name) in DENSE for name in pair] == [False, True]}
    for (moe, dense), ratio in mixed.items():
        print(f"  {moe} over {dense}: {ratio:.3f}")
        lines.append({"test": f"{moe} over {dense}", "ratio": round(ratio, 3)})
    print(f"  median {np.median(list(mixed.values())):.3f}")
    return found


def pair_residual(
    measured: MeasuredRows, fitted: Fitted, members: dict[str, Fitted], pairs: dict[Pair, float]
) -> float:
    """What the jackknife errors of ratios lack, so that 80 % intervals hold 80 % of the held-out ratios."""
    rows = [row for row in measured.newest().rows if row.seconds is None]
    names = list(dict.fromkeys(row.model for row in rows))
    base = np.log(fitted.predict(rows))
    shift = np.stack([np.log(member.predict(rows)) - base for member in members.values()])
    logs = np.stack([shift[:, [row.model == name for row in rows]].mean(1) for name in names], axis=1)
    experts = {row.model: row.config.moe for row in rows}
    widths = np.array([float(moe.d_expert) if (moe := experts[name]) else 0.0 for name in names])
    first, second = (np.array([names.index(pair[side]) for pair in pairs]) for side in (0, 1))
    variances = Replicates(logs, widths, 0.0).jackknife(first, second)
    return residual_of(np.abs(np.log(list(pairs.values()))), variances, widths_apart(widths[first], widths[second]))


def inherited_spreads(errors: dict[str, tuple[Any, str]], own: float, both: float) -> dict[str, float]:
    """Spreads of what ships: what is inherited has the error of another model, and that of the step to another device
    or engine; without rows of a precision or with drafts, that of rows whose model was left out too. `own` is the
    spread of left-out models whose engine stayed in the fit, as the error of an engine counts beside it; `both` that of
    rows whose model and engine were left out at once, which it is at least.
    """
    found = {name: error_of(values)[1] for name, (values, _) in errors.items()}
    return found | {
        "engine": max(math.hypot(own, found["engine"]), both),
        "device": math.hypot(found["none"], found["device"]),
    }


def calibrations(
    fitted: Fitted,
    measured: MeasuredRows,
    errors: dict[str, tuple[Any, str]],
    spreads: dict[str, float],
    members: dict[str, Fitted],
    residual: float,
) -> str:
    """The file that ships: coefficients with counts of rows and errors, replicates without one model, and no row."""
    devices: dict[str, Any] = {}
    for row in measured.newest().rows:
        slowdown = fitted.slowdowns.get(row.hardware, 1.0)
        known = devices.setdefault(row.hardware, {"slowdown": slowdown, "rows": {}, "models": {}})
        known["rows"][row.engine] = known["rows"].get(row.engine, 0) + 1
        known["models"].setdefault(row.engine, set()).add(row.config)
    for known in devices.values():
        known["models"] = {engine: len(configs) for engine, configs in known["models"].items()}
    measured_errors = {name: error_of(values) for name, (values, _) in errors.items()}
    value = {
        "source": "NVIDIA/TensorRT-LLM performance overview, MLPerf Inference v5.1 (both Apache-2.0) and, for "
        "coefficients alone, InferenceX (SemiAnalysis); benchmarks/serving_accuracy.py repeats the fit",
        "default_engine": "tensorrt-llm",
        **{
            name: list(found) if isinstance(found, tuple) else found
            for name, found in measured.newest().supported().items()
        },
        "coefficients": rounded(fitted.coefficients.model_dump()),
        "intervals": {name: [float(f"{end:.4g}") for end in ends] for name, ends in fitted.intervals.items()},
        "engines": rounded(fitted.engines),
        "progress": float(f"{fitted.progress:.4g}"),
        "devices": {name: {**known, "slowdown": float(f"{known['slowdown']:.4g}")} for name, known in devices.items()},
        "pair_residual": float(f"{residual:.4g}"),
        "members": {name: rounded(changed(member, fitted)) for name, member in members.items()},
        "errors": {
            name: rounded({"error": measured_errors[name][0], "spread": spreads[name]}) | {"held_out_by": what}
            for name, (_, what) in errors.items()
        },
    }
    return "# Written by benchmarks/serving_accuracy.py --write; coefficients of the serving model.\n" + dump_yaml(
        value
    )


def changed(member: Fitted, fitted: Fitted) -> dict[str, float]:
    """Coefficients of a fit without one model over those of the fit to all; the kernel's with its engine."""
    new, old = (
        fit.calibration("h200", "tensorrt-llm").coefficients.model_dump(include=set(PRIORS)) for fit in (member, fitted)
    )
    return {name: new[name] / old[name] for name in new}


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers with four digits."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in values.items()}


if __name__ == "__main__":
    main()
